import numpy as np
import pytest

from trainer import sampling
from trainer.examples import Examples


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_shuffled_shows_every_image_and_fills_the_last_batch():
    order = sampling.shuffled(10, 4, generator())
    assert order.shape == (3, 4)
    assert sorted(order.ravel()[:10]) == list(range(10))


def test_shuffled_whole_never_repeats_an_image():
    order = sampling.shuffled_whole(10, 4, generator())
    assert order.shape == (2, 4)
    assert len(set(order.ravel())) == 8


def test_balanced_shows_rare_classes_as_often():
    labels = np.array([0] * 50 + [1] * 5 + [3] * 2)
    order = sampling.balanced(labels, 6, generator())
    assert order.shape == (10, 6)
    for batch in order:
        assert np.bincount(labels[batch], minlength=4).tolist() == [2, 2, 0, 2]


def test_balanced_uses_every_image_of_a_rare_class():
    labels = np.array([0] * 50 + [1] * 5)
    order = sampling.balanced(labels, 5, generator())
    assert set(range(50, 55)) <= set(order.ravel())


@pytest.mark.parametrize(("examples", "wanted", "batch"), [(3, 8, 3), (100, 8, 8)])
def test_batch_is_never_larger_than_the_data(examples, wanted, batch):
    assert sampling.batch_of(examples, wanted) == batch


def slices_of(subjects) -> Examples:
    count = len(subjects)
    return Examples(np.zeros((count, 1, 1, 1), np.uint8), np.zeros(count, np.int32), subjects)


def test_spread_takes_the_middle_slice_of_everyone_then_the_next():
    subjects = np.array([f"p{number}" for number in range(6)] * 5, dtype=object)
    examples = slices_of(subjects[np.random.default_rng(1).permutation(30)])
    for random in (None, np.random.default_rng(0)):
        chosen = sampling.spread(examples, 15, random)
        people = examples.subjects[chosen]
        assert len(set(chosen)) == 15
        assert set(people[:6]) == set(people[6:12]) == set(subjects)
        for person, middle in zip(people[:6], chosen[:6], strict=True):
            assert middle == np.flatnonzero(examples.subjects == person)[2]


def test_spread_draws_other_people_from_another_source():
    examples = slices_of(np.array([f"p{number:02d}" for number in range(50)], dtype=object))
    first, again, other = (
        sampling.spread(examples, 10, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)
    )
    assert first == again != other
    assert sampling.spread(examples, 10).tolist() == list(range(10))
    assert sorted(sampling.spread(examples, 99, np.random.default_rng(0))) == list(range(50))


def test_spread_takes_everyone_before_anyone_twice():
    subjects = np.array(["a"] * 5 + ["b"] * 3 + ["c"], dtype=object)
    nine = Examples(np.zeros((9, 8, 8, 1), np.uint8), np.zeros(9, np.int32), subjects)
    chosen = sampling.spread(nine, 4)
    assert subjects[chosen[:3]].tolist() == ["a", "b", "c"]
    assert chosen[0] == 2  # the middle slice
    assert len(set(chosen)) == 4


def test_spread_of_slices_without_subjects_spans_the_file():
    few = Examples(np.zeros((9, 8, 8, 1), np.uint8), np.zeros(9, np.int32), None)
    assert sampling.spread(few, 3).tolist() == [0, 4, 8]
    assert len(sampling.spread(few, 100)) == 9
