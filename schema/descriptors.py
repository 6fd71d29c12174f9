"""Image descriptors: twenty-two numbers that say what a slice looks like, without its pixels.

Statistics, drift checks, the out-of-distribution gate and the total-CSF baseline read these instead
of bytes. They are measured on a common grid (see brain.py), so they do not depend on resolution.
Every value is finite for every image: a black slice has an empty brain, and zero where a share of
nothing would be asked for.
"""

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from schema import bitmasks, brain
from schema.brain import GRID

PIXELS_AT_ONCE = 1_000_000  # float32 working arrays of 4 MB at most: they stay in the cache


class Descriptor(NamedTuple):
    """A name in `describe`'s answer, its unit, and what it means."""

    name: str
    unit: str
    meaning: str


DESCRIPTORS = (
    Descriptor("corner_intensity", "share of 255", "mean of the four corners: background"),
    Descriptor("foreground_fraction", "share of frame", "area of the brain hull"),
    Descriptor("centroid_x", "share of width", "centre of the hull; .5 when empty"),
    Descriptor("centroid_y", "share of height", "centre of the hull; .5 when empty"),
    Descriptor("bbox_height", "share of height", "extent of the hull"),
    Descriptor("bbox_width", "share of width", "extent of the hull"),
    Descriptor("taper", "share of hull", "upper minus lower half area: > 0 upright"),
    Descriptor("symmetry_left_right", "correlation", "image against its left-right mirror"),
    Descriptor("symmetry_up_down", "correlation", "image against its up-down mirror"),
    Descriptor("brain_q05", "share of 255", "5 % quantile inside the hull"),
    Descriptor("brain_q50", "share of 255", "median inside the hull"),
    Descriptor("brain_q95", "share of 255", "95 % quantile inside the hull"),
    Descriptor("white_matter", "share of 255", "90 % quantile inside the hull: the gain"),
    Descriptor("mean", "share of 255", "mean of the frame"),
    Descriptor("std", "share of 255", "standard deviation of the frame"),
    Descriptor("high_frequency_energy", "white matter", "rms noise-like residual in the hull"),
    Descriptor("gradient_energy", "white matter / pixel", "rms gradient in the hull"),
    Descriptor("centre_brightness", "white matter", "mean of the central sixteenth"),
    Descriptor("entropy", "bits", "of the hull's grey levels in 64 bins: 0 to 6"),
    Descriptor("csf_fraction", "share of hull", "all CSF: ventricles and sulci"),
    Descriptor("ventricle_fraction", "share of hull", "ventricle-to-brain ratio (VBR)"),
    Descriptor("sulcal_csf_fraction", "share of hull", "CSF outside the ventricles"),
)
NAMES = tuple(descriptor.name for descriptor in DESCRIPTORS)


def decode(encoded: bytes) -> np.ndarray:
    """Decodes one PNG or JPEG to the grey values, uint8[H, W], that are described.

    Raises:
        OSError: the bytes are neither, or are damaged.
    """
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("L"))


class Measured(NamedTuple):
    """Descriptors of N images, and the common grid on which they were measured.

    Attributes:
        descriptors: name → float32[N], in the order of `DESCRIPTORS`, all finite.
        grids: float32[N, GRID, GRID] in [0, 255] (`schema.brain.to_grid`).
    """

    descriptors: dict[str, np.ndarray]
    grids: np.ndarray


def describe(images: np.ndarray | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Measures every descriptor of every image.

    Args:
        images: uint8[N, H, W] or uint8[N, H, W, 1 or 3]; or a list of uint8[H, W] or
            uint8[H, W, 1 or 3] of differing sizes. Colour channels are averaged.

    Returns:
        Name → float32[N], in the order of `DESCRIPTORS`, all finite. N may be 0.

    Raises:
        ValueError: an image is not uint8, has no pixels, or has another number of axes.
    """
    columns = np.zeros((len(NAMES), len(images)), np.float32)
    for chosen, grid in _grids(images):
        columns[:, chosen] = _describe(grid)
    return dict(zip(NAMES, columns, strict=True))


def measure(images: np.ndarray | Sequence[np.ndarray]) -> Measured:
    """As `describe`, for who also wants the grids: 16 KiB an image.

    Raises:
        ValueError: as `describe`.
    """
    columns = np.zeros((len(NAMES), len(images)), np.float32)
    grids = np.zeros((len(images), GRID, GRID), np.float32)
    for chosen, grid in _grids(images):
        if len(chosen) == len(images):
            return Measured(dict(zip(NAMES, _describe(grid), strict=True)), grid)
        columns[:, chosen] = _describe(grid)
        grids[chosen] = grid
    return Measured(dict(zip(NAMES, columns, strict=True)), grids)


def _grids(
    images: np.ndarray | Sequence[np.ndarray],
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yields positions and grids, float32[n, GRID, GRID], of images of one size at a time."""
    if isinstance(images, np.ndarray) and images.ndim not in (3, 4):
        raise ValueError(
            f"A batch has the axes [N, H, W] or [N, H, W, C] (received shape {images.shape}). "
            "Pass one image as a list of one."
        )
    shapes: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        _check(image)
        shapes.setdefault(image.shape, []).append(position)
    for shape, positions in shapes.items():
        step = max(1, PIXELS_AT_ONCE // max(shape[0] * shape[1], GRID * GRID))
        for start in range(0, len(positions), step):
            chosen = positions[start : start + step]
            batch = np.stack([images[position] for position in chosen])
            yield chosen, brain.to_grid(_grey(batch))


def _check(image: np.ndarray) -> None:
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 3))
    if image.dtype != np.uint8 or not shaped or not image.size:
        raise ValueError(
            "An image must be uint8[H, W] or uint8[H, W, 1 or 3] with at least one pixel "
            f"(received {image.dtype}{list(image.shape)}). Decode it to 8-bit grey first."
        )


def _grey(batch: np.ndarray) -> np.ndarray:
    return batch if batch.ndim == 3 else batch.mean(-1, dtype=np.float32)


def _describe(grid: np.ndarray) -> np.ndarray:
    """float32[N, GRID, GRID] → float32[len(DESCRIPTORS), N], in the order of `DESCRIPTORS`."""
    anatomy = brain.segment(grid)
    white = _divisor(anatomy.white)
    measured = {
        **_geometry(anatomy),
        **_intensities(grid, anatomy, white),
        **_texture(grid, anatomy, white),
        **_symmetry(grid),
    }
    return np.array([measured[name] for name in NAMES], np.float32)


_PIXELS = np.arange(GRID, dtype=np.float32) + np.float32(0.5)
# float32[GRID, 2]: pixels of a row, and the sum of their places.
_MOMENTS = np.stack([np.ones_like(_PIXELS), _PIXELS], 1)


def _geometry(anatomy: brain.Anatomy) -> dict[str, np.ndarray]:
    moments = anatomy.hull.astype(np.float32) @ _MOMENTS
    rows = moments[:, :, 0]
    area, across = np.add.reduce(moments, axis=1).T
    top, bottom, left, right = anatomy.box.T
    # A pixel row cut by the middle counts for the parts on its two sides, so that the value does
    # not jump when the hull grows by one row.
    side = np.minimum(np.maximum(2 * (((top + bottom) / 2)[:, None] - _PIXELS), -1), 1)
    whole = _divisor(area)
    middle = 0.5 * (area == 0)
    csf = bitmasks.area(anatomy.csf) / whole
    ventricles = bitmasks.area(anatomy.ventricles) / whole
    return {
        "foreground_fraction": area / GRID**2,
        "centroid_x": across / (whole * GRID) + middle,
        "centroid_y": rows @ _PIXELS / (whole * GRID) + middle,
        "bbox_height": (bottom - top) / GRID,
        "bbox_width": (right - left) / GRID,
        "taper": _products(rows, side) / whole,
        "csf_fraction": csf,
        "ventricle_fraction": ventricles,
        "sulcal_csf_fraction": csf - ventricles,
    }


def _intensities(
    grid: np.ndarray, anatomy: brain.Anatomy, white: np.ndarray
) -> dict[str, np.ndarray]:
    edge = GRID // 8
    rows = grid[:, :edge] + grid[:, -edge:]
    corners = rows[:, :, :edge] + rows[:, :, -edge:]
    middle = slice(GRID // 2 - edge, GRID // 2 + edge)
    centre = np.add.reduce(grid[:, middle, middle], axis=(1, 2)) / (4 * edge**2)
    low, median, high = anatomy.spread
    return {
        "brain_q05": low / 255,
        "brain_q50": median / 255,
        "brain_q95": high / 255,
        "corner_intensity": np.add.reduce(corners, axis=(1, 2)) / (4 * edge**2 * 255),
        "white_matter": anatomy.white / 255,
        "centre_brightness": centre / white,
    }


def _texture(grid: np.ndarray, anatomy: brain.Anatomy, white: np.ndarray) -> dict[str, np.ndarray]:
    eroded = bitmasks.eroded(anatomy.lines)
    count = _divisor(bitmasks.area(eroded))
    # Rows one behind another: differences that run over the end of a row lie outside of `interior`.
    flat = grid.reshape(len(grid), GRID * GRID)
    inner = slice(GRID + 1, -GRID - 1)
    interior = bitmasks.unpack(eroded).reshape(flat.shape)[:, inner].astype(np.float32)
    # Second difference along both axes: blind to edges and planes, and of variance 36 sigma² for
    # white noise (Immerkær 1996, Computer Vision and Image Understanding 64:300).
    second = flat[:, 2 * GRID :] - 2 * flat[:, GRID:-GRID]
    second += flat[:, : -2 * GRID]
    residual = second[:, 2:] - 2 * second[:, 1:-1]
    residual += second[:, :-2]
    residual *= interior
    vertical = flat[:, 2 * GRID + 1 : -1] - flat[:, 1 : -2 * GRID - 1]
    horizontal = flat[:, GRID + 2 : -GRID] - flat[:, GRID : -GRID - 2]
    vertical *= vertical
    horizontal *= horizontal
    vertical += horizontal
    noise = _products(residual, residual) / (36 * count)
    slope = _products(vertical, interior) / (4 * count)  # differences over two pixels
    share = np.add.reduce(anatomy.histogram.reshape(-1, 64, 4), axis=2)
    share = share / _divisor(np.add.reduce(share, axis=1, keepdims=True))
    logarithm = np.log2(np.where(share > 0, share, 1))
    return {
        "high_frequency_energy": np.sqrt(noise) / white,
        "gradient_energy": np.sqrt(slope) / white,
        "entropy": -_products(share, logarithm),
    }


def _symmetry(grid: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, deviation, and Pearson correlation with the mirrors; 1 for a constant image."""
    flat = grid.reshape(len(grid), GRID * GRID)
    mean = np.add.reduce(flat, axis=1) / GRID**2
    flat = flat - mean[:, None]
    centred = flat.reshape(grid.shape)
    power = _products(flat, flat)
    across = _products(flat, centred[:, :, ::-1].reshape(flat.shape))
    down = _products(flat, centred[:, ::-1].reshape(flat.shape))
    whole, constant = _divisor(power), power == 0
    return {
        "mean": mean / 255,
        "std": np.sqrt(power / GRID**2) / 255,
        "symmetry_left_right": across / whole + constant,
        "symmetry_up_down": down / whole + constant,
    }


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of products along the last axis: [N, K] each → [N]."""
    return (a[:, None, :] @ b[:, :, None])[:, 0, 0]


def _divisor(values: np.ndarray) -> np.ndarray:
    """Infinity in place of 0, so that a share of nothing is 0. Values are ≥ 0."""
    return np.where(values > 0, values, np.inf)
