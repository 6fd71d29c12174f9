"""Random numbers that belong to the images of a batch, not to the replica that works on them."""

from typing import Any, NamedTuple

import tensorflow as tf

# Philox (Salmon et al. 2011) turns a counter into four numbers, so that those of any row can be
# had without drawing the ones before it.
_PHILOX = 1  # its number in TensorFlow's operations
_PER_COUNT = 4


class Draw(NamedTuple):
    """The source of one batch's random numbers, and which rows of that batch are at hand.

    A replica draws for its own rows only, the very numbers that one drawing for the whole batch
    would have for them: an image sees the same however many replicas share the work.

    Attributes:
        seed: `int32[2]`, new for each batch and view.
        first: position in the global batch of the first row at hand.
    """

    seed: Any
    first: Any = 0

    def split(self, count: int) -> "list[Draw]":
        """Independent sources for the same rows."""
        return [self._replace(seed=seed) for seed in tf.unstack(tf.random.split(self.seed, count))]

    def uniform(self, shape, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """`float32` of the shape, uniform in [low, high); the first axis are the rows at hand."""
        least, most = tf.constant(low, tf.float32), tf.constant(high, tf.float32)
        return self._drawn(tf.raw_ops.StatelessRandomUniformV2, shape) * (most - least) + least

    def normal(self, shape) -> tf.Tensor:
        """`float32` of the shape, standard normal; the first axis are the rows at hand."""
        return self._drawn(tf.raw_ops.StatelessRandomNormalV2, shape)

    def chance(self, rows, probability: float) -> tf.Tensor:
        """`bool[rows, 1, 1, 1]`, true with the given probability for each image."""
        return self.uniform([rows, 1, 1, 1]) < probability

    def _drawn(self, operation, shape) -> tf.Tensor:
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=self.seed)
        shape = tf.stack(shape)
        if isinstance(self.first, int) and self.first == 0:
            return operation(shape=shape, key=key, counter=counter, alg=_PHILOX)
        before = tf.cast(self.first, tf.int64) * tf.cast(tf.reduce_prod(shape[1:]), tf.int64)
        counts, more = before // _PER_COUNT, tf.cast(before % _PER_COUNT, tf.int32)
        # A seed's counter starts with its lower half at 0: no carry into the upper one.
        counter = tf.bitcast(tf.bitcast(counter, tf.int64) + tf.stack([counts, 0]), tf.uint64)
        flat = operation(
            shape=[more + tf.reduce_prod(shape)], key=key, counter=counter, alg=_PHILOX
        )
        return tf.reshape(flat[more:], shape)
