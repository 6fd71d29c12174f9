"""What the network sees, without TensorFlow: the twin of `trainer.preprocessing` in NumPy.

The resize is TensorFlow's `ScaleAndTranslate` with a triangle kernel, step by step in float32
(tensorflow/core/kernels/image/scale_and_translate_op.cc): the same weights, summed in the same
order, rows first. A pixel whose value lies half-way between two grey levels is therefore rounded as
in training. A test holds both to equal bytes.
"""

import functools
import io
import math
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.containers import PNG_MAGIC

SCALE = np.float32(1.0 / 255.0)  # a factor, as in trainer.preprocessing

Levels = NDArray[np.uint8]


class Spans(NamedTuple):
    """Which source pixels make which target pixel, along one axis.

    Attributes:
        sources: intp[K, target], the k-th source of each target pixel.
        weights: float32[K, target]; zero beyond the pixel's span.
    """

    sources: NDArray[np.intp]
    weights: NDArray[np.float32]


def decode(encoded: bytes, channels: int) -> Levels:
    """Decodes one trusted PNG or JPEG; a stranger's bytes go through `serving.admission`.

    Args:
        encoded: a whole file.
        channels: 1 for luma, 3 for colour.

    Returns:
        uint8[H, W], or uint8[H, W, 3].

    Raises:
        OSError: the bytes are neither, or are damaged.
    """
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def encode(pixels: Levels) -> bytes:
    """A PNG file of uint8[H, W] or uint8[H, W, 3], without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def stored(pixels: Levels) -> bytes:
    """As `encode`, not compressed: a tenth of its time, for a decoder in the same process."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    colour = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    return PNG_MAGIC + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def preprocess(pixels: Levels, size: int) -> NDArray[np.float32]:
    """Resizes and scales one image.

    Args:
        pixels: uint8[H, W], or uint8[H, W, 3], of any size.
        size: side of the result.

    Returns:
        float32[size, size, 1 or 3] in [0, 1].
    """
    levels = resize(pixels, size).reshape(size, size, -1)
    return np.multiply(levels, SCALE, dtype=np.float32)


def resize(pixels: Levels, size: int) -> Levels:
    """Resizes bilinearly, antialiased, and rounds to grey levels, halves to even.

    Args:
        pixels: uint8[H, W], or uint8[H, W, 3].
        size: side of the result.

    Returns:
        uint8[size, size], or uint8[size, size, 3].
    """
    height, width = pixels.shape[:2]
    if height == width == size:
        return pixels
    rows = _gather(pixels.astype(np.float32), spans(height, size))
    resized = _gather(rows.swapaxes(0, 1), spans(width, size)).swapaxes(0, 1)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _gather(values: NDArray[np.float32], axis: Spans) -> NDArray[np.float32]:
    """Weighted sums of slices along the first axis, added in the order of the source."""
    tail = (1,) * (values.ndim - 1)
    total = values[axis.sources[0]] * axis.weights[0].reshape(-1, *tail)
    for sources, weights in zip(axis.sources[1:], axis.weights[1:], strict=True):
        total += values[sources] * weights.reshape(-1, *tail)
    return total


@functools.lru_cache(maxsize=256)
def spans(source: int, target: int) -> Spans:
    """The antialiased triangle kernel along one axis, in float32 as TensorFlow computes it.

    Args:
        source: pixels there are.
        target: pixels wanted.
    """
    one, half = np.float32(1), np.float32(0.5)
    inverse = one / (np.float32(target) / np.float32(source))
    kernel = max(inverse, one)  # wider than a pixel only when the image gets smaller
    per_kernel = one / kernel
    width = min(2 * math.ceil(kernel) + 1, source)
    indices = np.zeros((width, target), np.intp)
    weights = np.zeros((width, target), np.float32)
    for position in range(target):
        centre = (np.float32(position) + half) * inverse
        first = int(np.clip(np.ceil(centre - kernel - half), 0, source - 1))
        last = int(np.clip(np.floor(centre + kernel - half), 0, source - 1))
        total = np.float32(0)
        for entry, pixel in enumerate(range(first, last + 1)):
            distance = abs((np.float32(pixel) + half - centre) * per_kernel)
            weights[entry, position] = max(one - distance, np.float32(0))
            indices[entry, position] = pixel
            total += weights[entry, position]
        if total >= 1000 * np.finfo(np.float32).tiny:
            weights[:, position] *= one / total
    return Spans(indices, weights)
