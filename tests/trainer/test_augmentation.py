import json

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import kstest

from trainer import augmentation
from trainer.augmentation import augment
from trainer.config import FinetuneSettings, PretrainSettings
from trainer.draws import Draw

SEED = tf.constant([3, 5])


def scene(count=6, size=48, channels=1):
    """Smooth images that no flip, shift or rotation leaves alone, each different."""
    y, x = np.mgrid[:size, :size] / size
    base = 0.5 + 0.25 * np.sin(5 * x + 2 * y) + 0.2 * x * y
    images = base[None, ..., None] * np.linspace(0.7, 1, count)[:, None, None, None]
    return np.float32(images * np.linspace(0.6, 1, channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["none", "simclr", "mri"])
def test_views_keep_shape_and_range(policy, channels):
    images = np.random.default_rng(0).random((5, 33, 40, channels)).astype(np.float32)
    view = augment(tf.constant(images), policy, draw=Draw(SEED))
    assert view.shape == images.shape
    assert view.dtype == tf.float32
    assert np.isfinite(view).all()
    assert float(tf.reduce_min(view)) >= 0
    assert float(tf.reduce_max(view)) <= 1
    assert np.array_equal(view, images) == (policy == "none")


@pytest.mark.parametrize("policy", ["simclr", "mri"])
def test_equal_seeds_give_equal_views_and_others_do_not(policy):
    images = tf.constant(scene())
    view = augment(images, policy, draw=Draw(SEED))
    np.testing.assert_array_equal(augment(images, policy, draw=Draw(SEED)), view)
    other = augment(images, policy, draw=Draw(SEED + 1))
    assert np.abs(other - view).max(axis=(1, 2, 3)).min() > 0.01


@pytest.mark.parametrize("policy", ["simclr", "mri"])
def test_every_image_has_parameters_of_its_own(policy):
    images = tf.constant(np.repeat(scene(1), 8, axis=0))
    views = augment(images, policy, draw=Draw(SEED)).numpy()
    for first in range(8):
        for second in range(first):
            assert np.abs(views[first] - views[second]).max() > 0.01


@pytest.mark.parametrize("policy", ["simclr", "mri"])
def test_graph_with_unknown_batch_gives_the_eager_views(policy):
    images = tf.constant(scene(5, 32))
    traced = tf.function(
        lambda images, seed: augment(images, policy, draw=Draw(seed)),
        input_signature=[tf.TensorSpec([None, 32, 32, 1]), tf.TensorSpec([2], tf.int32)],
    )
    np.testing.assert_allclose(
        traced(images, SEED), augment(images, policy, draw=Draw(SEED)), atol=1e-5
    )


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match=r"Received: 'mir'\. Use one of"):
        augment(tf.zeros([1, 8, 8, 1]), "mir", draw=Draw(SEED))


def test_blur_equals_the_reference(shared):
    stored = json.loads((shared / "golden/losses_schedules_preprocessing.json").read_text())
    image = np.random.RandomState(1).rand(20, 16, 3).astype(np.float32)
    blurred = augmentation.blur(tf.constant(image[None]), 3, tf.constant([1.3]))[0].numpy()
    golden = stored["blur_k7_s1.3"]
    np.testing.assert_allclose(blurred.mean(), golden["mean"], rtol=1e-6)
    np.testing.assert_allclose(blurred[0, 0], golden["corner"], atol=1e-6)
    np.testing.assert_allclose(blurred[5, 5:8], golden["px"], atol=1e-6)


def test_blur_widths_are_each_images_own():
    images = np.zeros((2, 21, 21, 1), np.float32)
    images[:, 10, 10] = 1
    narrow, wide = augmentation.blur(tf.constant(images), 8, tf.constant([0.8, 2.0])).numpy()
    for blurred, sigma in ((narrow, 0.8), (wide, 2.0)):
        reach = np.arange(-8, 9)
        kernel = np.exp(-0.5 * (reach / sigma) ** 2)
        np.testing.assert_allclose(
            blurred[2:19, 2:19, 0], np.outer(kernel, kernel) / kernel.sum() ** 2, atol=1e-6
        )


def test_bicubic_resampling_equals_tensorflows():
    images = tf.constant(np.random.default_rng(1).random((1, 24, 24, 3)).astype(np.float32))
    whole = augmentation.bicubic_weights(tf.constant([0.0]), tf.constant([24.0]), 24)
    np.testing.assert_allclose(whole[0], np.eye(24), atol=1e-6)

    half = augmentation.bicubic_weights(tf.constant([6.0]), tf.constant([12.0]), 24)
    ours = augmentation._separable(images, half, half)
    # Away from the crop's border, where TensorFlow stops at the crop and we see the image.
    theirs = tf.image.resize(images[:, 6:18, 6:18], (24, 24), "bicubic")
    np.testing.assert_allclose(ours[:, 4:20, 4:20], theirs[:, 4:20, 4:20], atol=1e-4)


def test_crops_have_the_areas_aspects_and_places_of_the_reference():
    """Recovered from an image of coordinates, against TensorFlow's own sampler."""
    size, count = 64, 4000
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    plane = tf.constant(np.broadcast_to(np.stack([y, x], -1), (count, size, size, 2)))
    views = augmentation.random_crop(plane, draw=Draw(SEED), flip=False).numpy()
    middle = views[:, size // 2 - 8 : size // 2 + 8, size // 2 - 8 : size // 2 + 8]
    rows = (middle[:, -1, 0, 0] - middle[:, 0, 0, 0]) / 15 * size
    columns = (middle[:, 0, -1, 1] - middle[:, 0, 0, 1]) / 15 * size
    centres = middle.mean(axis=(1, 2))

    @tf.function
    def box(number):
        return tf.image.stateless_sample_distorted_bounding_box(
            [size, size, 1],
            tf.zeros([1, 0, 4]),
            seed=[7, number],
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )[1]

    boxes = tf.map_fn(box, tf.range(1000)).numpy()
    for ours, theirs in ((rows, boxes[:, 0]), (columns, boxes[:, 1])):
        quantiles = [0.1, 0.3, 0.5, 0.7, 0.9]
        np.testing.assert_allclose(
            np.quantile(ours, quantiles), np.quantile(theirs, quantiles), atol=3.0
        )
    areas = rows * columns / size**2
    assert 0.0999 < areas.min() < 0.105
    assert (boxes[:, 0] * boxes[:, 1] / size**2).min() > 0.095  # its sides are whole pixels
    assert (rows <= size + 0.01).all()
    assert (columns <= size + 0.01).all()
    assert 0.74 < (columns / rows).min() < (columns / rows).max() < 1.34
    assert (centres - np.stack([rows, columns], 1) / 2).min() > -0.1
    np.testing.assert_allclose(centres.mean(axis=0), size / 2, atol=0.5)


def test_half_of_the_crops_are_flipped():
    ramp = tf.constant(np.tile(np.linspace(0, 1, 32, dtype=np.float32)[:, None], (2000, 32, 1, 1)))
    views = augmentation.random_crop(ramp, draw=Draw(SEED)).numpy()
    flipped = views[:, 16, 0, 0] > views[:, 16, -1, 0]
    assert 0.46 < flipped.mean() < 0.54


def test_affine_without_freedom_is_the_identity_or_its_mirror():
    images = tf.constant(scene(16))
    moved = augmentation.random_affine(
        images, draw=Draw(SEED), degrees=0, shift=0, zoom=(1, 1), aspect=(1, 1)
    ).numpy()
    kept = np.array([np.allclose(a, b, atol=1e-4) for a, b in zip(moved, images, strict=True)])
    mirrored = np.array(
        [np.allclose(a, b[:, ::-1], atol=1e-4) for a, b in zip(moved, images, strict=True)]
    )
    assert (kept ^ mirrored).all()
    assert kept.any()
    assert mirrored.any()


def test_affine_never_turns_a_brain_over():
    """The bright top stays on top, and in sight, in every view."""
    images = np.zeros((300, 48, 48, 1), np.float32)
    images[:, 8:24, 12:36] = 1
    views = augmentation.random_affine(tf.constant(images), draw=Draw(SEED)).numpy()
    upper, lower = views[:, :24].mean(axis=(1, 2, 3)), views[:, 24:].mean(axis=(1, 2, 3))
    assert (upper > 3 * lower).all()


def test_greyscale_and_saturation_and_hue_equal_tensorflows():
    images = tf.constant(np.random.default_rng(2).random((4, 9, 9, 3)).astype(np.float32))
    np.testing.assert_allclose(
        augmentation._greyscale(images)[..., :1], tf.image.rgb_to_grayscale(images), atol=1e-4
    )
    for factor in (0.3, 1.0, 1.7):
        np.testing.assert_allclose(
            augmentation._saturation(images, factor),
            tf.image.adjust_saturation(images, factor),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            augmentation._contrast(images, factor),
            tf.image.adjust_contrast(images, factor),
            atol=1e-5,
        )
    for turn in (-0.2, 0.0, 0.15):
        np.testing.assert_allclose(
            augmentation._hue(images, turn), tf.image.adjust_hue(images, turn), atol=1e-5
        )
    grey = tf.fill([1, 2, 2, 3], 0.4)
    np.testing.assert_allclose(augmentation._saturation(grey, 1.5), grey, atol=1e-6)


def test_colour_jitter_spares_some_images():
    images = tf.constant(np.tile(scene(1, 8), (400, 1, 1, 1)))
    jittered = augmentation.colour_jitter(images, strength=1.0, probability=0.8, draw=Draw(SEED))
    changed = np.abs(jittered - images).max(axis=(1, 2, 3)) > 0
    assert 0.74 < changed.mean() < 0.86
    whole = augmentation.colour_jitter(images, strength=0.0, probability=1.0, draw=Draw(SEED))
    np.testing.assert_allclose(whole, images, atol=1e-6)


@pytest.fixture
def uncropped(monkeypatch):
    """The policies' own constants, seen on images that stay where they are."""
    monkeypatch.setattr(augmentation, "random_crop", lambda images, *, draw: images)


def assert_uniform(values, low: float, high: float):
    """Kolmogorov and Smirnov's test, and nothing outside of the bounds."""
    assert low - 1e-3 < values.min() < values.max() < high + 1e-3
    assert kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def changed(views, images):
    return np.abs(views - images).max(axis=(1, 2, 3)) > 1e-7


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_brightness_and_contrast_multiply_by_uniform_factors(uncropped, strength):
    """Contrast keeps the mean, brightness multiplies all: both factors can be read off."""
    grey = np.float32([[0.18, 0.22], [0.22, 0.18]])
    images = tf.constant(np.tile(grey[None, ..., None], (4000, 1, 1, 1)))
    views = augment(images, "simclr", draw=Draw(SEED), strength=strength, blurred=False).numpy()
    jittered = changed(views, images)
    assert 0.78 < jittered.mean() < 0.82
    means = views[jittered].mean(axis=(1, 2, 3))
    brightness = means / 0.2
    contrast = (views[jittered, 0, 1, 0] - means) / 0.02 / brightness
    for factors in (brightness, contrast):
        assert_uniform(factors, 1 - 0.8 * strength, 1 + 0.8 * strength)
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.06


def test_saturation_and_hue_are_uniform_and_a_fifth_turns_grey(uncropped):
    colour = tf.image.hsv_to_rgb([0.4, 0.3, 0.3])  # far from every bound of its factors
    images = tf.tile(colour[None, None, None], [4000, 2, 2, 1])
    views = augment(images, "simclr", draw=Draw(SEED), blurred=False).numpy()[:, 0, 0]
    grey = views.max(axis=-1) - views.min(axis=-1) < 1e-6
    assert 0.18 < grey.mean() < 0.22
    hue, saturation, value = tf.image.rgb_to_hsv(views[~grey]).numpy().T
    jittered = np.abs(views[~grey] - colour).max(axis=-1) > 1e-6
    assert 0.78 < jittered.mean() < 0.82
    assert_uniform(value[jittered] / 0.3, 0.2, 1.8)
    assert_uniform(saturation[jittered] / 0.3, 0.2, 1.8)
    assert_uniform(hue[jittered] - 0.4, -0.2, 0.2)


def test_steps_of_the_jitter_come_in_both_orders_and_each_is_clipped(uncropped):
    """Factors are read off dark images, which nothing clips, and applied to bright ones."""
    grey = np.float32([[0.5, 0.8], [0.8, 0.9]])[None, ..., None]
    bright, dark = (np.tile(grey * factor, (3000, 1, 1, 1)) for factor in (1, 0.25))
    views, plain = (
        augment(tf.constant(x), "simclr", draw=Draw(SEED), blurred=False).numpy()
        for x in (bright, dark)
    )
    jittered = changed(plain, dark)
    views, plain, bright = views[jittered], plain[jittered], bright[jittered]
    spread = np.ptp(plain, axis=(1, 2, 3), keepdims=True)
    brightness = plain.mean(axis=(1, 2, 3), keepdims=True) / dark[0].mean()
    contrast = spread / np.ptp(dark[0]) / brightness

    def brighter(x):
        return np.clip(x * brightness, 0, 1)

    def contrasted(x):
        mean = x.mean(axis=(1, 2, 3), keepdims=True)
        return np.clip(mean + (x - mean) * contrast, 0, 1)

    def equal(expected):
        return np.abs(views - expected).max(axis=(1, 2, 3)) < 1e-4

    first, last = equal(contrasted(brighter(bright))), equal(brighter(contrasted(bright)))
    assert (first | last).all()
    assert 0.4 < first[first ^ last].mean() < 0.6
    mean = bright.mean(axis=(1, 2, 3), keepdims=True)
    once = np.clip((mean + (bright - mean) * contrast) * brightness, 0, 1)
    assert equal(once).mean() < 0.9  # clipping at the end alone would show


def test_half_of_the_images_are_blurred_each_by_its_own_uniform_width(uncropped):
    points = np.zeros((3000, 64, 64, 1), np.float32)
    points[:, 32, 32] = 1
    views = augment(tf.constant(points), "simclr", draw=Draw(SEED), strength=0.0).numpy()
    blurred = changed(views, points) | (views[:, 32, 33, 0] > 0)
    assert 0.47 < blurred.mean() < 0.53
    fall = views[blurred, 32, 33, 0].astype(np.float64) / views[blurred, 32, 32, 0]
    assert_uniform(np.sqrt(-0.5 / np.log(fall)), 0.1, 2.0)
    assert (views[:, 32, 36:, 0] == 0).all()  # int(64 // 10 / 2) = 3 pixels to either side


def test_noise_is_bounded_and_spares_some_images():
    images = tf.fill([200, 16, 16, 1], 0.5)
    noisy = augmentation.random_noise(images, most=0.05, probability=0.5, draw=Draw(SEED)).numpy()
    spread = noisy.std(axis=(1, 2, 3))
    assert 0.4 < (spread == 0).mean() < 0.6
    assert 0.03 < spread.max() < 0.056


def test_an_empty_slice_stays_black():
    images = tf.zeros([16, 32, 32, 1])
    np.testing.assert_array_equal(augmentation.scanner_jitter(images, draw=Draw(SEED)), images)


def test_each_image_takes_the_step_chosen_for_it():
    images = tf.ones([4, 2, 2, 1])
    amounts = [tf.fill([4, 1, 1, 1], 0.5), tf.reshape(tf.range(4.0), [4, 1, 1, 1])]
    steps = [tf.multiply, tf.subtract]
    chosen = tf.constant([1, 0, 1, 1])
    result = augmentation._each_its_step(images, chosen, steps, amounts)
    assert result[:, 0, 0, 0].numpy().tolist() == [1.0, 0.5, -1.0, -2.0]


@pytest.mark.parametrize("policy", ["simclr", "mri"])
def test_a_part_of_a_batch_sees_what_the_whole_would(policy):
    """Replicas share a batch: an image's view must not depend on who makes it."""
    images = tf.constant(np.random.default_rng(0).random((6, 32, 32, 3)).astype(np.float32))
    whole = augment(images, policy, draw=Draw(SEED))
    part = augment(images[2:5], policy, draw=Draw(SEED, first=2))
    np.testing.assert_allclose(part, whole[2:5], atol=1e-6)


def test_strength_and_blur_of_simclr_are_the_stages():
    """Without jitter and blur a view of a flat grey-green image is that image."""
    flat = tf.tile(tf.constant([0.3, 0.5, 0.4]), [32 * 64 * 64])
    images = tf.reshape(flat, [32, 64, 64, 3])
    settings = FinetuneSettings(augmentation="simclr")
    np.testing.assert_allclose(augmentation.of(settings)(images, Draw(SEED)), images, atol=1e-6)

    def largest_change(strength):
        chosen = PretrainSettings(
            augmentation="simclr", color_jitter_strength=strength, use_blur=False
        )
        views = augmentation.of(chosen)(images, Draw(SEED)).numpy()
        return np.abs(views.max(axis=-1) - 0.5).max()

    assert largest_change(0.1) < 0.15 < largest_change(1.0)
    blurred = PretrainSettings(augmentation="simclr", color_jitter_strength=0.0)
    views = augmentation.of(blurred)(images, Draw(SEED)).numpy()
    dark_edges = views[:, 0, 0, 1] < 0.49  # zeros lie outside of what is blurred
    assert 0.2 < dark_edges.mean() < 0.7


def test_strength_without_the_policy_that_listens_is_refused():
    with pytest.raises(ValueError, match="has no effect with augmentation='mri'"):
        PretrainSettings(color_jitter_strength=0.5)
