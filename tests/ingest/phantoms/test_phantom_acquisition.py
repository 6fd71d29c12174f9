import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ingest.phantom import PhantomSpec, render_subject
from ingest.phantom.acquisition import SITES, Pose, Scanner, blur
from ingest.phantom.subject import MASKS


def scanner(site=0, size=64, seed=0) -> Scanner:
    return Scanner(SITES[site], np.random.default_rng(seed), size)


def streams(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(number) for number in range(count)]


@pytest.mark.parametrize("sigma", [0.35, 0.75, 2.4])
def test_blur_is_a_gaussian_filter(sigma):
    images = np.zeros((2, 64, 64), np.float32)
    images[:, 20:40, 25:45] = np.random.default_rng(0).random((2, 20, 20))
    expected = ndimage.gaussian_filter(images, (0, sigma, sigma), mode="constant", truncate=6)
    np.testing.assert_allclose(blur(images, sigma), expected, atol=2e-3)
    assert blur(images, sigma).sum() == pytest.approx(images.sum(), rel=1e-4)


def test_pose_moves_as_an_affine_transform_does():
    image = blur(np.random.default_rng(0).random((1, 64, 64)).astype(np.float32), 1.5)
    pose = Pose(64, np.deg2rad(5), np.array([2.0, -1.0]), 1.02)
    cosine, sine = np.cos(pose.angle), np.sin(pose.angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) / pose.scale
    centre = np.array([31.5, 31.5])
    offset = centre - matrix @ (centre + pose.shift)
    expected = ndimage.affine_transform(image[0], matrix, offset, order=1)
    inner = np.s_[10:-10, 10:-10]
    np.testing.assert_allclose(pose.move(image)[0][inner], expected[inner], atol=1e-4)


def test_no_pose_leaves_masks_alone():
    masks = np.random.default_rng(0).random((3, 64, 64)) < 0.5
    np.testing.assert_array_equal(Pose(64, 0.0, np.zeros(2), 1.0).move_mask(masks), masks)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_noise_is_rician_at_the_site_s_level(size):
    machine = scanner(size=size)
    machine.bias = np.ones((size, size))
    tissue = np.ones((1, size, size), np.float32)
    inner = np.s_[0, size // 4 : -size // 4, size // 4 : -size // 4]
    level = machine.scan(tissue, streams(1))[inner] / (232 * machine.gain)
    assert level.mean() == pytest.approx(1, abs=0.01)
    assert level.std() * machine.gain == pytest.approx(0.020 * min(size / 128, 1), rel=0.15)


def test_outside_is_black_before_encoding():
    machine = scanner()
    tissue = np.zeros((1, 64, 64), np.float32)
    tissue[:, 24:40, 24:40] = 0.9
    image = machine.scan(tissue, streams(1))
    assert image[:, :15].max() == 0
    assert image[:, 30:34, 30:34].min() > 100


def test_the_blur_zooms_with_the_image():
    assert scanner(size=128).point_spread == pytest.approx(2 * scanner(size=64).point_spread)


def test_each_site_encodes_at_its_own_quality():
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64), np.uint8)
    sizes = [len(scanner(site).encode(image)[0]) for site in range(3)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_site_moves_the_picture_away_from_the_reference():
    """The severe site is darker, noisier and blurrier; the mild one lies between."""
    medians = []
    for site in range(3):
        spec = PhantomSpec(subjects=(6, 0, 0, 0), site=site)
        grey = [
            np.median(subject.images[subject.masks["hull"]])
            for subject in (render_subject(spec, index) for index in range(6))
        ]
        medians.append(np.median(grey))
    assert medians[0] > medians[1] > medians[2]


def test_one_person_at_two_sites_has_the_same_brain():
    here, there = (
        render_subject(PhantomSpec(subjects=(1, 0, 0, 0), site=site, size=128), 0)
        for site in (0, 2)
    )
    assert here.latents == there.latents
    np.testing.assert_array_equal(here.vbr, there.vbr)
    assert (here.images != there.images).any()


def test_files_are_grey_jpeg_and_decode_to_the_images():
    subject = render_subject(PhantomSpec(subjects=(1, 0, 0, 0), slices=3), 0)
    for data, image in zip(subject.encoded, subject.images, strict=True):
        with Image.open(io.BytesIO(data)) as file:
            assert (file.format, file.mode, file.size) == ("JPEG", "L", (64, 64))
            np.testing.assert_array_equal(np.asarray(file), image)


def test_masks_lie_on_what_they_name():
    spec = PhantomSpec(subjects=(0, 0, 0, 6), size=128, site=2)
    for index in range(6):
        subject = render_subject(spec, index)
        images, masks = subject.images.astype(float), subject.masks
        assert set(masks) == set(MASKS)
        tissue = masks["hull"] & ~(masks["ventricles"] | masks["sulci"])
        assert images[masks["ventricles"]].mean() < 0.5 * images[tissue].mean()
        assert images[masks["sulci"]].mean() < 0.7 * images[tissue].mean()
        assert images[~ndimage.binary_dilation(masks["hull"], np.ones((1, 9, 9)))].max() < 30
        assert sum(masks[name].astype(int) for name in MASKS[1:]).max() == 1
