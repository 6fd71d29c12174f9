"""Signals become a request, the second one is obeyed at once, and what was there is put back."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cluster
import numpy as np
import pytest
from blob_dataset import fn_args

from trainer import preemption
from trainer.config import (
    BackboneSettings,
    ExecutionSettings,
    FinetuneSettings,
    InputSettings,
)
from trainer.errors import Preempted
from trainer.run_fn import run_fn

# A step that never returns to Python, as one that waits for a worker that is gone.
STUCK = """
import hashlib, sys
from trainer import preemption
with preemption.heeded():
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.mark.parametrize("number", preemption.HEEDED)
def test_a_signal_becomes_a_request_and_handlers_come_back(number):
    before = [signal.getsignal(each) for each in preemption.HEEDED]
    with preemption.heeded() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
    assert [signal.getsignal(each) for each in preemption.HEEDED] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_second_interrupt_does_not_wait():
    with preemption.heeded() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal == signal.SIGINT


def test_a_second_sigterm_ends_a_step_that_never_returns():
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=cluster.PATIENCE) == 143
    finally:
        cluster.stop([process])


def test_outside_the_main_thread_nothing_is_heard():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with preemption.heeded() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_nobody_need_know_the_error_for_the_right_exit_code():
    script = "from trainer.errors import Preempted; raise Preempted('stopped')"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 143
    assert str(Preempted("stopped")) == "stopped"


WORKER = """
import os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from blob_dataset import fn_args
from trainer import loop
from trainer.config import parse_stage
from trainer.run_fn import run_fn

run = loop.run

def struck(training, workspace):
    calls = iter(range(1, 10**6))

    def stepped(indices, seed, step=training.step):
        if next(calls) == {at}:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(indices, seed)

    object.__setattr__(training, "step", stepped)
    return run(training, workspace)

loop.run = struck
folder = Path({folder!r})
run_fn(fn_args(folder, parse_stage({stage!r}), [{train!r}], [{val!r}],
               checkpoint_root=str(folder / "checkpoints")))
"""


def work_together(folder: Path, settings, blobs, at: int) -> list[int]:
    """Two workers train; the second, not the chief, hears SIGTERM in step `at` (0: never)."""
    scripts = [
        WORKER.format(
            paths=sys.path, folder=str(folder), stage=settings.model_dump_json(),
            train=blobs.train, val=blobs.val, at=step,
        )
        for step in (0, at)
    ]  # fmt: skip
    workers = cluster.start([[sys.executable, "-c", script] for script in scripts], folder)
    cluster.end(workers)
    return [worker.returncode for worker in workers]


@pytest.mark.slow
def test_one_worker_that_is_stopped_stops_all_at_one_step(tmp_path, blobs):
    settings = FinetuneSettings(
        input=InputSettings(image_size=32),
        backbone=BackboneSettings(width=0.125),
        augmentation="none",
        epochs=2,
        execution=ExecutionSettings(strategy="multi_worker"),
    )
    told = "\n".join
    assert work_together(tmp_path, settings, blobs, at=4) == [143, 143], told(
        path.read_text()[-2000:] for path in tmp_path.glob("stderr-*.txt")
    )
    newest = max(path.name for path in tmp_path.glob("checkpoints/*/epoch-*"))
    assert newest.startswith("epoch-000001-step-000001")
    assert not (tmp_path / "bundle").exists()

    assert work_together(tmp_path, settings, blobs, at=0) == [0, 0], told(
        path.read_text()[-2000:] for path in tmp_path.glob("stderr-*.txt")
    )
    whole = tmp_path / "whole"
    alone = settings.model_copy(update={"execution": ExecutionSettings()})
    run_fn(fn_args(whole, alone, [blobs.train], [blobs.val]))
    curves = [
        np.genfromtxt(folder / "run" / "steps.csv", delimiter=",", names=True)
        for folder in (whole, tmp_path)
    ]
    assert [len(curve) for curve in curves] == [6, 6]
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], rtol=0, atol=1e-3)
