import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from evaluation.calibration import calibration, comparison, uncalibrated
from trainer import metrics
from trainer.calibration import fit_temperature


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def overconfident(seed=0, people=300, slices=4):
    """Slices whose labels follow softmax(logits / 3): the softmax itself promises too much."""
    rng = np.random.default_rng(seed)
    logits = np.repeat(rng.normal(scale=4, size=(people, 3)), slices, axis=0)
    labels = (softmax(logits[::slices] / 3).cumsum(axis=1) < rng.random((people, 1))).sum(axis=1)
    subjects = np.repeat([f"p{number:03d}" for number in range(people)], slices)
    return logits, np.repeat(labels, slices), subjects


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20))
def test_scaling_is_undone_exactly(seed, temperature):
    logits = np.random.default_rng(seed).normal(scale=3, size=(20, 4))
    scaled = softmax(logits / temperature)
    kept = scaled.min(axis=1) > 1e-300  # a T near 0 drives the rest of a row to nothing
    np.testing.assert_allclose(
        uncalibrated(scaled, temperature)[kept], softmax(logits)[kept], rtol=1e-7
    )


def test_what_float32_keeps_is_enough():
    logits, _, _ = overconfident()
    served = softmax(logits / 3).astype(np.float32)
    np.testing.assert_allclose(uncalibrated(served, 3.0), softmax(logits), atol=1e-6)


def test_a_temperature_of_one_changes_nothing():
    table = np.array([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(uncalibrated(table, 1.0), table)


def test_small_probabilities_do_not_vanish_together():
    """1e-30 ** 20 is 0 in float64, of both entries of a row."""
    table = np.array([[1e-30, 2e-30]])
    np.testing.assert_allclose(uncalibrated(table, 20.0)[0, 1], 1 / (1 + 0.5**20))


def test_measures_equal_scikit_learn():
    rng = np.random.default_rng(1)
    chance, labels = rng.uniform(0.01, 0.99, 80), rng.integers(0, 2, 80)
    table = np.stack([1 - chance, chance], axis=1)
    found = calibration(table, labels)
    assert found.log_loss == pytest.approx(log_loss(labels, chance))
    assert found.brier == pytest.approx(2 * brier_score_loss(labels, chance))
    assert found.examples == found.reliability.counts.sum() == 80


def test_the_fitted_temperature_helps_people_who_did_not_fit_it():
    logits, labels, people = overconfident(seed=0)
    temperature = fit_temperature(logits, labels, people)
    assert temperature == pytest.approx(3, rel=0.15)
    logits, labels, people = overconfident(seed=1)
    found = comparison(softmax(logits / temperature), labels, temperature, people)
    for level in ("slice", "subject"):
        before, after = found[level]
        assert after.expected_calibration_error < before.expected_calibration_error / 2
        assert after.log_loss < before.log_loss
        assert after.brier < before.brier
    assert found["subject"].before.examples == 300
    assert found["slice"].before.log_loss == pytest.approx(
        metrics.log_loss(softmax(logits), labels), rel=1e-6
    )


def test_people_are_averaged_after_undoing():
    """The mean of powers is not the power of the mean."""
    served = np.array([[0.9, 0.1], [0.5, 0.5]])
    found = comparison(served, np.array([0, 0]), 2.0, ["one", "one"])["subject"].before
    mean = (0.81 / 0.82 + 0.5) / 2
    assert found.log_loss == pytest.approx(-np.log(mean))
    assert found.log_loss != pytest.approx(-np.log(0.7**2 / (0.7**2 + 0.3**2)), rel=1e-2)


def test_slices_without_people_have_one_level():
    assert set(comparison(np.array([[0.9, 0.1]]), np.array([0]), 1.5)) == {"slice"}


def test_it_can_be_kept_as_json():
    logits, labels, people = overconfident()
    told = comparison(softmax(logits), labels, 1.0, people)["subject"].after.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    counts, accuracy = told["reliability"]["counts"], told["reliability"]["accuracy"]
    assert [share is None for share in accuracy] == [count == 0 for count in counts]
    assert len(told["reliability"]["edges"]) == len(counts) + 1


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="number above 0"):
        uncalibrated([[0.5, 0.5]], temperature)


def test_a_row_of_zeros_is_refused():
    with pytest.raises(ValueError, match="received 1 such"):
        uncalibrated([[0.0, 0.0], [0.5, 0.5]], 2.0)
