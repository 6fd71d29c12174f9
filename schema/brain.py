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

GRID = 64  # side of the common grid; CSF fractions of real slices are the same at 64 and at 128
LEVELS = 256

BRIGHT_QUANTILE = 0.98  # of the frame: bright tissue whatever the share of background
HULL_LEVEL = 0.12  # of bright: above JPEG ringing in the background, below sulcal CSF
WHITE_QUANTILE = 0.90  # of the hull: white matter, spared by a few saturated vessels
CSF_LEVEL = 0.435  # of white matter
CENTRE_WIDTH, CENTRE_HEIGHT = 0.55, 0.60  # of the hull's half-axes: where ventricles lie


class Anatomy(NamedTuple):
    """Masks and reference intensity of N slices on the common grid.

    Attributes:
        hull: bool[N, GRID, GRID], the brain with its sulci and ventricles filled in.
        box: float32[N, 4], top, bottom, left, right of the hull in grid pixels; zeros if empty.
        histogram: int64[N, 256], grey levels inside the hull.
        white: float32[N], white-matter intensity in grey levels; 0 where the hull is empty.
        csf: bool[N, GRID, GRID], fluid inside the hull.
        ventricles: bool[N, GRID, GRID], compact central part of `csf`.
    """

    hull: np.ndarray
    box: np.ndarray
    histogram: np.ndarray
    white: np.ndarray
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
    levels = images.astype(np.float32)
    rows = levels if width == GRID else levels.reshape(-1, width) @ _weights(width).T
    rows = rows.reshape(count, height, GRID)
    return rows if height == GRID else _weights(height) @ rows


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
    levels = (grid + 0.5).astype(np.uint8)  # 255.5 at most
    bright = quantile(histogram(levels), BRIGHT_QUANTILE)
    hull = _fill(grid > (HULL_LEVEL * bright)[:, None, None])
    inside = histogram(levels, hull)
    white = quantile(inside, WHITE_QUANTILE)
    csf = hull & (grid < (CSF_LEVEL * white)[:, None, None])
    box = _bounding_box(hull)
    return Anatomy(hull, box, inside, white, csf, _opened(csf) & _centre(box))


def histogram(levels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Counts grey levels of each image.

    Args:
        levels: uint8[N, H, W].
        mask: bool[N, H, W], where to count; everywhere when None.

    Returns:
        int64[N, 256].
    """
    count = len(levels)
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
    whole = cumulative[:, -1:]
    return [(cumulative >= np.ceil(share * whole)).argmax(1).astype(np.float32) for share in shares]


def _fill(mask: np.ndarray) -> np.ndarray:
    """Adds what lies between the first and the last pixel of both its row and its column."""
    columns = np.ascontiguousarray(mask.swapaxes(1, 2))
    return _between(mask) & _between(columns).swapaxes(1, 2)


def _between(mask: np.ndarray) -> np.ndarray:
    """What lies between the first and the last pixel of each line along the last axis."""
    size = mask.shape[2]  # at most 255, so that places are bytes
    first = mask.argmax(2).astype(np.uint8)[:, :, None]
    last = (size - 1 - mask[:, :, ::-1].argmax(2)).astype(np.uint8)[:, :, None]
    places = np.arange(size, dtype=np.uint8)
    # A line without pixels has its first at 0 and its last at the end.
    return (places >= first) & (places <= last) & mask.any(2)[:, :, None]


def _opened(mask: np.ndarray) -> np.ndarray:
    """Removes what is thinner than two grid pixels: fissures between the ventricles' horns."""
    core = mask[:, 1:, 1:] & mask[:, :-1, 1:] & mask[:, 1:, :-1] & mask[:, :-1, :-1]
    opened = np.zeros_like(mask)
    for rows in (slice(1, None), slice(None, -1)):
        for columns in (slice(1, None), slice(None, -1)):
            opened[:, rows, columns] |= core
    return opened


def _bounding_box(mask: np.ndarray) -> np.ndarray:
    box = np.zeros((len(mask), 4), np.float32)
    for first, profile in ((0, mask.any(2)), (2, mask.any(1))):
        box[:, first] = profile.argmax(1)
        box[:, first + 1] = profile.shape[1] - profile[:, ::-1].argmax(1)
    return box * mask.any((1, 2))[:, None]


def _centre(box: np.ndarray) -> np.ndarray:
    """Ellipse around the middle of the hull: bool[N, GRID, GRID]."""
    pixels = np.arange(GRID, dtype=np.float32) + 0.5

    def squared(low: np.ndarray, high: np.ndarray, share: float) -> np.ndarray:
        half = np.maximum(high - low, 1) / 2 * share
        return ((pixels - ((low + high) / 2)[:, None]) / half[:, None]) ** 2

    top, bottom, left, right = box.T
    vertical = squared(top, bottom, CENTRE_HEIGHT)[:, :, None]
    horizontal = squared(left, right, CENTRE_WIDTH)[:, None, :]
    return vertical + horizontal < 1
