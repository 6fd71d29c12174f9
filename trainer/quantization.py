"""The student as int8 arithmetic computes it, in floats that gradients can pass.

Training with the rounding of the integers in the forward pass lets the weights settle where
rounding does little harm (Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"; Krishnamoorthi 2018, "Quantizing deep convolutional
networks for efficient inference"). As there: weights per output channel, symmetric, in 255 levels;
activations per tensor, asymmetric, in 256 levels between moving averages of their extremes;
gradients pass the rounding as if it were not there, and vanish beyond the extremes.

Batch normalisation is folded into the convolutions with the statistics that the student is served
with, and stays so. Dense layers are written as convolutions, equal in value, because LiteRT's
converter gives these alone a scale per output channel.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.preprocessing import scale
from trainer.student import Student, cell_of

MOMENTUM = 0.99  # of the moving extremes, per batch
_BATCH = 32  # images at a time when ranges are measured
_SMALLEST = 1e-6  # a range needs a width, also where all values are zero

Bounds = Sequence[tf.Tensor | float]  # least and greatest value
Average = Callable[[tf.Tensor, list[int], Bounds], tf.Tensor]


class Convolution(NamedTuple):
    """Kernel `float32[h, w, in, out]` and bias `float32[out]`."""

    kernel: np.ndarray
    bias: np.ndarray


def fold(student: Student, temperature: float = 1.0) -> list[Convolution]:
    """Writes a student as plain convolutions.

    Args:
        student: built, for square images.
        temperature: divides the logits, above 0.

    Returns:
        One per stage, which a ReLU and the stage's pool follow; the hidden dense layer, as wide and
        high as the grid it sees; and the logits.
    """
    folded = []
    for conv, norm in zip(student.convs, student.norms, strict=True):
        gain = np.asarray(norm.gamma) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
        bias = np.asarray(norm.beta) - np.asarray(norm.moving_mean) * gain
        folded.append(Convolution(np.asarray(conv.kernel) * gain, bias))
    hidden, logits = student.dense, student.logits
    channels = student.convs[-1].filters
    side = math.isqrt(hidden.kernel.shape[0] // channels)  # of the grid of averages
    kernel = np.asarray(hidden.kernel).reshape(side, side, channels, hidden.units)
    folded.append(Convolution(kernel, np.asarray(hidden.bias)))
    kernel, bias = np.asarray(logits.kernel)[None, None], np.asarray(logits.bias)
    folded.append(Convolution(kernel / temperature, bias / temperature))
    return folded


class QuantizedStudent(keras.Model):
    """A student's copy that rounds weights and activations as its int8 file does.

    Its weights start as the folded ones of the student and are its own from then on; the student
    is left alone. Ranges are unknown until `measure_ranges`.

    Args:
        student: built.
        temperature: of the softmax that the student is served with; here the logits are divided by
            it already.
    """

    def __init__(self, student: Student, temperature: float = 1.0):
        super().__init__(name="quantized_student", dtype="float32")
        self._pools, self._cells = student.pools, student.cells
        layers = fold(student, temperature)
        self.kernels = [self._weight("kernel", layer.kernel) for layer in layers]
        self.biases = [self._weight("bias", layer.bias) for layer in layers]
        # Least and greatest activation of each layer.
        self.ranges = [
            self._weight("range", np.zeros(2, np.float32), trainable=False) for _ in layers
        ]
        self.built = True

    def _weight(self, name: str, value: np.ndarray, *, trainable: bool = True) -> keras.Variable:
        start = keras.initializers.Constant(np.asarray(value, np.float32))
        return self.add_weight(shape=value.shape, initializer=start, name=name, trainable=trainable)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Classifies as the int8 file does.

        Args:
            images: `float32[N, S, S, C]` in [0, 1].
            training: move the ranges towards the batch's.

        Returns:
            `float32[N, classes]`, logits over the temperature.
        """
        return self._forward(images, MOMENTUM if training else None, _averaged)

    def convertible(self, images: tf.Tensor) -> tf.Tensor:
        """What `call` computes, in the operations by which the converter knows what is meant."""
        return self._forward(images, None, _averaged_and_rounded)

    def measure_ranges(self, levels: np.ndarray) -> None:
        """Sets the ranges to what images show, as if they were batches of training.

        Args:
            levels: `uint8[M, S, S, C]`, M ≥ 1.
        """
        for start in range(0, len(levels), _BATCH):
            momentum = MOMENTUM if start else 0.0
            self._forward(scale(levels[start : start + _BATCH]), momentum, _averaged)

    def _forward(self, images: tf.Tensor, momentum: float | None, average: Average) -> tf.Tensor:
        x = _rounded(images, (0.0, 1.0))  # the levels of the image file: nothing is lost
        for position, pool in enumerate(self._pools):
            x, bounds = self._layer(x, position, "SAME", momentum)
            x = tf.nn.max_pool2d(x, pool, pool, "VALID") if pool > 1 else x
        cell = cell_of(x.shape, self._cells)
        x = average(x, cell, bounds)
        x, _ = self._layer(x, len(self._pools), "VALID", momentum)
        x, _ = self._layer(x, len(self._pools) + 1, "VALID", momentum)
        return tf.reshape(x, (-1, x.shape[-1]))

    def _layer(
        self, x: tf.Tensor, position: int, padding: str, momentum: float | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        kernel = _rounded_per_channel(tf.convert_to_tensor(self.kernels[position]))
        x = tf.nn.conv2d(x, kernel, 1, padding) + tf.convert_to_tensor(self.biases[position])
        if position < len(self.kernels) - 1:
            x = tf.nn.relu(x)
        bounds = tf.convert_to_tensor(self.ranges[position])
        if momentum is not None:
            seen = tf.stack([tf.minimum(tf.reduce_min(x), 0.0), tf.reduce_max(x)])
            bounds = tf.stop_gradient(momentum * bounds + (1 - momentum) * seen)
            self.ranges[position].assign(bounds)
        return _rounded(x, tf.unstack(bounds)), tf.unstack(bounds)


def _averaged_and_rounded(x: tf.Tensor, cell: list[int], bounds: Bounds) -> tf.Tensor:
    return _rounded(tf.nn.avg_pool2d(x, cell, cell, "VALID"), bounds)


def _averaged(x: tf.Tensor, cell: list[int], bounds: Bounds) -> tf.Tensor:
    """Averages levels as LiteRT does: what is midway goes away from the middle of the range.

    The average of four levels is midway one time in four, so it matters which way it goes.
    """
    exact = tf.nn.avg_pool2d(x, cell, cell, "VALID")
    step = tf.maximum(bounds[1], _SMALLEST) / 255  # a ReLU's range starts at zero
    count = cell[0] * cell[1]
    levels = tf.round(exact * count / step) / count - 128
    rounded = tf.sign(levels) * tf.floor(tf.abs(levels) + 0.5)
    return exact + tf.stop_gradient((rounded + 128) * step - exact)


def _rounded(x: tf.Tensor, bounds: Bounds) -> tf.Tensor:
    low, high = bounds
    return tf.quantization.fake_quant_with_min_max_vars(x, low, tf.maximum(high, low + _SMALLEST))


def _rounded_per_channel(kernel: tf.Tensor) -> tf.Tensor:
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), axis=(0, 1, 2)))
    largest = tf.maximum(largest, _SMALLEST)
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -largest, largest, narrow_range=True
    )
