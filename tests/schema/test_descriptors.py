"""Descriptors against hand-made images, invariances, degenerate inputs and the real slices."""

import numpy as np
import pytest
from PIL import Image

from schema import brain
from schema.descriptors import DESCRIPTORS, NAMES, describe

QUANTILES = {"brain_q05", "brain_q50", "brain_q95", "white_matter"}
SHARES_OF_GAIN = QUANTILES | {"corner_intensity", "mean", "std"}


def ellipse(size, cx=0.5, cy=0.5, rx=0.4, ry=0.4):
    """Mask of an ellipse; centre and half-axes as shares of the frame."""
    grid = (np.arange(size) + 0.5) / size
    return ((grid[None, :] - cx) / rx) ** 2 + ((grid[:, None] - cy) / ry) ** 2 < 1


def slice_like(size, *, csf=40, gm=150, wm=220, ventricle=0.12, sulcus=0.03):
    """Toy axial slice: grey rim, white inside, two ventricles, dark notches as sulci."""
    image = np.zeros((size, size), np.uint8)
    image[ellipse(size, rx=0.39, ry=0.40)] = gm
    image[ellipse(size, rx=0.33, ry=0.34)] = wm
    for side in (-1, 1):
        image[ellipse(size, cx=0.5 + side * 0.10, rx=0.06, ry=ventricle)] = csf
        image[ellipse(size, cx=0.5 + side * 0.33, cy=0.4, rx=sulcus, ry=sulcus)] = csf
    return image


def one(image):
    return {name: float(values[0]) for name, values in describe([image]).items()}


def test_names_are_unique_and_documented():
    assert len(set(NAMES)) == len(DESCRIPTORS)
    assert all(item.unit and item.meaning for item in DESCRIPTORS)


def test_answers_in_declared_order_and_type():
    described = describe(np.zeros((3, 16, 16), np.uint8))
    assert tuple(described) == NAMES
    assert all(v.dtype == np.float32 and v.shape == (3,) for v in described.values())


def test_disc_has_analytic_geometry():
    disc = np.where(ellipse(128, cx=0.45, cy=0.55, rx=0.25, ry=0.35), 200, 0).astype(np.uint8)
    measured = one(disc)
    assert measured["foreground_fraction"] == pytest.approx(np.pi * 0.25 * 0.35, abs=0.01)
    assert measured["centroid_x"] == pytest.approx(0.45, abs=0.005)
    assert measured["centroid_y"] == pytest.approx(0.55, abs=0.005)
    assert measured["bbox_width"] == pytest.approx(0.5, abs=0.02)
    assert measured["bbox_height"] == pytest.approx(0.7, abs=0.02)
    assert measured["taper"] == pytest.approx(0, abs=0.02)
    assert measured["white_matter"] == pytest.approx(200 / 255)
    assert measured["corner_intensity"] == 0
    assert measured["centre_brightness"] == pytest.approx(1, abs=0.01)
    assert measured["mean"] == pytest.approx(200 / 255 * np.pi * 0.25 * 0.35, abs=0.01)


def test_half_plane_has_analytic_statistics():
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = 200
    measured = one(half)
    assert measured["foreground_fraction"] == 0.5
    assert measured["centroid_x"] == 0.75
    assert measured["symmetry_left_right"] == pytest.approx(-1, abs=1e-5)
    assert measured["symmetry_up_down"] == pytest.approx(1, abs=1e-5)
    assert measured["mean"] == pytest.approx(100 / 255)
    assert measured["std"] == pytest.approx(100 / 255)
    assert measured["entropy"] == 0
    assert measured["gradient_energy"] == 0  # flat inside the hull
    assert measured["high_frequency_energy"] == 0


def test_gradient_and_entropy_of_a_ramp():
    ramp = np.tile(np.arange(64, 192, 2, dtype=np.uint8), (64, 1))
    measured = one(ramp)
    white = measured["white_matter"] * 255
    assert measured["gradient_energy"] == pytest.approx(2 / white, rel=1e-4)
    assert measured["high_frequency_energy"] == pytest.approx(0, abs=1e-6)
    assert measured["entropy"] == pytest.approx(5, abs=1e-4)  # 32 of 64 bins, equally filled


def test_high_frequency_energy_is_the_noise_level():
    noise = np.random.default_rng(0).normal(128, 8, (16, 64, 64))
    described = describe(np.clip(np.rint(noise), 0, 255).astype(np.uint8))
    sigma = described["high_frequency_energy"] * described["white_matter"] * 255
    np.testing.assert_allclose(sigma.mean(), 8, rtol=0.03)


def test_csf_areas_of_a_toy_slice():
    measured = one(slice_like(128))
    hull = np.pi * 0.39 * 0.40
    ventricles = 2 * np.pi * 0.06 * 0.12 / hull
    sulci = 2 * np.pi * 0.03**2 / hull
    # The CSF level lies below the middle of a CSF–white edge, so rim pixels count as tissue.
    assert measured["ventricle_fraction"] == pytest.approx(ventricles, rel=0.12)
    smooth = one(slice_like(128, sulcus=1e-9))  # only the brain's rim, which is partly background
    added = measured["sulcal_csf_fraction"] - smooth["sulcal_csf_fraction"]
    assert added == pytest.approx(sulci, rel=0.2)
    total = measured["ventricle_fraction"] + measured["sulcal_csf_fraction"]
    assert measured["csf_fraction"] == pytest.approx(total, abs=1e-6)


def test_ventricles_grow_with_the_ventricles():
    sizes = (0.06, 0.10, 0.14, 0.18)
    images = np.stack([slice_like(64, ventricle=size) for size in sizes])
    assert (np.diff(describe(images)["ventricle_fraction"]) > 0.01).all()


@pytest.mark.parametrize("gain", [0.5, 0.72, 1.1])
def test_gain_changes_only_intensities(gain):
    image = slice_like(128)
    reference, scaled = one(image), one(np.rint(image * gain).astype(np.uint8))
    for name in set(NAMES) - SHARES_OF_GAIN - {"entropy"}:
        assert scaled[name] == pytest.approx(reference[name], abs=0.01), name
    for name in SHARES_OF_GAIN:
        assert scaled[name] == pytest.approx(gain * reference[name], abs=0.01), name


@pytest.mark.parametrize("size", [64, 128, 224])
def test_resolution_changes_nothing(size):
    fine = Image.fromarray(slice_like(448))
    resized = np.asarray(fine.resize((size, size), Image.Resampling.BOX))
    reference, measured = one(np.asarray(fine)), one(resized)
    for name in NAMES:
        tolerance = 0.15 if name == "entropy" else 0.02
        assert measured[name] == pytest.approx(reference[name], abs=tolerance), name


def test_small_images_are_interpolated():
    image = np.full((16, 16), 90, np.uint8)
    np.testing.assert_allclose(brain.to_grid(image[None]), 90, rtol=1e-6)


def test_resampling_keeps_the_mean():
    images = np.random.default_rng(1).integers(0, 256, (2, 176, 208), np.uint8)
    grid = brain.to_grid(images)
    np.testing.assert_allclose(grid.mean((1, 2)), images.mean((1, 2)), rtol=1e-4)


def test_quantile_agrees_with_numpy():
    levels = np.random.default_rng(2).integers(0, 256, (4, 9, 11), np.uint8)
    for q in (0.05, 0.5, 0.9, 1.0):
        expected = np.quantile(levels.reshape(4, -1), q, axis=1, method="inverted_cdf")
        np.testing.assert_array_equal(brain.quantile(brain.histogram(levels), q), expected)


def test_list_of_differing_sizes_equals_one_by_one():
    images = [slice_like(64), slice_like(128), slice_like(64, ventricle=0.2), slice_like(97)]
    together = describe(images)
    for position, image in enumerate(images):
        for name, value in one(image).items():
            assert together[name][position] == pytest.approx(value, abs=1e-6)


def test_grey_in_three_channels_equals_grey():
    image = slice_like(64)
    batch = np.stack([image, image])
    colour = np.repeat(batch[..., None], 3, -1)
    for name, values in describe(colour).items():
        np.testing.assert_allclose(values, describe(batch)[name], atol=1e-5)
    assert one(image[..., None]) == one(image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.full((64, 64), 255, np.uint8),
        np.full((1, 1), 7, np.uint8),
        np.eye(128, dtype=np.uint8),
        np.random.default_rng(3).integers(0, 256, (50, 70), np.uint8),
        np.zeros((5, 4000), np.uint8),
    ],
    ids=["black", "white", "pixel", "diagonal", "noise", "extreme"],
)
def test_degenerate_images_stay_finite(image):
    assert all(np.isfinite(value) for value in one(image).values())


def test_black_image_has_no_brain():
    measured = one(np.zeros((64, 64), np.uint8))
    for name in ("foreground_fraction", "csf_fraction", "bbox_height", "white_matter", "entropy"):
        assert measured[name] == 0
    assert measured["centroid_x"] == measured["centroid_y"] == 0.5


def test_empty_batch_gives_empty_columns():
    assert all(values.shape == (0,) for values in describe([]).values())


@pytest.mark.parametrize(
    "images",
    [
        [np.zeros((4, 4), np.float32)],
        [np.zeros((4, 4, 2), np.uint8)],
        [np.zeros((0, 4), np.uint8)],
        [np.zeros(4, np.uint8)],
    ],
)
def test_refuses_what_is_not_an_image(images):
    with pytest.raises(ValueError, match="received"):
        describe(images)


def test_refuses_a_single_image_given_as_a_batch():
    with pytest.raises(ValueError, match="list of one"):
        describe(np.zeros((4, 4), np.uint8))


@pytest.fixture(scope="module")
def real(shared):
    """Descriptors of all real slices, with class and subject of each."""
    files = sorted((shared / "data" / "oasis140").glob("*/*.jpg"))
    images = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
    classes = np.array([file.parent.name for file in files])
    subjects = np.array([file.name.split("_")[0] for file in files])
    return describe(images), images, classes, subjects


def subject_means(values, classes, subjects):
    _, first, subject = np.unique(subjects, return_index=True, return_inverse=True)
    return np.bincount(subject, values) / np.bincount(subject), classes[first]


def auc(positive, negative):
    """Mann–Whitney: the chance that a positive scores above a negative."""
    return np.mean(positive[:, None] > negative) + np.mean(positive[:, None] == negative) / 2


# Subject means (NonDemented, VeryMild, Mild) and AUC for CDR 0 against the rest, measured on 200
# subjects by another implementation; 140 of them are at hand.
ANATOMY = {
    "csf_fraction": ((0.217, 0.262, 0.294), 0.768),
    "ventricle_fraction": ((0.063, 0.084, 0.101), 0.733),
    "sulcal_csf_fraction": ((0.152, 0.177, 0.192), 0.757),
}


@pytest.mark.parametrize("name", ANATOMY)
def test_anatomy_of_the_real_slices(real, name):
    described, _, classes, subjects = real
    means, labels = subject_means(described[name], classes, subjects)
    expected, expected_auc = ANATOMY[name]
    stages = ("NonDemented", "VeryMildDemented", "MildDemented")
    for label, value in zip(stages, expected, strict=True):
        assert means[labels == label].mean() == pytest.approx(value, abs=0.006)
    healthy = labels == "NonDemented"
    assert auc(means[~healthy], means[healthy]) == pytest.approx(expected_auc, abs=0.02)


def test_csf_of_real_slices_is_the_same_at_half_resolution(real):
    described, images, _, _ = real
    chosen = slice(0, None, 40)
    half = images[chosen].reshape(-1, 64, 2, 64, 2).mean((2, 4)).round().astype(np.uint8)
    np.testing.assert_allclose(
        describe(half)["csf_fraction"], described["csf_fraction"][chosen], atol=0.005
    )


def test_taper_tells_up_from_down(real):
    described, images, _, _ = real
    assert np.mean(described["taper"] > 0) > 0.99
    assert np.mean(describe(images[::10, ::-1])["taper"] < 0) > 0.99
