"""States behind an address: a training goes on from them on a machine that never saw it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from blob_dataset import fn_args

from schema import places
from tests.emulators import processes, tls
from trainer import bundle, checkpointing
from trainer.checkpointing import NAME
from trainer.config import (
    BackboneSettings,
    FinetuneSettings,
    InputGateSettings,
    InputSettings,
    PretrainSettings,
)
from trainer.errors import BundleError, StateError
from trainer.remote_states import RemoteFolder
from trainer.run_fn import read_job, run_fn, train_and_export

INPUT = InputSettings(image_size=32)
BACKBONE = BackboneSettings(width=0.125)
FINETUNE = FinetuneSettings(
    input=INPUT, backbone=BACKBONE, epochs=3, augmentation="none",
    input_gate=InputGateSettings(enabled=False),
)  # fmt: skip
STATE = "epoch-{:06d}-step-000000-{}.npz"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def address() -> str:
    """A place of this test's own in TensorFlow's filesystem in memory."""
    return f"ram://{uuid.uuid4().hex}/root"


class Stopped(Exception):
    """Ends a training after an epoch's state is saved, as a kill would."""


def remote_args(address: str, blobs, attempt: str, settings=FINETUNE, base=None):
    """What a Trainer passes whose pipeline root is an address."""
    args = fn_args(
        Path("unused"), settings, [blobs.train], [blobs.val], base,
        checkpoint_root=f"{address}/checkpoints",
    )  # fmt: skip
    args.serving_model_dir = f"{address}/model/{attempt}/Format-Serving"
    args.model_run_dir = f"{address}/run/{attempt}"
    return args


@pytest.mark.slow
def test_a_training_behind_addresses_goes_on_and_leaves_all_there(address, blobs, tmp_path):
    heard = []

    def hear(stage, epoch, epochs, metrics):
        heard.append(epoch)
        if len(heard) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train_and_export(read_job(remote_args(address, blobs, "1")), hear)
    assert not places.exists(f"{address}/model/1"), "half a model was exported"
    train_and_export(read_job(remote_args(address, blobs, "2")), hear)
    assert heard == [1, 2, 3]
    [stage] = places.listed(f"{address}/checkpoints")
    states = places.listed(f"{address}/checkpoints/{stage}")
    assert [name[:12] for name in states] == ["epoch-000002", "epoch-000003"]
    assert set(places.listed(f"{address}/model/2")) == {"Format-Serving", "bundle"}
    assert "steps.csv" in places.listed(f"{address}/run/2")
    with places.fetched(f"{address}/model/2/bundle") as folder:
        assert len(bundle.load(folder).history) == 3


@pytest.mark.slow
def test_a_base_model_behind_an_address_is_fetched(address, blobs, tmp_path):
    encoder = PretrainSettings(input=INPUT, backbone=BACKBONE, epochs=1)
    run_fn(fn_args(tmp_path, encoder, [blobs.train], [blobs.val]))
    places.copy(str(tmp_path / "bundle"), f"{address}/encoder/bundle")
    base = f"{address}/encoder/Format-Serving"
    teacher = FINETUNE.model_copy(update={"backbone": None, "epochs": 1})
    run_fn(remote_args(address, blobs, "1", teacher, base))
    assert places.exists(f"{address}/model/1/bundle/weights.npz")
    with pytest.raises(BundleError, match=f"{address}/none/bundle"):
        run_fn(remote_args(address, blobs, "2", teacher, f"{address}/none/Format-Serving"))


def state(folder: Path, epoch: int, content: bytes) -> str:
    """A made-up state that is whole."""
    path = folder / "new"
    path.write_bytes(content)
    name = STATE.format(epoch, checkpointing._digest(path))
    path.rename(folder / name)
    return name


def test_half_an_upload_is_no_state(address, tmp_path):
    kept = RemoteFolder(f"{address}/finetune-0", tmp_path / "here")
    kept.local.mkdir()
    first, second = (state(kept.local, epoch, b"state" * epoch) for epoch in (1, 2))
    kept.keep(NAME)
    places.write_bytes(f"{kept.address}/{second}", b"stat")
    elsewhere = RemoteFolder(kept.address, tmp_path / "elsewhere")
    elsewhere.fetch(NAME)
    assert checkpointing.newest(elsewhere.local).name == first
    (kept.local / first).unlink()
    third = state(kept.local, 3, b"third")
    kept.keep(NAME)
    assert places.listed(kept.address) == sorted([second, third])


def test_older_trainings_of_a_stage_make_room(tmp_path):
    """Behind `file://`: the filesystem in memory does not know when a file was written."""
    written = ("finetune-0", "finetune-3", "pretrain-0", "finetune-1", "finetune-4", "finetune-2")
    for second, name in enumerate(written, start=1):
        places.write_bytes(tmp_path / name / STATE.format(1, 0), b"x")
        os.utime(tmp_path / name / STATE.format(1, 0), (second, second))
    checkpointing.make_room(RemoteFolder(f"file://{tmp_path}/finetune-0", tmp_path / "here"))
    stay = ["finetune-0", "finetune-2", "finetune-4", "pretrain-0"]
    assert places.listed(tmp_path) == stay


def test_an_address_that_cannot_be_reached_is_told(tmp_path):
    nowhere = RemoteFolder("unheard://of/finetune-0", tmp_path)
    with pytest.raises(StateError, match=r"unheard://of/finetune-0.*start the training again"):
        checkpointing.make_room(nowhere)


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from types import SimpleNamespace
from trainer import loop
from trainer.run_fn import read_job, train_and_export

def hear(stage, epoch, epochs, metrics):
    print(epoch, flush=True)
    if epoch == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

train_and_export(read_job(SimpleNamespace(**{args!r})), hear)
"""


@pytest.mark.slow
def test_killed_on_one_machine_a_training_goes_on_on_another(blobs, tmp_path):
    whole = tmp_path / "whole"
    run_fn(fn_args(whole, FINETUNE, [blobs.train], [blobs.val]))
    with processes.storage() as store, tls.google_storage(store.port, tmp_path) as environment:
        store.make_bucket("states")
        heard = []
        for attempt, at in (("1", 1), ("2", 2), ("3", None)):
            scratch = tmp_path / f"machine-{attempt}"  # of a machine that is lost afterwards
            scratch.mkdir()
            args = vars(remote_args("gs://states/root", blobs, attempt))
            script = KILLED.format(paths=sys.path, at=at, args=args)
            ended = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", script],
                env={**os.environ, **environment, "TMPDIR": str(scratch)},
                cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
            assert ended.returncode == (0 if at is None else -signal.SIGKILL), ended.stderr[-2000:]
            heard.append(ended.stdout.split())
            shutil.rmtree(scratch)
        assert heard == [["1"], ["2"], ["3"]]
        history = store.read("states", "root/model/3/bundle/history.json")
        weights = store.read("states", "root/model/3/bundle/weights.npz")
    (tmp_path / "weights.npz").write_bytes(weights)

    def timeless(document: bytes) -> list[dict]:
        return [
            {key: value for key, value in epoch.items() if "second" not in key}
            for epoch in json.loads(document)
        ]

    assert timeless(history) == timeless((whole / "bundle" / "history.json").read_bytes())
    assert equal(tmp_path / "weights.npz", whole / "bundle" / "weights.npz")


def equal(one: Path, other: Path) -> bool:
    import numpy as np

    with np.load(one) as first, np.load(other) as second:
        return first.files == second.files and all(
            np.array_equal(first[name], second[name]) for name in first.files
        )
