"""The twin of the training preprocessing, held to TensorFlow's own resize: equal bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from serving import preprocessing

SOURCES = [
    (64, 64), (96, 96), (128, 128), (176, 208), (208, 176), (248, 496), (500, 333), (61, 97),
    (100, 100), (33, 200), (32, 32), (50, 70), (64, 63), (1, 5), (7, 1),
]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [64, 96, 128, 224])
@pytest.mark.parametrize("source", SOURCES, ids=lambda pair: f"{pair[0]}x{pair[1]}")
def test_resizes_as_tensorflow_bit_for_bit(source, size, channels):
    import tensorflow as tf

    pixels = np.random.default_rng(size).integers(0, 256, (*source, channels), np.uint8)
    resized = tf.image.resize(pixels, (size, size), method="bilinear", antialias=True)
    wanted = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8).numpy()
    received = preprocessing.resize(pixels[..., 0] if channels == 1 else pixels, size)
    np.testing.assert_array_equal(received.reshape(wanted.shape), wanted)


def smooth(side: int) -> np.ndarray:
    """A picture with large ramps, where many values lie on a half."""
    ramp = np.add.outer(np.arange(side), np.arange(side)) * 255.0 / (2 * side)
    return ramp.astype(np.uint8)


@pytest.mark.parametrize("side", [64, 127, 128, 200, 256])
def test_prepares_what_training_does(side):
    import tensorflow as tf

    from trainer.config import InputSettings
    from trainer.preprocessing import preprocess

    buffer = io.BytesIO()
    Image.fromarray(smooth(side)).save(buffer, "PNG")
    wanted = preprocess(tf.constant([buffer.getvalue()]), InputSettings(image_size=64)).numpy()
    decoded = preprocessing.decode(buffer.getvalue(), 1)
    received = preprocessing.preprocess(decoded, 64)
    assert received.dtype == np.float32
    np.testing.assert_array_equal(received, wanted[0])


def test_encoding_keeps_every_pixel():
    for shape in ((31, 17), (31, 17, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        channels = 1 if len(shape) == 2 else 3
        decoded = preprocessing.decode(preprocessing.encode(pixels), channels)
        np.testing.assert_array_equal(decoded, pixels)


def test_decodes_png_and_jpeg_alone():
    buffer = io.BytesIO()
    Image.fromarray(smooth(32)).save(buffer, "GIF")
    with pytest.raises(OSError, match="cannot identify"):
        preprocessing.decode(buffer.getvalue(), 1)


@pytest.mark.parametrize("shape", [(17, 33), (64, 64), (21, 16, 3)])
def test_stored_pixels_are_decoded_as_they_were(shape):
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    file = preprocessing.stored(pixels)
    channels = 1 if len(shape) == 2 else 3
    np.testing.assert_array_equal(preprocessing.decode(file, channels), pixels)
    decoded = tf.io.decode_png(file, channels).numpy()
    np.testing.assert_array_equal(decoded.reshape(shape), pixels)
