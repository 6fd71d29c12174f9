import numpy as np
import pytest

from trainer import sampling


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
