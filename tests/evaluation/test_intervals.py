"""Intervals against direct computation, drawing for drawing."""

import numpy as np
import pytest

from evaluation.intervals import Target, _draws, average, bootstrap, row_bootstrap
from evaluation.weighted import Auc, Mean, People
from tests.evaluation.simulated import study
from trainer import metrics


@pytest.fixture(scope="module")
def ragged():
    """Slices of 22 people, of different numbers, in mixed order, with tied scores."""
    rng = np.random.default_rng(0)
    stages, found = study(0, (3, 4, 6, 9), slices=5)
    rows = rng.permutation(22 * 5)[:90]
    labels, subjects = stages.repeat(5)[rows], np.arange(22).repeat(5)[rows]
    return np.round(found.reshape(-1, 4)[rows], 1), labels, subjects


def repeated(people: People, weights: np.ndarray) -> np.ndarray:
    """The rows that a resample holds, each as often as its person was drawn."""
    return np.arange(len(people.rows)).repeat(weights.astype(int)[people.rows])


def test_weighted_auc_is_the_auc_of_the_repeated_rows(ragged):
    table, labels, subjects = ragged
    people = People.of(labels, subjects)
    for label in range(4):
        statistic = Auc.of(table[:, label], people, label)
        for weights in next(_draws(people.labels, 5, seed=label)):
            rows = repeated(people, weights)
            [found], _ = statistic(weights[None])
            wanted = metrics.one_vs_rest_auc(table[rows], labels[rows])[label]
            assert found == pytest.approx(wanted, abs=1e-12)


def test_weighted_mean_counts_only_the_rows_asked_for(ragged):
    table, labels, subjects = ragged
    people = People.of(labels, subjects)
    right = table.argmax(axis=1) == labels
    statistic = Mean.of(right, people, labels == 2)
    [weights] = next(_draws(people.labels, 1, seed=0))
    rows = repeated(people, weights)
    [found], _ = statistic(weights[None])
    assert found == pytest.approx(right[rows][labels[rows] == 2].mean())


@pytest.mark.parametrize("kind", ["auc", "mean"])
def test_influence_is_the_derivative_by_the_weight(ragged, kind):
    table, labels, subjects = ragged
    people = People.of(labels, subjects)
    statistic = Auc.of(table[:, 3], people, 3) if kind == "auc" else Mean.of(table[:, 0], people)
    weights = next(_draws(people.labels, 1, seed=3))
    _, [influence] = statistic(weights)
    step = 1e-6 * np.eye(len(people))
    up, down = (statistic(weights + sign * step)[0] for sign in (1, -1))
    np.testing.assert_allclose(influence, (up - down) / 2e-6, atol=1e-7)


def test_people_are_drawn_within_their_class_and_alike_whatever_the_number():
    labels = np.array([0, 1, 1, 2, 2, 2, 2])
    few, many = (np.concatenate(list(_draws(labels, n, seed=5))) for n in (250, 600))
    assert many.shape == (600, 7)
    np.testing.assert_array_equal(few, many[:250])
    for label in range(3):
        assert (many[:, labels == label].sum(axis=1) == (labels == label).sum()).all()
    # Each person is drawn once on average, four standard errors.
    assert np.abs(many.mean(axis=0) - 1).max() < 4 / np.sqrt(600)


def test_standard_error_is_delongs_where_each_person_has_one_row():
    """The influences must give the textbook variance of an AUC (DeLong et al. 1988)."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [30, 50])
    scores = rng.normal(size=80) + labels
    above = (scores[labels == 1][:, None] > scores[labels == 0]).astype(float)
    wanted = above.mean(axis=1).var(ddof=1) / 50 + above.mean(axis=0).var(ddof=1) / 30
    people = People.of(labels)
    _, [influence] = Auc.of(scores, people, 1)(np.ones((1, 80)))
    own = [influence[labels == label] for label in (0, 1)]
    found = sum(len(it) / (len(it) - 1) * np.square(it - it.mean()).sum() for it in own)
    assert found == pytest.approx(wanted)


def test_row_bootstrap_is_too_narrow_and_people_are_not_rows():
    stages, found = study(1, (30,) * 4)
    table, labels = found.reshape(-1, 4), stages.repeat(8)
    people = People.of(labels, np.arange(120).repeat(8))
    target = average([Auc.of(table[:, label], people, label) for label in range(4)])
    cluster = bootstrap({"": target}, people, resamples=1000)[""]
    row = row_bootstrap(table, labels, range(4), resamples=1000)
    assert row.value == pytest.approx(cluster.value)
    assert cluster.value == pytest.approx(metrics.macro_auc(table, labels))
    assert row.high - row.low < 0.7 * (cluster.high - cluster.low)


def test_a_model_against_itself_differs_by_nothing():
    stages, found = study(2)
    people = People.of(stages)
    one = average([Auc.of(found.mean(axis=1)[:, c], people, c) for c in range(4)])
    assert bootstrap({"": one - one}, people)[""] == (0, 0, 0)


def test_paired_difference_is_narrower_than_of_models_apart():
    stages, found = study(3)
    people = People.of(stages)
    first, second = (found[:, part].mean(axis=1) for part in (slice(0, 6), slice(2, 8)))
    one, two = (
        average([Auc.of(table[:, c], people, c) for c in range(4)]) for table in (first, second)
    )
    found = bootstrap({"one": one, "two": two, "gap": one - two}, people)
    width = {name: it.high - it.low for name, it in found.items()}
    assert found["gap"].value == pytest.approx(found["one"].value - found["two"].value)
    assert width["gap"] < np.hypot(width["one"], width["two"]) / 2


def test_a_perfect_ranking_is_no_certainty():
    """20 of 20 people told apart: the exact bound, .025^(1/20), not [1, 1]."""
    labels = np.repeat([0, 1], [20, 40])
    people = People.of(labels)
    found = bootstrap({"": average([Auc.of(labels * 1.0, people, 1)])}, people)[""]
    assert found == pytest.approx((1, 0.025 ** (1 / 20), 1))
    wrong = bootstrap({"": average([Auc.of(-1.0 * labels, people, 1)])}, people)[""]
    assert wrong == pytest.approx((0, 0, 1 - 0.025 ** (1 / 20)))


def test_equal_scores_for_all_are_exactly_chance():
    people = People.of(np.repeat([0, 1], 10))
    assert bootstrap({"": average([Auc.of(np.ones(20), people, 1)])}, people)[""] == (0.5,) * 3


def test_brier_may_exceed_one():
    people = People.of(np.repeat([0, 1], 10))
    values = np.linspace(1.2, 1.8, 20)
    found = bootstrap({"": average([Mean.of(values, people)], top=2.0)}, people)[""]
    assert 1.2 < found.low < 1.5 < found.high < 1.8
    assert found.value == pytest.approx(1.5)


def test_an_absent_class_is_not_told():
    people = People.of(np.repeat([0, 1], 10))
    found = bootstrap({"": Target(((1.0, Mean.of(np.ones(20), people, np.zeros(20))),))}, people)
    assert np.isnan(found[""]).all()


def test_one_person_of_two_labels_is_an_error():
    with pytest.raises(ValueError, match="each subject one label"):
        People.of([0, 1], ["a", "a"])
