"""The loop itself, with a student of a few weights and scripted losses and scores."""

import dataclasses
import logging
import math

import numpy as np
import pytest
import tensorflow as tf

from trainer import architectures, loop
from trainer.architectures import StudentArchitecture
from trainer.config import InputSettings, OptimizerSettings
from trainer.errors import TrainingDiverged
from trainer.loop import Training, Workspace
from trainer.optimizers import build_optimizer

QUIET = Workspace(progress=lambda *heard: None)


def scripted(scores=None, losses=None, **changes) -> Training:
    """A training whose n-th step sets the output bias to n, and whose n-th score is given."""
    architecture = StudentArchitecture(filters=(2,), dense=2, classes=2)
    model = architectures.build("student", architecture, InputSettings(image_size=8))
    optimizer = build_optimizer(
        OptimizerSettings(), model=model, steps_per_epoch=1, epochs=9, batch_size=4
    )
    steps = iter(range(1, 100))
    given, told = iter(scores or ()), iter(losses or [1.0] * 100)

    def step(indices, seed):
        model.logits.bias.assign(tf.fill([2], float(next(steps))))
        return {"loss": tf.constant(next(told))}

    training = Training(
        stage="test",
        model=model,
        optimizer=optimizer,
        epochs=4,
        seed=0,
        batches=lambda random: random.permutation(4).reshape(1, 4),
        step=step,
        validate=(lambda: {"val_loss": 1.0, "val_macro_auc": next(given)}) if scores else None,
        score=(lambda metrics: [metrics["val_macro_auc"]]) if scores else None,
    )
    return dataclasses.replace(training, **changes)


def reached(training: Training) -> float:
    return float(training.model.logits.bias[0])


def test_keeps_the_best_epoch():
    training = scripted([0.5, 0.9, 0.7, 0.9])
    history = loop.run(training, QUIET)
    assert [entry["val_macro_auc"] for entry in history] == [0.5, 0.9, 0.7, 0.9]
    assert reached(training) == 2.0


def test_keeps_the_last_epoch_without_validation():
    training = scripted()
    loop.run(training, QUIET)
    assert reached(training) == 4.0


def test_stops_after_patience_without_a_better_epoch():
    training = scripted([0.8, 0.7, 0.6, 0.9], patience=2)
    assert len(loop.run(training, QUIET)) == 3
    assert reached(training) == 1.0


def test_a_stopped_training_stays_stopped_when_resumed(tmp_path):
    workspace = dataclasses.replace(QUIET, checkpoints=tmp_path)
    loop.run(scripted([0.8, 0.7, 0.6], patience=2), workspace)
    resumed = scripted([], patience=2)
    assert len(loop.run(resumed, workspace)) == 3
    assert reached(resumed) == 1.0


def test_saves_as_often_as_asked_and_at_the_end(tmp_path):
    seen = []

    def listen(stage, epoch, epochs, metrics):
        seen.append([folder.name for folder in tmp_path.glob("epoch-*")])

    workspace = Workspace(checkpoints=tmp_path, progress=listen)
    loop.run(scripted(epochs=5, checkpoint_every_epochs=2), workspace)
    second, fourth = ["epoch-000002"], ["epoch-000004"]
    assert seen == [[], second, second, fourth, ["epoch-000005"]]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_ends_a_diverged_training_with_epoch_and_rate(loss):
    with pytest.raises(TrainingDiverged, match=r"loss is (nan|inf) in epoch 2 of test .*rate 0\.1"):
        loop.run(scripted(losses=[1.0, loss]), QUIET)


def test_draws_depend_on_epoch_and_seed_only():
    orders = []

    def watch(training):
        def batches(random):
            orders.append(random.permutation(50).tolist())
            return np.arange(4).reshape(1, 4)

        return dataclasses.replace(training, batches=batches)

    for seed in (0, 0, 1):
        loop.run(watch(scripted(epochs=2, seed=seed)), QUIET)
    assert orders[:2] == orders[2:4]
    assert orders[0] != orders[1]
    assert orders[4] != orders[0]


def test_logs_a_line_that_a_person_can_read(caplog):
    metrics = {"loss": 0.51234, "val_macro_auc": 0.8125, "seconds": 2.0, "images_per_second": 480.0}
    with caplog.at_level(logging.INFO, "trainer"):
        loop.log_progress("finetune", 3, 10, metrics)
    line = "finetune 3/10 · loss 0.5123 · val AUC 0.812 · 480 images/s · 14 s left"
    assert caplog.messages == [line]
