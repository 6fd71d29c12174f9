import numpy as np
import pytest

from studies import folds
from studies.slices import StudyError

LABELS = np.repeat([0, 1, 2, 3], [70, 49, 20, 1])


def test_people_are_dealt_evenly_within_each_class():
    dealt = folds.deal(LABELS, 5, seed=0)
    assert np.ptp(np.bincount(dealt)) <= 1
    for label in range(4):
        assert np.ptp(np.bincount(dealt[label == LABELS], minlength=5)) <= 1


def test_a_seed_deals_the_same_people_and_another_deals_others():
    assert (folds.deal(LABELS, 5, 3) == folds.deal(LABELS, 5, 3)).all()
    assert (folds.deal(LABELS, 5, 3) != folds.deal(LABELS, 5, 4)).any()


@pytest.mark.parametrize("count", [1, 141])
def test_folds_without_sense_are_refused(count):
    with pytest.raises(StudyError, match="Folds must be 2 or more"):
        folds.deal(LABELS, count, 0)


@pytest.mark.parametrize(
    "made",
    [
        folds.random_slices(103, 5, 0),
        folds.by_group(np.arange(103) % 4, 4),
    ],
)
def test_each_row_is_tested_once_and_never_by_itself(made):
    assert sorted(np.concatenate([test for _, test in made])) == list(range(103))
    assert all(len(train) + len(test) == 103 for train, test in made)
    assert not any(np.intersect1d(train, test).size for train, test in made)


def test_the_shipped_split_trains_on_the_first_slices_of_everybody():
    people, stack = 10, 32
    labels = np.repeat(np.arange(people) % 2, stack)
    positions = np.tile(np.arange(stack), people)
    [(train, test)] = folds.shipped(labels, positions)
    assert len(train) == 2 * int(0.8 * 5 * stack)
    assert positions[train].max() <= positions[test].min() + 1
    assert len(np.unique(test // stack)) == people
