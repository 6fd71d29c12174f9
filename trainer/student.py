"""The student: a convolutional net small enough for one CPU core or a microcontroller."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from trainer.normalization import batch_norm

_CELLS = 4  # sides of the grid of averages that the dense layers see


class Student(keras.Model):
    """`len(filters)` × (3 × 3 convolution, batch normalisation, ReLU, max-pool), then two dense.

    Between them each map is averaged in a grid of about 4 × 4 cells: in an atlas-registered brain
    it may matter where something is, which one global average forgets. The evidence is thin: on
    OASIS-1 (140 people, two subject-wise folds, one seed, 10 supervised epochs, filters 16, 32, 64,
    64 pixels) global average / grid / all positions gave a mean AUC of CDR 0 against the rest of
    .752 / .781 / .782, but a macro AUC of .709 / .710 / .725, all within the noise of 70 people a
    fold. The grid has a third of the parameters of keeping all positions.

    Only operations that LiteRT quantises to int8. Images of one size, at least 2 ** len(filters).
    """

    def __init__(self, filters: Sequence[int], dense: int, classes: int, **kwargs):
        super().__init__(**kwargs)
        self.convs = [layers.Conv2D(width, 3, padding="same", use_bias=False) for width in filters]
        self.norms = [batch_norm() for _ in filters]
        self.activation = layers.ReLU()
        self.pool = layers.MaxPooling2D(2)
        self.flatten = layers.Flatten()
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
        cell = [max(side // _CELLS, 1) for side in x.shape[1:3]]
        return self.logits(self.dense(self.flatten(ops.average_pool(x, cell))))
