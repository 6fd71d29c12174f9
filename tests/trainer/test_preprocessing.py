import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer import preprocessing
from trainer.config import InputSettings


def encode(array: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(size: int) -> np.ndarray:
    return np.arange(size * size, dtype=np.uint8).reshape(size, size)


def test_keeps_an_image_of_the_right_size_to_the_bit():
    image = ramp(16)
    result = preprocessing.preprocess(tf.constant([encode(image)]), InputSettings(image_size=16))
    assert result.dtype == tf.float32
    assert result.shape == (1, 16, 16, 1)
    np.testing.assert_array_equal(result[0, ..., 0], image.astype(np.float32) * np.float32(1 / 255))


def test_spans_zero_to_one_exactly():
    levels = preprocessing.scale(tf.constant([0, 255], tf.uint8)).numpy()
    assert levels.tolist() == [0.0, 1.0]


def test_antialiased_resize_agrees_with_pillow():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (96, 96), dtype=np.uint8)
    ours = preprocessing.decode(tf.constant([encode(image)]), InputSettings(image_size=32))
    pillow = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    difference = np.abs(ours[0, ..., 0].numpy().astype(int) - pillow.astype(int))
    assert difference.max() <= 1


def test_reads_jpeg_and_grey_as_rgb():
    grey = np.full((20, 20), 80, np.uint8)
    settings = InputSettings(image_size=16, channels=3)
    result = preprocessing.decode(tf.constant([encode(grey), encode(grey, "JPEG")]), settings)
    assert result.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(result.numpy().astype(int), 80, atol=1)


def test_reads_colour_as_luma():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    result = preprocessing.decode(tf.constant([encode(red, "JPEG")]), InputSettings(image_size=16))
    np.testing.assert_allclose(result.numpy().astype(int), 76, atol=2)  # 0.299 × 255


@pytest.mark.parametrize(
    "content",
    [
        encode(ramp(16), "GIF"),
        encode(ramp(16), "BMP"),
        b"",
        b"\x89PN",
        b"not an image",
    ],
    ids=["gif", "bmp", "empty", "short", "text"],
)
def test_refuses_other_formats_and_says_which_position(content):
    batch = tf.constant([encode(ramp(16)), content])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)PNG or JPEG.*\[1\]"):
        tf.function(lambda x: preprocessing.preprocess(x, InputSettings(image_size=16)))(batch)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_refuses_a_truncated_image(kind):
    whole = encode(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8), kind)
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocessing.preprocess(tf.constant([whole[: len(whole) // 2]]), InputSettings())
