import logging

import numpy as np
import pytest

from trainer import architectures, calibration
from trainer.architectures import StudentArchitecture
from trainer.calibration import HIGHEST, LOWEST, fit_temperature, negative_log_likelihood
from trainer.config import InputSettings
from trainer.examples import Examples
from trainer.stages.trained import Trained

TRUE_TEMPERATURE = 2.5


def drawn(count: int = 4000, classes: int = 3, seed: int = 0):
    """Logits that are `TRUE_TEMPERATURE` times too sure of labels drawn from their softmax."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return (logits * TRUE_TEMPERATURE).astype(np.float32), labels


def transcribed_loss(logits, labels, groups, temperature: float) -> float:
    """Slice by slice, in plain Python's order."""
    sizes = {group: groups.count(group) for group in groups}
    total = 0.0
    for row, label, group in zip(np.float64(logits) / temperature, labels, groups, strict=True):
        total += (np.log(np.exp(row).sum()) - row[label]) / sizes[group]
    return total / len(sizes)


def test_recovers_the_temperature_that_made_the_labels():
    logits, labels = drawn()
    assert fit_temperature(logits, labels) == pytest.approx(TRUE_TEMPERATURE, rel=0.05)


def test_is_the_best_of_a_fine_grid_with_people_weighing_the_same():
    logits, labels = drawn(60)
    random = np.random.default_rng(1)
    groups = [f"person {number}" for number in random.integers(0, 15, 60)]
    grid = np.exp(np.linspace(np.log(LOWEST), np.log(HIGHEST), 3000))
    losses = [transcribed_loss(logits, labels, groups, value) for value in grid]
    found = fit_temperature(logits, labels, np.array(groups))
    assert found == pytest.approx(grid[np.argmin(losses)], rel=3e-3)
    assert found != pytest.approx(fit_temperature(logits, labels), rel=3e-3)
    assert negative_log_likelihood(logits / found, labels, np.array(groups)) == pytest.approx(
        transcribed_loss(logits, labels, groups, found)
    )


def test_a_person_of_many_slices_weighs_as_one_of_few():
    logits, labels = drawn(40)
    groups = np.arange(40)
    often = np.r_[np.arange(40), np.full(200, 3)]
    alone = fit_temperature(logits, labels, groups)
    assert fit_temperature(logits[often], labels[often], groups[often]) == pytest.approx(alone)


def test_scaling_the_logits_scales_the_temperature():
    logits, labels = drawn(200)
    found = fit_temperature(logits, labels)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3 * found, rel=1e-4)


@pytest.mark.parametrize(("factor", "bound"), [(1e3, HIGHEST), (1e-3, LOWEST)])
def test_stays_within_its_bounds(factor, bound):
    logits, labels = drawn(200)
    assert fit_temperature(logits * factor, labels) == pytest.approx(bound, rel=1e-4)


def degenerate() -> dict[str, tuple]:
    logits, labels = drawn(200)
    right = np.eye(3)[labels] * 4
    return {
        "at least 10 are needed": (logits, labels, np.arange(200) % 9),
        "9 validation people": (logits[:9], labels[:9], None),
        "of one class": (logits, np.zeros(200, int), None),
        "classified rightly": (right, labels, None),
        "no more than chance": (-right, labels, None),
    }


@pytest.mark.parametrize("reason", list(degenerate()))
def test_keeps_temperature_1_where_the_data_cannot_tell(reason, caplog):
    with caplog.at_level(logging.WARNING):
        assert fit_temperature(*degenerate()[reason]) == 1.0
    assert reason in caplog.text


def test_a_trained_model_gets_its_temperature_and_what_it_does():
    """A student as good as sure of everything, and right on two people of three."""
    settings = InputSettings(image_size=16)
    architecture = StudentArchitecture(filters=(4,), dense=8, classes=3)
    model = architectures.build("student", architecture, settings, seed=1)
    kernel, bias = model.logits.get_weights()
    model.logits.set_weights([kernel * 300, bias])
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), dtype=np.uint8)
    labels = model(np.float32(images) / 255, training=False).numpy().argmax(axis=1)
    labels[::3] = (labels[::3] + 1) % 3
    examples = Examples(
        np.repeat(images, 2, axis=0),  # two slices of each person, alike
        np.repeat(labels, 2).astype(np.int32),
        np.repeat(np.arange(60), 2).astype(str).astype(object),
    )
    trained = calibration.calibrated(Trained("student", model, architecture, []), examples)
    told = trained.calibration
    assert trained.temperature > 1.0
    assert told["nll_after"] < told["nll_before"]
    assert told["ece_after"] < told["ece_before"]
    assert trained.model is model
