import numpy as np
import pytest

from evaluation.intervals import Target, bootstrap
from evaluation.weighted import People
from studies.within_folds import WithinFolds, of_each_fold, pooled


@pytest.fixture
def study():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [33, 27])
    folds = np.stack([random.permutation(60) % 5 for _ in range(2)])
    scores = random.normal(size=(2, 60)) + 0.9 * labels + 3.0 * folds  # a scale for each fold
    return np.round(scores, 1), folds, labels  # rounded: there are ties


def by_hand(scores, folds, labels, weights):
    """The definition, pair by pair."""
    won = met = 0.0
    for row, groups in zip(scores, folds, strict=True):
        for i in np.flatnonzero(labels == 1):
            for j in np.flatnonzero(labels == 0):
                if groups[i] == groups[j]:
                    met += weights[i] * weights[j]
                    won += weights[i] * weights[j] * (np.sign(row[i] - row[j]) + 1) / 2
    return won / met


def test_it_counts_the_pairs_that_one_model_scored(study):
    weights = np.random.default_rng(1).integers(0, 4, (3, 60)).astype(float)
    values, _ = WithinFolds.of(*study)(weights)
    expected = [by_hand(*study, row) for row in weights]
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_the_influence_is_the_derivative(study):
    statistic, step = WithinFolds.of(*study), 1e-6
    _, [influence] = statistic(np.ones((1, 60)))
    moved, _ = statistic(np.ones((60, 60)) + step * np.eye(60))
    [still], _ = statistic(np.ones((1, 60)))
    np.testing.assert_allclose((moved - still) / step, influence, atol=1e-5)


def test_the_scale_of_a_fold_does_not_matter_here_and_does_when_pooled(study):
    scores, folds, labels = study
    everybody = np.ones((1, 60))
    moved = scores * (1 + folds)
    value = WithinFolds.of(scores, folds, labels)(everybody)[0]
    assert value == pytest.approx(WithinFolds.of(moved, folds, labels)(everybody)[0])
    assert pooled(scores, labels) != pytest.approx(pooled(moved, labels), abs=1e-4)


def test_without_ties_of_size_it_is_the_mean_of_the_folds():
    random = np.random.default_rng(2)
    labels = np.tile([0, 1], 30)
    folds = (np.arange(60) // 12)[None]
    scores = random.normal(size=(1, 60))
    each = of_each_fold(scores, folds, labels)
    [value], _ = WithinFolds.of(scores, folds, labels)(np.ones((1, 60)))
    assert value == pytest.approx(np.mean(each))


def test_a_fold_of_one_class_has_no_auc():
    each = of_each_fold(np.arange(4.0)[None], np.array([[0, 0, 1, 1]]), np.array([1, 1, 0, 1]))
    assert np.isnan(each[0])
    assert each[1] == 1.0


def test_the_house_s_bootstrap_takes_it(study):
    scores, folds, labels = study
    statistic = WithinFolds.of(scores, folds, labels)
    target = Target(((1.0, statistic),))
    found = bootstrap({"auc": target, "gap": target - target}, People.of(labels))
    assert found["auc"].low < found["auc"].value < found["auc"].high
    assert found["gap"].value == 0
