"""Random numbers that belong to the images of a batch, not to the replica that works on them."""

from typing import Any, NamedTuple

import tensorflow as tf


class Draw(NamedTuple):
    """The source of one batch's random numbers, and which rows of that batch are at hand.

    A replica draws for the whole batch and keeps its own rows, so that an image sees the same
    numbers however many replicas share the work. What is drawn is small beside the images.

    Attributes:
        seed: `int32[2]`, new for each batch and view.
        first: position of this replica's first row in the global batch.
        total: rows of the global batch; `None` where this replica holds all of them.
    """

    seed: Any
    first: Any = 0
    total: Any = None

    def split(self, count: int) -> "list[Draw]":
        """Independent sources for the same rows."""
        return [self._replace(seed=seed) for seed in tf.unstack(tf.random.split(self.seed, count))]

    def uniform(self, shape, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """`float32` of the shape, uniform in [low, high); the first axis are the rows at hand."""
        return self._mine(
            tf.random.stateless_uniform(self._whole(shape), self.seed, low, high), shape
        )

    def normal(self, shape) -> tf.Tensor:
        """`float32` of the shape, standard normal; the first axis are the rows at hand."""
        return self._mine(tf.random.stateless_normal(self._whole(shape), self.seed), shape)

    def chance(self, rows, probability: float) -> tf.Tensor:
        """`bool[rows, 1, 1, 1]`, true with the given probability for each image."""
        return self.uniform([rows, 1, 1, 1]) < probability

    def _whole(self, shape):
        return shape if self.total is None else [self.total, *shape[1:]]

    def _mine(self, drawn: tf.Tensor, shape) -> tf.Tensor:
        return drawn if self.total is None else drawn[self.first : self.first + shape[0]]
