"""The loop itself, with a student of a few weights and scripted losses and scores."""

import dataclasses
import logging
import math
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from trainer import architectures, loop, pace
from trainer.architectures import StudentArchitecture
from trainer.config import InputSettings, OptimizerSettings
from trainer.errors import Preempted, TrainingDiverged
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
        seen.append([path.name[:12] for path in sorted(tmp_path.glob("epoch-*"))])

    workspace = Workspace(checkpoints=tmp_path, progress=listen)
    loop.run(scripted(epochs=5, checkpoint_every_epochs=2), workspace)
    second, fourth, fifth = "epoch-000002", "epoch-000004", "epoch-000005"
    assert seen == [[], [second], [second], [second, fourth], [fourth, fifth]]


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


def stepping(**changes) -> Training:
    """Four steps an epoch, each adding the mean of its indices and one draw to the output bias."""
    training = scripted(epochs=3, **changes)
    bias = training.model.logits.bias

    def step(indices, seed):
        moved = tf.reduce_mean(tf.cast(indices, tf.float32))
        moved += tf.random.stateless_uniform([], seed)
        bias.assign_add(tf.fill([2], moved))
        training.optimizer.iterations.assign_add(1)
        return {"loss": 1 / (1 + tf.abs(bias[0])), "moved": moved}

    return dataclasses.replace(
        training, step=step, batches=lambda random: random.permutation(12).reshape(4, 3)
    )


def struck(training: Training, at: int, number: int) -> Training:
    """The same, sent a signal as its step `at` begins."""
    calls = iter(range(1, 100))

    def step(indices, seed):
        if next(calls) == at:
            os.kill(os.getpid(), number)
        return training.step(indices, seed)

    return dataclasses.replace(training, step=step)


def timeless(history: list[dict]) -> list[dict]:
    return [{k: v for k, v in entry.items() if "second" not in k} for entry in history]


@pytest.mark.parametrize("at", [1, 4, 6, 12])
def test_stops_after_the_step_in_which_sigterm_comes_and_goes_on_there(tmp_path, at):
    whole = stepping()
    expected = loop.run(whole, QUIET)
    workspace = dataclasses.replace(QUIET, checkpoints=tmp_path)
    with pytest.raises(Preempted, match=f"SIGTERM.* after step {(at - 1) % 4 + 1} of epoch"):
        loop.run(struck(stepping(), at, signal.SIGTERM), workspace)
    resumed = stepping()
    assert timeless(loop.run(resumed, workspace)) == timeless(expected)
    assert reached(resumed) == reached(whole)
    assert int(resumed.optimizer.iterations) == 12


def test_control_c_keeps_the_state_and_interrupts(tmp_path):
    workspace = dataclasses.replace(QUIET, checkpoints=tmp_path)
    with pytest.raises(KeyboardInterrupt, match="after step 3 of epoch 1"):
        loop.run(struck(stepping(), 3, signal.SIGINT), workspace)
    assert [path.name[:24] for path in tmp_path.iterdir()] == ["epoch-000000-step-000003"]


def test_says_so_when_a_stopped_training_keeps_nothing():
    with pytest.raises(Preempted, match="no folder for checkpoints"):
        loop.run(struck(stepping(), 1, signal.SIGTERM), QUIET)


def test_a_signal_between_two_epochs_waits_for_the_state(tmp_path):
    def listen(stage, epoch, epochs, metrics):
        os.kill(os.getpid(), signal.SIGTERM)

    workspace = Workspace(checkpoints=tmp_path, progress=listen)
    with pytest.raises(Preempted, match="after step 1 of epoch 2"):
        loop.run(stepping(checkpoint_every_epochs=3), workspace)
    again = dataclasses.replace(QUIET, checkpoints=tmp_path)
    assert timeless(loop.run(stepping(), again)) == timeless(loop.run(stepping(), QUIET))


def test_keeps_a_state_within_an_epoch_as_time_goes_by(tmp_path):
    seen = []
    training = stepping()

    def step(indices, seed):
        seen.append(sorted(path.name[:24] for path in tmp_path.glob("epoch-*")))
        return training.step(indices, seed)

    workspace = dataclasses.replace(QUIET, checkpoints=tmp_path, checkpoint_every_seconds=1e-9)
    loop.run(dataclasses.replace(training, step=step, epochs=2), workspace)
    first = [f"epoch-000000-step-00000{n}" for n in (1, 2, 3)]
    assert seen[:5] == [[], first[:1], first[:2], first[1:], [first[2], "epoch-000001-step-000000"]]


def curves(folder):
    """TensorBoard's own reading of the events, and the table."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    points = {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if "second" not in tag
    }
    return points, (folder / "steps.csv").read_text()


@pytest.mark.parametrize("same_folder", [True, False])
def test_curves_of_a_resumed_training_have_each_point_once(tmp_path, same_folder):
    loop.run(stepping(), dataclasses.replace(QUIET, logs=tmp_path / "whole"))
    broken = dataclasses.replace(QUIET, checkpoints=tmp_path / "kept", logs=tmp_path / "broken")
    with pytest.raises(Preempted):
        loop.run(struck(stepping(), 6, signal.SIGTERM), broken)
    # What a kill -9 leaves: points of steps that will be made again.
    with (broken.logs / "steps.csv").open("a") as table:
        table.write("7,0.1,0.2,0.3\n")
    resumed = broken.logs if same_folder else tmp_path / "another"
    loop.run(stepping(), dataclasses.replace(broken, logs=resumed))
    points, table = curves(resumed)
    assert (points, table) == curves(tmp_path / "whole")
    assert [step for step, _ in points["step/loss"]] == list(range(1, 13))
    assert {"step/lr", "step/moved", "epoch/loss", "epoch/lr"} <= set(points)
    assert table.splitlines()[0] == "step,lr,loss,moved"


def test_tells_the_rate_of_every_step(tmp_path):
    training = stepping()
    loop.run(training, dataclasses.replace(QUIET, logs=tmp_path))
    points, _ = curves(tmp_path)
    schedule = training.optimizer._learning_rate
    expected = [float(schedule(step)) for step in range(12)]
    np.testing.assert_allclose([rate for _, rate in points["step/lr"]], expected, rtol=1e-6)


def test_speed_leaves_out_the_step_that_compiles(monkeypatch):
    now = iter(range(10**6))
    monkeypatch.setattr(pace.time, "perf_counter", lambda: float(next(now)))
    clock = pace.Pace("test", 2, state := loop.TrainingState())
    clock.start_epoch(steps=3, batch=10)
    for duration in (60, 2, 2):
        for _ in range(duration - 1):
            next(now)
        state.step += 1
        clock.lap()
    assert (clock.first_step_seconds, state.seconds, clock.images_per_second) == (60, 64, 5.0)


def test_who_watches_hears_of_steps_and_a_log_now_and_then(caplog, monkeypatch):
    monkeypatch.setattr(loop, "LOOK_EVERY", 0.0)
    with caplog.at_level(logging.DEBUG, "trainer"):
        loop.run(stepping(), QUIET)
    told = [r for r in caplog.records if " · step " in r.getMessage()]
    assert [record.levelno for record in told] == [logging.DEBUG] * 12
    assert told[0].getMessage().startswith("test 1/3 · step 1/4 · loss 0.")
    assert "images/s" in told[1].getMessage()
    assert told[1].getMessage().endswith(" s left")
    caplog.clear()
    monkeypatch.setattr(pace, "LOGGED_EVERY", 0.0)
    with caplog.at_level(logging.INFO, "trainer"):
        loop.run(stepping(), QUIET)
    assert len([r for r in caplog.records if " · step " in r.getMessage()]) == 12


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (99.4, "99 s"), (150, "2 min"), (7500, "2 h 05 min")]
)
def test_durations_are_told_as_people_tell_them(seconds, words):
    assert pace.duration(seconds) == words
