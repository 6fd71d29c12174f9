import numpy as np
import pytest
import tensorflow as tf

from trainer.draws import Draw

SEED = np.array([5, -7], np.int32)


@pytest.mark.parametrize("shape", [(7,), (7, 1, 1, 1), (7, 3), (7, 3, 5, 1), (7, 4, 4, 3)])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_rows_have_their_numbers_however_the_batch_is_shared(kind, shape):
    whole = getattr(Draw(SEED), kind)(shape).numpy()
    share = tf.function(lambda first, rows: getattr(Draw(SEED, first), kind)([rows, *shape[1:]]))
    for first, rows in ((0, 2), (1, 1), (2, 5), (3, 3)):
        mine = share(tf.constant(first), tf.constant(rows))
        np.testing.assert_array_equal(mine, whole[first : first + rows])


def test_a_share_of_many_numbers_is_cut_from_the_same_stream():
    """Long draws are made by several threads, each from a counter of its own."""
    whole = Draw(SEED).normal([300, 65, 65]).numpy()
    np.testing.assert_array_equal(Draw(SEED, 123).normal([77, 65, 65]), whole[123:200])


def test_a_share_draws_no_more_than_its_rows(monkeypatch):
    """For 4096 images of 224 pixels, all of the noise would take 0.8 GB on every replica."""
    draw_numbers, drawn = tf.raw_ops.StatelessRandomNormalV2, []

    def recorded(shape, **arguments):
        drawn.append(int(tf.reduce_prod(shape)))
        return draw_numbers(shape=shape, **arguments)

    monkeypatch.setattr(tf.raw_ops, "StatelessRandomNormalV2", recorded)
    Draw(SEED, 4093).normal([2, 7, 7, 1])
    assert len(drawn) == 1
    assert 2 * 49 <= drawn[0] < 2 * 49 + 4


def test_numbers_are_those_of_tensorflows_own_draws():
    np.testing.assert_array_equal(
        Draw(SEED).normal([5, 3]), tf.random.stateless_normal([5, 3], SEED, alg="philox")
    )
    np.testing.assert_array_equal(
        Draw(SEED).uniform([5, 3], -0.3, 0.7),
        tf.random.stateless_uniform([5, 3], SEED, -0.3, 0.7, alg="philox"),
    )
