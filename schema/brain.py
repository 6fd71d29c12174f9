"""Anatomy by threshold: brain hull, white-matter intensity, CSF and ventricles of axial T1 slices.

Everything is measured on one common grid, so that a slice stored at 64, 128 or 176×208 pixels
gives the same numbers, and every threshold is relative to the slice's own white matter, so that
the scanner's gain cancels. The constants are calibrated on the public 4-class Alzheimer's set:
subject means of CSF / brain and ventricles / brain per class (measured values: README.md).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schema import bitmasks

# Side of the common grid, 64; CSF fractions of real slices are the same at 64 and at 128.
GRID = bitmasks.SIDE
LEVELS = 256

BRIGHT_QUANTILE = 0.98  # of the frame: bright tissue whatever the share of background
HULL_LEVEL = 0.12  # of bright: above JPEG ringing in the background, below sulcal CSF
WHITE_QUANTILE = 0.90  # of the hull: white matter, spared by a few saturated vessels
SPREAD = (0.05, 0.50, 0.95)  # of the hull
CSF_LEVEL = 0.435  # of white matter
CENTRE_WIDTH, CENTRE_HEIGHT = 0.55, 0.60  # of the hull's half-axes: where ventricles lie


class Anatomy(NamedTuple):
    """Masks and reference intensity of N slices on the common grid.

    Attributes:
        hull: bool[N, GRID, GRID], the brain with its sulci and ventricles filled in.
        lines: uint64[N, GRID], the same packed (`schema.bitmasks`).
        box: float32[N, 4], top, bottom, left, right of the hull in grid pixels; zeros if empty.
        histogram: int64[N, 256], grey levels inside the hull.
        white: float32[N], white-matter intensity in grey levels; 0 where the hull is empty.
        spread: three of float32[N], 5 %, 50 % and 95 % quantiles inside the hull, grey levels.
        csf: uint64[N, GRID], fluid inside the hull, packed.
        ventricles: uint64[N, GRID], compact central part of `csf`, packed.
    """

    hull: np.ndarray
    lines: np.ndarray
    box: np.ndarray
    histogram: np.ndarray
    white: np.ndarray
    spread: Sequence[np.ndarray]
    csf: np.ndarray
    ventricles: np.ndarray


def to_grid(images: np.ndarray) -> np.ndarray:
    """Resamples grey images to the common grid: area average down, linear interpolation up.

    Args:
        images: uint8[N, H, W].

    Returns:
        float32[N, GRID, GRID] in [0, 255], not rounded.
    """
    count, height, width = images.shape
    if images.dtype == np.uint8 and _halves(height) and _halves(width):
        return _halved(images)
    levels = images.astype(np.float32)
    rows = levels if width == GRID else levels.reshape(-1, width) @ _weights(width).T
    rows = rows.reshape(count, height, GRID)
    return rows if height == GRID else _weights(height) @ rows


def _halves(size: int) -> bool:
    return size in (GRID, 2 * GRID, 4 * GRID)


def _halved(images: np.ndarray) -> np.ndarray:
    """Area average by sums of neighbours, which are exact: 16 pixels of 255 at most."""
    sums = images
    while sums.shape[1] > GRID:
        sums = np.add(sums[:, ::2], sums[:, 1::2], dtype=np.uint16)
    while sums.shape[2] > GRID:
        sums = np.add(sums[:, :, ::2], sums[:, :, 1::2], dtype=np.uint16)
    share = GRID * GRID / (images.shape[1] * images.shape[2])
    return np.multiply(sums, np.float32(share), dtype=np.float32)


@functools.lru_cache(maxsize=64)
def _weights(size: int) -> np.ndarray:
    """Resampling matrix float32[GRID, size]; each row sums to one."""
    scale = size / GRID
    if scale >= 1:
        edges = np.arange(GRID + 1) * scale
        source = np.arange(size)
        overlap = np.minimum(edges[1:, None], source + 1) - np.maximum(edges[:-1, None], source)
        weights = np.clip(overlap, 0, None)
    else:
        centres = (np.arange(GRID) + 0.5) * scale - 0.5
        weights = np.clip(1 - np.abs(centres[:, None] - np.arange(size)), 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def segment(grid: np.ndarray) -> Anatomy:
    """Finds brain, white-matter level, CSF and ventricles.

    Args:
        grid: float32[N, GRID, GRID] in [0, 255], from `to_grid`.

    Returns:
        The anatomy of each slice; empty masks and zeros for a black one.
    """
    levels = (grid + np.float32(0.5)).astype(np.uint8)  # 255.5 at most
    bright = quantile(histogram(levels), BRIGHT_QUANTILE)
    bright *= HULL_LEVEL
    lines = bitmasks.filled(bitmasks.pack(grid > bright[:, None, None]))
    hull = bitmasks.unpack(lines).view(bool)
    inside = histogram(levels, hull)
    white, *spread = quantiles(inside, (WHITE_QUANTILE, *SPREAD))
    csf = bitmasks.pack(grid < (CSF_LEVEL * white)[:, None, None])
    csf &= lines
    box = _bounding_box(lines)
    ventricles = bitmasks.opened(csf)
    ventricles &= _centre(box)
    return Anatomy(hull, lines, box, inside, white, spread, csf, ventricles)


def histogram(levels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Counts grey levels of each image.

    Args:
        levels: uint8[N, H, W].
        mask: bool[N, H, W], where to count; everywhere when None.

    Returns:
        int64[N, 256].
    """
    count = len(levels)
    if count == 1:
        chosen = levels.ravel() if mask is None else levels[mask]
        return np.bincount(chosen, minlength=LEVELS)[None]
    keys = levels + (np.arange(count, dtype=np.int64) * LEVELS)[:, None, None]
    chosen = keys.ravel() if mask is None else keys[mask]
    return np.bincount(chosen, minlength=count * LEVELS).reshape(count, LEVELS)


def quantile(counts: np.ndarray, q: float) -> np.ndarray:
    """Finds the grey level at or below which a share `q` of the pixels lies.

    Args:
        counts: int64[N, 256] histograms.
        q: share in (0, 1].

    Returns:
        float32[N] in [0, 255]; 0 for an empty histogram.
    """
    return quantiles(counts, (q,))[0]


def quantiles(counts: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """As `quantile`, for several shares: float32[N] for each."""
    cumulative = counts.cumsum(1)
    wanted = np.ceil(cumulative[:, -1] * np.array(shares)[:, None])
    places = (cumulative >= wanted[:, :, None]).argmax(2)
    return list(places.astype(np.float32))


def _bounding_box(lines: np.ndarray) -> np.ndarray:
    profiles = np.empty((len(lines), 2, GRID), bool)
    np.not_equal(lines, 0, out=profiles[:, 0])
    columns = np.bitwise_or.reduce(lines, axis=1, keepdims=True)
    profiles[:, 1] = bitmasks.bits(columns)
    box = np.empty((len(lines), 2, 2), np.float32)
    box[:, :, 0] = profiles.argmax(2)
    box[:, :, 1] = GRID - profiles[:, :, ::-1].argmax(2)
    box *= columns[:, :, None] != 0
    return box.reshape(len(lines), 4)


_PIXELS = np.arange(GRID, dtype=np.float32) + np.float32(0.5)
_CENTRE = np.array([CENTRE_HEIGHT, CENTRE_WIDTH], np.float32)


def _centre(box: np.ndarray) -> np.ndarray:
    """Ellipse around the middle of the hull: uint64[N, GRID], packed."""
    sides = box.reshape(len(box), 2, 2)
    low, high = sides[:, :, 0], sides[:, :, 1]
    half = np.maximum(high - low, 1) / 2 * _CENTRE
    distance = (_PIXELS - ((low + high) / 2)[:, :, None]) / half[:, :, None]
    distance *= distance
    return bitmasks.pack(distance[:, 0, :, None] + distance[:, 1, None, :] < 1)
