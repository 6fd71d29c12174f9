"""The student: a convolutional net small enough for one CPU core or a microcontroller."""

from collections.abc import Sequence

import keras
from keras import layers

from trainer.normalization import batch_norm


class Student(keras.Model):
    """`len(filters)` × (3 × 3 convolution, batch normalisation, ReLU, max-pool), then two dense.

    Only operations that LiteRT quantises to int8 and fuses; any image size of at least
    2 ** len(filters).
    """

    def __init__(self, filters: Sequence[int], dense: int, classes: int, **kwargs):
        super().__init__(**kwargs)
        self.convs = [layers.Conv2D(width, 3, padding="same", use_bias=False) for width in filters]
        self.norms = [batch_norm() for _ in filters]
        self.activation = layers.ReLU()
        self.pool = layers.MaxPooling2D(2)
        self.average = layers.GlobalAveragePooling2D()
        self.dense = layers.Dense(dense, activation="relu")
        self.logits = layers.Dense(classes, dtype="float32")

    def call(self, images, training=False):
        """Classifies images.

        Args:
            images: float32[N, H, W, C] in [0, 1].
            training: normalise by the batch's statistics and update the moving ones.

        Returns:
            float32 logits [N, classes].
        """
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.pool(self.activation(norm(conv(x), training=training)))
        return self.logits(self.dense(self.average(x)))
