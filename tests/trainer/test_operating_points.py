import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from trainer.operating_points import (
    OperatingPoint,
    rates_at,
    sensitivity_specificity,
    threshold_for_sensitivity,
    union_probability,
)


def test_the_score_of_a_union_is_the_sum_of_its_classes():
    table = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    np.testing.assert_allclose(union_probability(table, (3, 0)), [0.5, 0.8])


@pytest.mark.parametrize("classes", [(), (0, 0), (0, 1, 2, 3), (4,), (-1,)])
def test_a_union_that_asks_nothing_is_refused(classes):
    with pytest.raises(ValueError, match="some but not all of the 4 classes"):
        union_probability(np.full((2, 4), 0.25), classes)


def test_rates_equal_a_confusion_matrix():
    rng = np.random.default_rng(2)
    scores, positive = np.round(rng.random(200), 1), rng.random(200) < 0.3
    (tn, fp), (fn, tp) = confusion_matrix(positive, scores >= 0.6)
    assert sensitivity_specificity(scores, positive, 0.6) == (tp / (tp + fn), tn / (tn + fp))


def test_rates_that_nobody_can_show_are_not_evaluable():
    sensitivity, specificity = sensitivity_specificity([0.1, 0.9], np.array([True, True]), 0.5)
    assert sensitivity == 0.5
    assert np.isnan(specificity)
    assert np.isnan(sensitivity_specificity([0.1], np.array([False]), 0.5)[0])
    assert np.isnan(sensitivity_specificity([0.1, 0.9], np.array([True, False]), np.nan)).all()


def test_the_threshold_by_hand():
    """19 positives: the 18th of them (⌈.9 · 20⌉) is the last that has to be found."""
    positives = np.linspace(0.05, 0.95, 19)
    scores = np.append(positives, np.linspace(0, 1, 30))
    positive = np.arange(len(scores)) < 19
    assert threshold_for_sensitivity(scores, positive, 0.9) == positives[1]
    # ⌈.7 · 10⌉ is 7, though .7 · 10 is not in binary.
    assert threshold_for_sensitivity(positives[:9], np.ones(9, bool), 0.7) == positives[2]


def test_too_few_positives_promise_nothing():
    scores = np.linspace(0.1, 0.9, 9)
    assert threshold_for_sensitivity(scores, np.ones(9, bool), 0.9) == 0.1
    assert np.isnan(threshold_for_sensitivity(scores[1:], np.ones(8, bool), 0.9))
    assert np.isnan(threshold_for_sensitivity(scores, np.zeros(9, bool), 0.9))


def test_tied_positives_are_found_together():
    scores = np.array([0.5] * 15 + [0.2] * 4 + [0.5] * 5)
    positive = np.arange(24) < 19
    threshold = threshold_for_sensitivity(scores, positive, 0.6)
    assert threshold == 0.5
    assert sensitivity_specificity(scores, positive, threshold) == (15 / 19, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 80), st.floats(0.3, 0.9))
def test_the_target_is_reached_where_it_was_set_and_no_higher_threshold_does(seed, size, target):
    rng = np.random.default_rng(seed)
    scores, positive = np.round(rng.random(size), 2), np.arange(size) < 15
    threshold = threshold_for_sensitivity(scores, positive, target)
    assert sensitivity_specificity(scores, positive, threshold)[0] >= target
    higher = scores[scores > threshold]
    if higher.size:
        hits = (scores[positive] >= higher.min()).sum()
        assert hits < target * 16 - 1e-9


def test_new_people_are_found_as_often_as_was_promised():
    """What the plain share, ⌈target · n⌉, does not do: of 15 positives the 14th, 14/16 of new."""
    rng = np.random.default_rng(5)
    studies, new = rng.normal(size=(4000, 15)), rng.normal(size=4000)
    ours = [threshold_for_sensitivity(scores, np.ones(15, bool), 0.9) for scores in studies]
    plain = np.sort(studies, axis=1)[:, ::-1][:, int(np.ceil(0.9 * 15)) - 1]
    error = 3 * np.sqrt(0.9 * 0.1 / 4000)
    assert (new >= np.array(ours)).mean() == pytest.approx(15 / 16, abs=error)
    assert (new >= plain).mean() == pytest.approx(14 / 16, abs=error)


@pytest.mark.parametrize(
    ("scores", "positive", "target", "message"),
    [
        ([0.5], [True], 1.0, "lies between 0 and 1"),
        ([0.5, 0.1], [True], 0.9, r"\(2,\) and \(1,\)"),
        ([], [], 0.9, r"N ≥ 1"),
        ([np.nan], [True], 0.9, "in 1 of 1"),
        ([0.5], [1], 0.9, "received int64"),
    ],
)
def test_bad_input_is_refused_with_the_reason(scores, positive, target, message):
    with pytest.raises(ValueError, match=message):
        threshold_for_sensitivity(np.array(scores), np.array(positive), target)


def test_a_classifier_at_its_operating_point():
    table = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6], [0.9, 0.1, 0.0]])
    assert rates_at(table, [1, 0, 2, 0], OperatingPoint((1, 2), 0.45)) == (0.5, 0.5)
