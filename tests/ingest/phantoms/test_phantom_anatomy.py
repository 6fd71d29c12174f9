import numpy as np
import pytest
from scipy import ndimage

from ingest.phantom.anatomy import build_anatomy
from ingest.phantom.geometry import PIXEL, Stack, ellipse, highest, partial_volume
from ingest.phantom.latents import Latents
from ingest.phantom.sulci import widen
from ingest.phantom.tissue import FLUID, GREY, WHITE, cortex, distance_squared, paint

LATENTS = Latents(vbr=0.08, sulci=0.17, hippocampus=0.9, thickness=2.4)


def build(size=64, slices=8, latents=LATENTS, seed=0):
    stack = Stack(np.round(np.linspace(0, 31, slices)), size)
    return build_anatomy(latents, np.random.default_rng(seed), stack), stack


@pytest.mark.parametrize("size", [64, 128, 224])
def test_areas_are_met_to_the_pixel_in_every_slice(size):
    anatomy, _ = build(size)
    area = anatomy.hull.mask.sum((1, 2))
    for part, fraction in ((anatomy.ventricles, anatomy.vbr), (anatomy.sulci, anatomy.sulcal)):
        np.testing.assert_array_equal(part.mask.sum((1, 2)), np.rint(fraction * area))


def test_parts_are_disjoint_and_inside():
    anatomy, _ = build(128)
    parts = anatomy.ventricles.mask, anatomy.sulci.mask, anatomy.hippocampus.mask
    assert sum(part.astype(int) for part in parts).max() == 1
    for part in parts:
        assert not (part & ~anatomy.hull.mask).any()


def test_the_mask_is_where_a_pixel_is_at_least_half_full():
    anatomy, _ = build(128)
    for part in (anatomy.ventricles, anatomy.sulci):
        assert part.share[part.mask].min() >= 0.5
        assert part.share[~part.mask].max() < 0.5


def test_the_hippocampus_is_in_the_lowest_slices_only_and_grows_with_its_factor():
    anatomy, stack = build(128, 32)
    present = anatomy.hippocampus.mask.any((1, 2))
    assert present[0]
    assert not present[stack.t.ravel() >= 0.30].any()
    small, _ = build(128, 32, LATENTS._replace(hippocampus=0.6))
    ratio = small.hippocampus.mask.sum() / anatomy.hippocampus.mask.sum()
    assert ratio == pytest.approx(0.6 / 0.9, abs=0.1)


def test_fewer_slices_are_slices_of_the_same_brain():
    few, _ = build(64, 8)
    all_slices, _ = build(64, 32)
    chosen = np.round(np.linspace(0, 31, 8)).astype(int)
    np.testing.assert_array_equal(few.ventricles.mask, all_slices.ventricles.mask[chosen])
    np.testing.assert_array_equal(few.sulci.mask, all_slices.sulci.mask[chosen])


def test_a_small_image_is_the_same_brain_reduced():
    latents = LATENTS._replace(vbr=0.12)
    small, _ = build(64, 4, latents)
    large, _ = build(128, 4, latents)
    reduced = np.zeros((4, 128, 128))
    reduced[large.hull.window.block] = large.ventricles.mask
    reduced = reduced.reshape(4, 64, 2, 64, 2).mean((2, 4)) >= 0.5
    whole = np.zeros((4, 64, 64), bool)
    whole[small.hull.window.block] = small.ventricles.mask
    dice = 2 * (whole & reduced).sum() / (whole.sum() + reduced.sum())
    assert dice > 0.9


def test_the_hull_never_leaves_its_window():
    for seed in range(10):
        mask = build(64, 8, seed=seed)[0].hull.mask
        edges = mask[:, [0, -1]].any(), mask[:, :, [0, -1]].any()
        assert edges == (False, False)


def test_brains_have_nearly_one_area():
    areas = np.array([build(64, 8, seed=seed)[0].hull.mask.sum() for seed in range(30)])
    assert areas.std() / areas.mean() < 0.015


def test_depth_is_the_distance_to_the_surface():
    hull = build(128, 4)[0].hull
    for mask, depth in zip(hull.mask, hull.depth, strict=True):
        exact = ndimage.distance_transform_edt(mask)
        near = mask & (exact < 20)
        assert np.abs(depth - exact)[near].mean() < 1.0


def test_ellipse_is_one_at_the_centre_and_zero_on_the_outline():
    point = np.array([0.3, 0.3 + 0.2 * np.cos(0.5)]), np.array([0.1, 0.1 + 0.2 * np.sin(0.5)])
    np.testing.assert_allclose(ellipse(point, (0.3, 0.1), (0.2, 0.4), 0.5), [1, 0], atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_highest_leaves_exactly_that_many(count):
    values = np.random.default_rng(0).permutation(100).astype(float)
    assert (values >= highest(values, count)).sum() == count


def test_partial_volume_spans_one_pixel():
    stack = Stack(np.zeros(1), 64)
    share = partial_volume(np.array([-1.0, -0.1, 0.0, 0.1, 1.0]), 0.2, stack)
    np.testing.assert_allclose(share, [0, 0.25, 0.5, 0.75, 1])


def test_widen_takes_in_neighbours_in_the_plane():
    mask = np.zeros((3, 9, 9), bool)
    mask[1, 4, 4] = True
    assert widen(mask, 2)[1].sum() == 13
    assert not widen(mask, 2)[[0, 2]].any()


@pytest.mark.parametrize("reach", [3, 11, 14])
def test_distances_are_euclidean_up_to_the_reach(reach):
    seeds = np.random.default_rng(0).random((3, 40, 50)) < 0.004
    seeds[2] = False
    squared = distance_squared(seeds, reach)
    for found, seed in zip(squared[:2], seeds, strict=False):
        exact = ndimage.distance_transform_edt(~seed) ** 2
        near = exact <= reach**2
        np.testing.assert_allclose(found[near], exact[near])
        assert (found[~near] >= reach**2).all()
    assert (squared[2] >= reach**2).all()


def test_thicker_cortex_has_more_grey_matter_at_every_size():
    shares = []
    for size in (64, 128, 224):
        seeds = np.zeros((1, size, size), bool)
        seeds[:, : size // 2] = True
        thin, thick = (cortex(seeds, mm, size / 128).mean() * 128 for mm in (2.0, 2.6))
        assert thick > thin
        shares.append(thick)
    # The same millimetres at every size, within half a pixel of the smallest.
    assert max(shares) - min(shares) < 1.0


def test_tissues_have_their_brightness():
    anatomy, stack = build(128)
    image = paint(anatomy, LATENTS, np.random.default_rng(0), stack)
    whole = np.zeros(image.shape, bool)
    whole[anatomy.hull.window.block] = anatomy.ventricles.share == 1
    assert image[whole] == pytest.approx(FLUID, abs=1e-6)
    brightest = np.percentile(image[image > 0], 90)
    assert brightest == pytest.approx(WHITE, abs=0.04)
    assert brightest > GREY
    assert image[:, 0].max() == 0


def test_units_of_depth_are_pixels_of_128():
    assert PIXEL * 2 == 128
    assert Stack(np.zeros(1), 64).zoom == 0.5
