"""A training killed in the middle ends as if it had never been."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blob_dataset import fn_args

from trainer import architectures, bundle, checkpointing, examples
from trainer.architectures import StudentArchitecture
from trainer.checkpointing import TrainingState, fingerprint
from trainer.config import (
    BackboneSettings,
    DistilSettings,
    FinetuneSettings,
    InputSettings,
    LiteRTSettings,
    OptimizerSettings,
    PretrainSettings,
)
from trainer.optimizers import build_optimizer
from trainer.run_fn import read_job, run_fn, train_and_export

INPUT = InputSettings(image_size=32)
BACKBONE = BackboneSettings(width=0.125)
PRETRAIN = PretrainSettings(
    input=INPUT, backbone=BACKBONE, epochs=3, batch_size=32, optimizer=OptimizerSettings()
)
FINETUNE = FinetuneSettings(input=INPUT, backbone=BACKBONE, epochs=3)

KILLED_AFTER_EPOCH_2 = """
import os, signal, sys
sys.path[:0] = {paths!r}
from blob_dataset import fn_args
from trainer.config import parse_stage
from trainer.run_fn import read_job, train_and_export
from pathlib import Path

def kill(stage, epoch, epochs, metrics):
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path({folder!r})
args = fn_args(folder, parse_stage({stage!r}), [{train!r}], [{val!r}],
               checkpoint_root=str(folder / "checkpoints"))
train_and_export(read_job(args), progress=kill)
"""


def weights(folder: Path) -> dict[str, np.ndarray]:
    return bundle.weights(bundle.load(folder / "bundle").model)


def timeless(folder: Path) -> list[dict]:
    epochs = json.loads((folder / "bundle" / "history.json").read_text())
    return [
        {k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")}
        for entry in epochs
    ]


@pytest.mark.parametrize(
    "settings", [FINETUNE, pytest.param(PRETRAIN, marks=pytest.mark.slow)], ids=lambda s: s.stage
)
def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path, blobs, settings):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    script = KILLED_AFTER_EPOCH_2.format(
        paths=sys.path, folder=str(broken), stage=settings.model_dump_json(),
        train=blobs.train, val=blobs.val,
    )  # fmt: skip
    died = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, env=os.environ
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    assert not (broken / "bundle").exists()

    heard = []
    args = fn_args(
        broken, settings, [blobs.train], [blobs.val], checkpoint_root=str(broken / "checkpoints")
    )
    train_and_export(read_job(args), lambda stage, epoch, epochs, metrics: heard.append(epoch))
    run_fn(fn_args(whole, settings, [blobs.train], [blobs.val]))

    assert heard == [3]
    assert timeless(broken) == timeless(whole)
    expected, received = weights(whole), weights(broken)
    for name, array in expected.items():
        np.testing.assert_array_equal(received[name], array, err_msg=name)


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
    assert epochs_trained(tmp_path, FINETUNE, blobs, stop_after=2, code_digest="old") == [1, 2]
    assert epochs_trained(tmp_path, FINETUNE, blobs, code_digest="new") == [1, 2, 3]
    assert epochs_trained(tmp_path, FINETUNE, blobs, code_digest="old") == [3]


def test_a_finished_stage_killed_before_it_is_published_exports_without_training(tmp_path, blobs):
    # A high rate, so that an epoch before the last is the best and early stopping ends training.
    settings = FINETUNE.model_copy(
        update={
            "epochs": 9,
            "optimizer": OptimizerSettings(learning_rate=1.0),
            "early_stopping_patience": 1,
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
    for name, array in weights(tmp_path).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_old_states_of_a_stage_make_room_when_it_starts(tmp_path, blobs):
    root = tmp_path / "checkpoints"
    for age, name in enumerate(["finetune-a", "finetune-b", "finetune-c", "distil-d"]):
        (root / name / "epoch-000001").mkdir(parents=True)
        os.utime(root / name, (1e9 - age, 1e9 - age))
    epochs_trained(tmp_path, FINETUNE, blobs, stop_after=1)
    left = {path.name for path in root.iterdir()}
    (own,) = left - {"finetune-a", "finetune-b", "distil-d"}
    assert own.startswith("finetune-")
    assert len(left) == 4

    os.utime(root / own, (1, 1))  # the oldest of all, yet the one to continue
    assert epochs_trained(tmp_path, FINETUNE, blobs, stop_after=2) == [2]
    assert {path.name for path in root.iterdir()} == left


def student_and_optimizer():
    architecture = StudentArchitecture(filters=(4,), dense=4, classes=2)
    model = architectures.build("student", architecture, INPUT, seed=3)
    optimizer = build_optimizer(
        OptimizerSettings(name="adamw"), model=model, steps_per_epoch=1, epochs=5, batch_size=1
    )
    return model, optimizer


def test_only_the_newest_complete_state_counts(tmp_path):
    model, optimizer = student_and_optimizer()
    for epoch in (1, 2):
        model.logits.bias.assign([float(epoch), 0.0])
        optimizer.iterations.assign(epoch)
        state = TrainingState(epoch, [{"loss": 1.0}] * epoch, 1, [0.5], [np.ones(2)])
        checkpointing.save(tmp_path, state, model, optimizer)
    (tmp_path / "partial-000003").mkdir()  # a run killed while it wrote
    assert len(list(tmp_path.glob("epoch-*"))) == 1

    model, optimizer = student_and_optimizer()
    restored = checkpointing.restore(tmp_path, model, optimizer)
    assert (restored.epoch, restored.best_epoch, restored.best_score) == (2, 1, [0.5])
    np.testing.assert_array_equal(restored.best_weights[0], np.ones(2))
    assert model.logits.bias.numpy().tolist() == [2.0, 0.0]
    assert int(optimizer.iterations) == 2


def test_without_a_state_training_starts_anew(tmp_path):
    assert checkpointing.restore(tmp_path / "none", *student_and_optimizer()) == TrainingState()


def test_fingerprint_changes_with_whatever_changes_the_result(blobs):
    inputs = examples.identity([blobs.train])
    mark = fingerprint(DistilSettings(), inputs, "base", "code")
    assert mark == fingerprint(DistilSettings(checkpoint_every_epochs=7), inputs, "base", "code")
    looser = DistilSettings(litert=LiteRTSettings(calibration_images=9, int8_min_agreement=0.5))
    assert mark == fingerprint(looser, inputs, "base", "code")
    others = (
        fingerprint(DistilSettings(epochs=99), inputs, "base", "code"),
        fingerprint(DistilSettings(), inputs, "other base", "code"),
        fingerprint(DistilSettings(), inputs, None, "code"),
        fingerprint(DistilSettings(), inputs, "base", "other code"),
        fingerprint(DistilSettings(), inputs, "base", None),
        fingerprint(DistilSettings(), examples.identity([blobs.val]), "base", "code"),
    )
    assert len({mark, *others}) == 7
