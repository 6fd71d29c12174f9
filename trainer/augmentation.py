"""Random views of images, drawn for a whole batch at once.

Every image has its own parameters. Randomness is stateless: equal seeds give equal views on every
run, so a resumed training sees what the interrupted one would have seen. Nothing loops over
images. Resizing and blur are products with small matrices: quick on any device, and without the
depthwise convolutions that crash oneDNN (kernels of 15 taps or more). XLA cannot compile the
other steps (dynamic groups, projective transform): keep `augment` out of a `jit_compile` function.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from trainer.config import StageSettings
from trainer.draws import Draw

POLICIES = ("none", "simclr", "mri")

# The public code asks for 0.08 and more, and for a tenth of the "object", which is the whole image.
_CROP_AREA = (0.1, 1.0)
_CROP_ASPECT = (3 / 4, 4 / 3)
_GREY = (0.2989, 0.587, 0.114)  # luma weights of ITU-R BT.601


def of(settings: StageSettings) -> Callable[[tf.Tensor, Draw], tf.Tensor]:
    """A stage's augmentation: (`float32[N, H, W, C]` images, draw) → as many views."""

    def view(images: tf.Tensor, draw: Draw) -> tf.Tensor:
        return augment(
            images,
            settings.augmentation,
            draw=draw,
            strength=settings.color_jitter_strength,
            blurred=settings.use_blur,
        )

    return view


def augment(images, policy: str, *, draw: Draw, strength: float = 1.0, blurred: bool = True):
    """One random view of each image.

    `simclr` is the public SimCLR code's: crop of 10 to 100 % resized bicubically, left-right flip,
    colour jitter (p = 0.8), grey (p = 0.2), blur (p = 0.5). On one channel, where they do nothing,
    hue, saturation and grey are left out. Blur has its own width per image.

    `mri` is for brains registered to an atlas: left-right flip, small rotation, shift and zoom
    (no vertical flip: anatomy has an up), gamma, brightness and contrast of the scanner, mild
    blur and noise.

    Args:
        images: float32[N, H, W, C] in [0, 1], C of 1 or 3.
        policy: "none", "simclr" or "mri".
        draw: of this batch and view.
        strength: of `simclr`'s colour jitter, its s; 0 leaves out jitter and grey.
        blurred: whether `simclr` blurs.

    Returns:
        float32[N, H, W, C] in [0, 1].

    Raises:
        ValueError: the policy is unknown.
    """
    if policy == "none":
        return images
    if policy == "simclr":
        return _simclr(images, draw, strength, blurred)
    if policy == "mri":
        return _mri(images, draw)
    raise ValueError(f"Unknown augmentation policy. Received: {policy!r}. Use one of {POLICIES}.")


def _simclr(images, draw: Draw, strength: float, blurred: bool):
    crop, colour, grey, widths = draw.split(4)
    images = tf.clip_by_value(random_crop(images, draw=crop), 0.0, 1.0)
    if strength > 0:
        images = colour_jitter(images, strength=strength, probability=0.8, draw=colour)
        if images.shape[-1] == 3:
            images = tf.where(grey.chance(tf.shape(images)[0], 0.2), _greyscale(images), images)
    taps = int((images.shape[1] // 10) / 2) if blurred else 0
    return random_blur(images, taps, sigma=(0.1, 2.0), probability=0.5, draw=widths)


def _mri(images, draw: Draw):
    moved, scanner, blurred, noisy = draw.split(4)
    images = random_affine(images, draw=moved)
    images = scanner_jitter(images, draw=scanner)
    # Up to a pixel of 64, and as much tissue at any other size.
    widest = images.shape[1] / 64
    images = random_blur(
        images, math.ceil(3 * widest), sigma=(0.1 * widest, widest), probability=0.3, draw=blurred
    )
    return random_noise(images, most=0.04, probability=0.5, draw=noisy)


def random_crop(images, *, draw: Draw, area=_CROP_AREA, aspect=_CROP_ASPECT, flip: bool = True):
    """Crops a random box of each image and resizes it, bicubically, to the image's size.

    Boxes are distributed as `tf.image.sample_distorted_bounding_box` draws them: aspect uniform,
    then height uniform among those that respect the area and fit.

    Args:
        images: float32[N, H, W, C].
        draw: of this batch.
        area: least and largest share of the image.
        aspect: least and largest width / height, in pixels.
        flip: also flip left-right half of the images.

    Returns:
        float32[N, H, W, C]; bicubic weights may overshoot the input's range.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    draws = draw.split(5)
    ratio = draws[0].uniform([count], *aspect)
    tallest = tf.minimum(float(height), width / ratio)
    most = tf.minimum(tallest, tf.sqrt(area[1] * height * width / ratio))
    least = tf.minimum(most, tf.sqrt(area[0] * height * width / ratio))
    rows = least + draws[1].uniform([count]) * (most - least)
    columns = rows * ratio
    top = draws[2].uniform([count]) * (height - rows)
    left = draws[3].uniform([count]) * (width - columns)
    across = bicubic_weights(left, columns, width)
    if flip:
        flipped = draws[4].chance(tf.shape(images)[0], 0.5)[:, :, :, 0]
        across = tf.where(flipped, tf.reverse(across, [1]), across)
    return _separable(images, bicubic_weights(top, rows, height), across)


def bicubic_weights(start, length, size: int):
    """Matrices that resample `[start, start + length)` of `size` pixels to `size` pixels.

    Keys' cubic with a = -1/2 and half-pixel centres, without antialiasing, weights outside of the
    image dropped and the rest normalised: `tf.image.resize(…, "bicubic")`.

    Args:
        start: float32[N], first pixel.
        length: float32[N], pixels.
        size: pixels of the side.

    Returns:
        float32[N, size (out), size (in)], rows summing to 1.
    """
    pixels = tf.range(size, dtype=tf.float32)
    centres = start[:, None] + (pixels + 0.5) / size * length[:, None] - 0.5
    distance = tf.abs(centres[:, :, None] - pixels)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = tf.where(distance < 1, near, tf.where(distance < 2, far, 0.0))
    return weights / tf.reduce_sum(weights, -1, keepdims=True)


def random_affine(
    images, *, draw: Draw, degrees=10.0, shift=0.05, zoom=(0.5, 1.0), aspect=(0.92, 1.08)
):
    """Flips left-right (p = 0.5), rotates, shifts and zooms each image about its centre.

    Args:
        images: float32[N, H, W, C]; what comes from outside is 0, MRI's background.
        draw: of this batch.
        degrees: largest rotation either way.
        shift: largest shift either way, as a share of the side.
        zoom: least and largest share of the image's area that stays in sight.
        aspect: least and largest ratio of horizontal to vertical zoom.

    Returns:
        float32[N, H, W, C], resampled bilinearly.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    draws = draw.split(6)
    angle = draws[0].uniform([count], -math.radians(degrees), math.radians(degrees))
    scale = tf.sqrt(draws[1].uniform([count], *zoom))
    stretch = tf.sqrt(draws[2].uniform([count], *aspect))
    mirror = 2.0 * tf.cast(draws[3].uniform([count]) < 0.5, tf.float32) - 1.0
    # From an output pixel to the input pixel it shows: (a0 x + a1 y + a2, b0 x + b1 y + b2).
    a0, a1 = mirror * scale * stretch * tf.cos(angle), -mirror * scale * stretch * tf.sin(angle)
    b0, b1 = scale / stretch * tf.sin(angle), scale / stretch * tf.cos(angle)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    a2 = middle_x + width * draws[4].uniform([count], -shift, shift)
    b2 = middle_y + height * draws[5].uniform([count], -shift, shift)
    a2 -= a0 * middle_x + a1 * middle_y
    b2 -= b0 * middle_x + b1 * middle_y
    zeros = tf.zeros_like(a0)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zeros, zeros], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def scanner_jitter(images, *, draw: Draw, gamma=0.25, brightness=(0.75, 1.1), contrast=0.1):
    """Varies gamma, brightness and contrast of each image: scanners differ in all three.

    Brighter is bounded tighter than darker, since white matter is near the top of the range and
    clipping it would hide the sulci; contrast is mild, since it lifts the black background.

    Args:
        images: float32[N, H, W, C] in [0, 1].
        draw: of this batch.
        gamma: largest absolute logarithm of the exponent.
        brightness: least and largest factor.
        contrast: largest relative change of the distances from the image's mean.

    Returns:
        float32[N, H, W, C] in [0, 1].
    """
    shape = [tf.shape(images)[0], 1, 1, 1]
    draws = draw.split(3)
    images = tf.pow(images, tf.exp(draws[0].uniform(shape, -gamma, gamma)))
    images = images * draws[1].uniform(shape, *brightness)
    images = _contrast(images, draws[2].uniform(shape, 1 - contrast, 1 + contrast))
    return tf.clip_by_value(images, 0.0, 1.0)


def colour_jitter(images, *, strength: float, probability: float, draw: Draw):
    """Brightness, contrast, saturation and hue of each image, in an order of its own.

    Factors and ranges are the public SimCLR code's (brightness multiplies); values are clipped to
    [0, 1] after each step. One channel has neither saturation nor hue.

    Args:
        images: float32[N, H, W, C] in [0, 1], C of 1 or 3.
        strength: s; 0.8 s is the largest change of a factor, 0.2 s of the hue's turn.
        probability: share of the images that are changed.
        draw: of this batch.

    Returns:
        float32[N, H, W, C] in [0, 1].
    """
    steps = [tf.multiply, _contrast]
    if images.shape[-1] == 3:
        steps += [_saturation, _hue]
    shape = [tf.shape(images)[0], 1, 1, 1]
    *draws, order_draw, chance_draw = draw.split(len(steps) + 2)
    around = (max(1 - 0.8 * strength, 0.0), 1 + 0.8 * strength)
    ranges = [around, around, around, (-0.2 * strength, 0.2 * strength)]
    amounts = [each.uniform(shape, *bounds) for bounds, each in zip(ranges, draws, strict=False)]
    order = tf.argsort(order_draw.uniform([shape[0], len(steps)]))
    jittered = images
    for turn in range(len(steps)):
        jittered = _each_its_step(jittered, order[:, turn], steps, amounts)
        jittered = tf.clip_by_value(jittered, 0.0, 1.0)
    return tf.where(chance_draw.chance(tf.shape(images)[0], probability), jittered, images)


def random_blur(images, taps: int, *, sigma, probability: float, draw: Draw):
    """Gaussian blur whose width is each image's own.

    Args:
        images: float32[N, H, W, C] in [0, 1].
        taps: pixels on either side that enter the mean; 0 leaves the images as they are.
        sigma: least and largest standard deviation, in pixels.
        probability: share of the images that are blurred.
        draw: of this batch.

    Returns:
        float32[N, H, W, C] in [0, 1].
    """
    if taps == 0:
        return images
    width_draw, chance_draw = draw.split(2)
    widths = width_draw.uniform([tf.shape(images)[0]], *sigma)
    return tf.where(
        chance_draw.chance(tf.shape(images)[0], probability), blur(images, taps, widths), images
    )


def blur(images, taps: int, sigma):
    """Gaussian blur by products with banded matrices; zeros lie outside of the image.

    Args:
        images: float32[N, H, W, C] in [0, 1].
        taps: pixels on either side that enter the mean.
        sigma: float32[N], standard deviation in pixels.

    Returns:
        float32[N, H, W, C] in [0, 1].
    """
    height, width = images.shape[1:3]
    blurred = _separable(
        images, _gaussian_band(height, taps, sigma), _gaussian_band(width, taps, sigma)
    )
    return tf.clip_by_value(blurred, 0.0, 1.0)


def _gaussian_band(size: int, taps: int, sigma):
    pixels = tf.range(size)
    distance = tf.abs(pixels[:, None] - pixels)
    reach = tf.range(-taps, taps + 1, dtype=tf.float32)
    exponent = -0.5 / tf.square(sigma)[:, None]
    total = tf.reduce_sum(tf.exp(exponent * tf.square(reach)), -1)[:, None, None]
    weights = tf.exp(exponent[:, None] * tf.square(tf.cast(distance, tf.float32)))
    return tf.where(distance <= taps, weights / total, 0.0)


def random_noise(images, *, most: float, probability: float, draw: Draw):
    """Adds Gaussian noise whose deviation is each image's own, uniform up to `most`.

    Args:
        images: float32[N, H, W, C] in [0, 1].
        most: largest standard deviation.
        probability: share of the images that are changed.
        draw: of this batch.

    Returns:
        float32[N, H, W, C] in [0, 1].
    """
    level_draw, noise_draw, chance_draw = draw.split(3)
    level = level_draw.uniform([tf.shape(images)[0], 1, 1, 1], 0.0, most)
    level *= tf.cast(chance_draw.chance(tf.shape(images)[0], probability), tf.float32)
    noise = noise_draw.normal(tf.unstack(tf.shape(images)))
    return tf.clip_by_value(images + level * noise, 0.0, 1.0)


def _separable(images, down, across):
    """Applies float32[N, out, in] matrices to the rows and columns of [N, H, W, C] images."""
    count, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    rows = tf.matmul(down, tf.reshape(images, [count, height, width * channels]))
    columns = tf.reshape(rows, [count, height, width, channels])
    if channels == 1:
        product = tf.matmul(columns[..., 0], across, transpose_b=True)
        return product[..., None]
    return tf.einsum("nhwc,nvw->nhvc", columns, across)


def _each_its_step(images, chosen, steps, amounts):
    """Applies to image n the step numbered `chosen[n]`, with that step's amount."""
    count = len(steps)
    places = tf.dynamic_partition(tf.range(tf.shape(images)[0]), chosen, count)
    groups = tf.dynamic_partition(images, chosen, count)
    results = [
        step(group, tf.gather(amount, place))
        for step, group, amount, place in zip(steps, groups, amounts, places, strict=True)
    ]
    return tf.ensure_shape(tf.dynamic_stitch(places, results), images.shape)


def _contrast(images, factor):
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    return mean + (images - mean) * factor


def _saturation(images, factor):
    # In HSV, scaling S scales each channel's distance from the largest, and S stops at 1.
    value = tf.reduce_max(images, -1, keepdims=True)
    spread = value - tf.reduce_min(images, -1, keepdims=True)
    full = tf.math.divide_no_nan(value, spread)
    return value - (value - images) * tf.where(spread > 0, tf.minimum(factor, full), 1.0)


def _hue(images, turn):
    hue, saturation, value = tf.split(tf.image.rgb_to_hsv(images), 3, axis=-1)
    turned = tf.math.floormod(hue + turn, 1.0)
    return tf.image.hsv_to_rgb(tf.concat([turned, saturation, value], -1))


def _greyscale(images):
    grey = tf.reduce_sum(images * tf.constant(_GREY), -1, keepdims=True)
    return tf.broadcast_to(grey, tf.shape(images))
