"""A training killed in the middle ends as if it had never been."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from array import array
from pathlib import Path

import numpy as np
import pytest
from blob_dataset import fn_args

from trainer import architectures, bundle, checkpointing
from trainer.architectures import StudentArchitecture
from trainer.checkpointing import TrainingState
from trainer.config import (
    BackboneSettings,
    DistilSettings,
    ExecutionSettings,
    FinetuneSettings,
    InputSettings,
    LiteRTSettings,
    OptimizerSettings,
    PretrainSettings,
)
from trainer.errors import StateError
from trainer.optimizers import build_optimizer
from trainer.run_fn import read_job, run_fn, train_and_export

INPUT = InputSettings(image_size=32)
BACKBONE = BackboneSettings(width=0.125)
OFTEN = 1e-9  # seconds: a state after every step
PRETRAIN = PretrainSettings(
    input=INPUT,
    backbone=BACKBONE,
    epochs=3,
    batch_size=16,
    optimizer=OptimizerSettings(),
    checkpoint_every_seconds=OFTEN,
)
FINETUNE = FinetuneSettings(
    input=INPUT, backbone=BACKBONE, epochs=3, checkpoint_every_seconds=OFTEN
)
PLAIN = FINETUNE.model_copy(update={"augmentation": "none"})  # compiled sooner
DISTIL = DistilSettings(
    input=INPUT,
    epochs=3,
    litert=LiteRTSettings(int8_min_agreement=0.0, int8_max_mean_difference=1.0),
    checkpoint_every_seconds=OFTEN,
)

# Signals come as the given step begins: half way through the work of a training.
STRUCK = """
import os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from blob_dataset import fn_args
from trainer.config import parse_stage
from trainer.execution import Execution
from trainer.run_fn import run_fn

compile_ = Execution.compile

def struck(self, *args, **options):
    step, calls = compile_(self, *args, **options), iter(range(1, 10**6))

    def stepped(indices, seed):
        if next(calls) == {at}:
            os.kill(os.getpid(), signal.{signal})
        return step(indices, seed)

    return stepped

Execution.compile = struck
folder = Path({folder!r})
run_fn(fn_args(folder, parse_stage({stage!r}), [{train!r}], [{val!r}], {base!r},
               checkpoint_root=str(folder / "checkpoints")))
"""


def weights(folder: Path) -> dict[str, np.ndarray]:
    return bundle.weights(bundle.load(folder / "bundle").model)


def timeless(folder: Path) -> list[dict]:
    epochs = json.loads((folder / "bundle" / "history.json").read_text())
    return [{k: v for k, v in entry.items() if "second" not in k} for entry in epochs]


def reached(folder: Path) -> tuple[int, int]:
    """Epochs done, and steps of the next one, of the newest state."""
    newest = max(path.name for path in folder.glob("checkpoints/*/epoch-*"))
    return int(newest[6:12]), int(newest[18:24])


def strikes(settings, steps: int) -> list[tuple[str, int]]:
    """For each process that does not live: the signal, and the step of its own that it dies in."""
    random = np.random.default_rng([len(settings.stage), steps])
    first, second = sorted(random.choice(np.arange(2, settings.epochs * steps), 2, replace=False))
    names = random.permutation(["SIGKILL", "SIGTERM"])
    # The second process begins after the first's last step, or with it when nobody kept it.
    begun = first if names[0] == "SIGTERM" else first - 1
    return [(names[0], int(first)), (names[1], int(second - begun))]


def strike(folder: Path, settings, blobs, base: str | None, name: str, at: int) -> None:
    """Trains in a process of its own, up to the signal in its step `at`."""
    script = STRUCK.format(
        paths=sys.path, folder=str(folder), stage=settings.model_dump_json(), base=base,
        train=blobs.train, val=blobs.val, at=at, signal=name,
    )  # fmt: skip
    died = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, env=os.environ
    )
    code = 143 if name == "SIGTERM" else -signal.SIGKILL
    assert died.returncode == code, died.stderr.decode()[-2000:]


def teacher_for(settings, folder: Path, blobs) -> str | None:
    if settings.stage != "distil":
        return None
    run_fn(fn_args(folder, FINETUNE, [blobs.train], [blobs.val]))
    return str(folder / "Format-Serving")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(FINETUNE, marks=pytest.mark.slow),
        pytest.param(PRETRAIN, marks=pytest.mark.slow),
        pytest.param(DISTIL, marks=pytest.mark.slow),
    ],
    ids=lambda s: s.stage,
)
def test_struck_at_any_step_a_training_resumes_to_the_same_curve(tmp_path, blobs, settings):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    base = teacher_for(settings, tmp_path / "teacher", blobs)
    run_fn(fn_args(whole, settings, [blobs.train], [blobs.val], base))
    expected_table = (whole / "run" / "steps.csv").read_text()
    steps = (len(expected_table.splitlines()) - 1) // settings.epochs
    done = 0
    for name, at in strikes(settings, steps):
        strike(broken, settings, blobs, base, name, at)
        assert not (broken / "bundle").exists()
        done += at if name == "SIGTERM" else at - 1
        epoch, step = reached(broken)
        assert epoch * steps + step == done

    root = str(broken / "checkpoints")
    run_fn(fn_args(broken, settings, [blobs.train], [blobs.val], base, checkpoint_root=root))
    assert (broken / "run" / "steps.csv").read_text() == expected_table
    assert timeless(broken) == timeless(whole)
    expected, received = weights(whole), weights(broken)
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)


@pytest.mark.slow
def test_begun_on_two_replicas_a_training_goes_on_with_one(tmp_path, blobs):
    settings = FINETUNE.model_copy(update={"augmentation": "none"})
    run_fn(fn_args(tmp_path / "whole", settings, [blobs.train], [blobs.val]))
    broken = tmp_path / "broken"
    two = settings.model_copy(
        update={"execution": ExecutionSettings(strategy="mirrored", replicas=2)}
    )
    strike(broken, two, blobs, None, "SIGTERM", at=5)
    place = reached(broken)
    assert place == (1, 2)
    root = str(broken / "checkpoints")
    run_fn(fn_args(broken, settings, [blobs.train], [blobs.val], checkpoint_root=root))
    curves = [
        np.genfromtxt(folder / "run" / "steps.csv", delimiter=",", names=True)
        for folder in (tmp_path / "whole", broken)
    ]
    assert [len(curve) for curve in curves] == [9, 9]
    np.testing.assert_array_equal(curves[0]["lr"], curves[1]["lr"])
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], rtol=0, atol=1e-3)


class Stopped(Exception):
    """Ends a training after an epoch's state is saved, as a kill would."""


def epochs_trained(folder, settings, blobs, stop_after=None, **config) -> list[int]:
    """Trains and exports, and returns the epochs that this took."""
    heard = []

    def hear(stage, epoch, epochs, metrics):
        heard.append(epoch)
        if epoch == stop_after:
            raise Stopped

    root = str(folder / "checkpoints")
    args = fn_args(folder, settings, [blobs.train], [blobs.val], checkpoint_root=root, **config)
    with contextlib.suppress(Stopped):
        train_and_export(read_job(args), hear)
    return heard


def test_edited_code_does_not_continue_a_half_trained_stage(tmp_path, blobs):
    old, new = {"code_digest": "old"}, {"code_digest": "new"}
    assert epochs_trained(tmp_path, PLAIN, blobs, stop_after=2, **old) == [1, 2]
    assert epochs_trained(tmp_path, PLAIN, blobs, stop_after=1, **new) == [1]
    assert epochs_trained(tmp_path, PLAIN, blobs, stop_after=3, **old) == [3]


def test_a_finished_stage_killed_before_it_is_published_exports_without_training(tmp_path, blobs):
    # A high rate, so that an epoch before the last is the best and early stopping ends training.
    settings = FINETUNE.model_copy(
        update={
            "epochs": 9,
            "optimizer": OptimizerSettings(learning_rate=1.0),
            "early_stopping_patience": 1,
            "min_people_to_choose": 15,  # as many as there are
            "checkpoint_every_epochs": 4,
        }
    )
    trained = epochs_trained(tmp_path, settings, blobs)
    assert 1 < len(trained) < settings.epochs
    assert len(trained) % settings.checkpoint_every_epochs
    before, history = weights(tmp_path), timeless(tmp_path)
    for exported in ("bundle", "Format-Serving"):
        shutil.rmtree(tmp_path / exported)

    assert epochs_trained(tmp_path, settings, blobs) == []
    assert timeless(tmp_path) == history
    for name, value in weights(tmp_path).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_old_states_of_a_stage_make_room_when_it_starts(tmp_path, blobs):
    root = tmp_path / "checkpoints"
    for age, name in enumerate(["finetune-a", "finetune-b", "finetune-c", "distil-d"]):
        (root / name / "epoch-000001").mkdir(parents=True)
        os.utime(root / name, (1e9 - age, 1e9 - age))
    epochs_trained(tmp_path, PLAIN, blobs, stop_after=1)
    left = {path.name for path in root.iterdir()}
    (own,) = left - {"finetune-a", "finetune-b", "distil-d"}
    assert own.startswith("finetune-")
    assert len(left) == 4

    os.utime(root / own, (1, 1))  # the oldest of all, yet the one to continue
    assert epochs_trained(tmp_path, PLAIN, blobs, stop_after=2) == [2]
    assert {path.name for path in root.iterdir()} == left


def student_and_optimizer():
    architecture = StudentArchitecture(filters=(4,), dense=4, classes=2)
    model = architectures.build("student", architecture, INPUT, seed=3)
    optimizer = build_optimizer(
        OptimizerSettings(name="adamw"), model=model, steps_per_epoch=1, epochs=5, batch_size=1
    )
    return model, optimizer


def saved(folder: Path, epoch: int, step: int = 0) -> Path:
    """Saves a state that tells its place, and returns its file."""
    model, optimizer = student_and_optimizer()
    model.logits.bias.assign([float(epoch), float(step)])
    optimizer.iterations.assign(epoch * 10 + step)
    state = TrainingState(
        epoch=epoch,
        step=step,
        seconds=1.5,
        timed_steps=2,
        timed_seconds=0.5,
        history=[{"loss": 1.0}] * epoch,
        steps={"loss": array("f", [0.1, 0.2]), "lr": array("f", [1.0, 0.5])},
        best_epoch=1,
        best_score=[0.5],
        best_weights=[np.ones(2)],
    )
    checkpointing.save(folder, state, model, optimizer)
    return max(folder.glob("epoch-*"))


def restored(folder: Path) -> TrainingState:
    """The state that is found, checked to have come with its weights."""
    model, optimizer = student_and_optimizer()
    state = checkpointing.restore(folder, model, optimizer)
    if state.epoch:
        assert model.logits.bias.numpy().tolist() == [state.epoch, state.step]
        assert int(optimizer.iterations) == state.epoch * 10 + state.step
    return state


def test_a_state_comes_back_whole(tmp_path):
    saved(tmp_path, epoch=2, step=3)
    state = restored(tmp_path)
    np.testing.assert_array_equal(state.best_weights[0], np.ones(2))
    state.best_weights = []
    assert state == TrainingState(
        epoch=2, step=3, seconds=1.5, timed_steps=2, timed_seconds=0.5,
        history=[{"loss": 1.0}] * 2, best_epoch=1, best_score=[0.5],
        steps={"loss": array("f", [0.1, 0.2]), "lr": array("f", [1.0, 0.5])},
    )  # fmt: skip


def test_the_newest_complete_state_counts_and_the_one_before_it_stays(tmp_path):
    for place in ((1, 0), (1, 7), (2, 0)):
        saved(tmp_path, *place)
    (tmp_path / checkpointing.PARTIAL).write_bytes(b"a run killed while it wrote")
    assert len(list(tmp_path.glob("epoch-*"))) == 2
    state = restored(tmp_path)
    assert (state.epoch, state.step) == (2, 0)


@pytest.mark.parametrize("kept", [0, 100, -1, None], ids=["empty", "short", "all but one", "bit"])
def test_a_damaged_state_is_left_out_for_the_one_before(tmp_path, caplog, kept):
    saved(tmp_path, 1)
    newest = saved(tmp_path, 1, 7)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= kept is None
    newest.write_bytes(content[:kept])
    state = restored(tmp_path)
    assert (state.epoch, state.step) == (1, 0)
    assert f"{newest} is damaged" in caplog.text
    # What is saved from there on replaces it.
    saved(tmp_path, 1, 4)
    assert sorted(path.name[:24] for path in tmp_path.glob("epoch-*")) == [
        "epoch-000001-step-000000",
        "epoch-000001-step-000004",
    ]


def test_a_full_disk_is_told_and_leaves_the_states_before_it(tmp_path):
    saved(tmp_path, 1)
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StateError, match=r"cannot be kept .*: File too large.* MB"):
            saved(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tmp_path.iterdir()) == before
    assert restored(tmp_path).epoch == 1


def test_the_state_of_another_network_is_refused(tmp_path):
    saved(tmp_path, 1)
    model, _ = student_and_optimizer()
    other = build_optimizer(
        OptimizerSettings(name="lars"), model=model, steps_per_epoch=1, epochs=5, batch_size=1
    )
    with pytest.raises(StateError, match="state of another optimizer"):
        checkpointing.restore(tmp_path, model, other)


def test_without_a_state_training_starts_anew(tmp_path):
    assert checkpointing.restore(tmp_path / "none", *student_and_optimizer()) == TrainingState()
