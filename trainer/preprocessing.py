"""From encoded bytes to what the network sees: the only definition of it.

The training input, both exported signatures and the tests call `preprocess`; a model therefore
never meets a pixel in service that was prepared otherwise than in training.

After resizing, grey levels are rounded to the 256 that the source had. The rounding costs at most
half a grey level, and lets the training input hold images as bytes, a quarter of the memory, and
still feed the network bit for bit what the serving graph computes.
"""

import numpy as np
import tensorflow as tf

from trainer.config import InputSettings

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

# A factor, not a divisor: Grappler may turn a division into a product, which differs by a bit.
SCALE = np.float32(1.0 / 255.0)


def preprocess(encoded: tf.Tensor, settings: InputSettings) -> tf.Tensor:
    """Decodes, resizes and scales a batch of images.

    Args:
        encoded: `string[N]`, each a whole PNG or JPEG file.
        settings: size and channels of the result.

    Returns:
        `float32[N, S, S, C]` in [0, 1].

    Raises:
        tf.errors.InvalidArgumentError: an image is neither PNG nor JPEG, or is damaged.
    """
    return scale(decode(encoded, settings))


def decode(encoded: tf.Tensor, settings: InputSettings) -> tf.Tensor:
    """Decodes and resizes a batch of images to 8-bit levels.

    Colour becomes luma where one channel is asked for; transparency is dropped. The resize is
    bilinear and antialiased, so that a 208-pixel slice shown at 64 pixels does not shimmer with
    its sub-pixel position.

    Args:
        encoded: `string[N]`, each a whole PNG or JPEG file.
        settings: size and channels of the result.

    Returns:
        `uint8[N, S, S, C]`.

    Raises:
        tf.errors.InvalidArgumentError: an image is neither PNG nor JPEG, or is damaged.
    """
    size, channels = settings.image_size, settings.channels

    def decode_one(image: tf.Tensor) -> tf.Tensor:
        # TensorFlow's decoder follows the magic bytes, whichever of its ops is called.
        pixels = tf.io.decode_png(image, channels=channels)
        resized = tf.image.resize(pixels, (size, size), method="bilinear", antialias=True)
        levels = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
        return tf.ensure_shape(levels, (size, size, channels))

    with tf.control_dependencies([assert_supported(encoded)]):
        return tf.map_fn(
            decode_one,
            tf.identity(encoded),
            fn_output_signature=tf.TensorSpec((size, size, channels), tf.uint8),
        )


def scale(levels: tf.Tensor) -> tf.Tensor:
    """Maps 8-bit levels to [0, 1]: `uint8[...]` to `float32[...]`."""
    return tf.cast(levels, tf.float32) * SCALE


def assert_supported(encoded: tf.Tensor) -> tf.Operation:
    """Refuses anything but PNG and JPEG by its first bytes.

    TensorFlow's decoder would also accept GIF and BMP, two more parsers exposed to strangers' bytes
    and never seen in training.

    Args:
        encoded: `string[N]`.

    Returns:
        The assertion; `InvalidArgumentError` when it fails, with the positions of the offenders.
    """
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(PNG_MAGIC)), PNG_MAGIC)
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, len(JPEG_MAGIC)), JPEG_MAGIC)
    supported = tf.logical_or(is_png, is_jpeg)
    offenders = tf.reshape(tf.where(tf.logical_not(supported)), [-1])
    return tf.debugging.Assert(
        tf.reduce_all(supported),
        ["Images must be PNG or JPEG files. Convert them first. Positions refused:", offenders],
        summarize=8,
    )
