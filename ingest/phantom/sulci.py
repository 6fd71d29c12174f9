"""Sulci: ridges of noise in polar coordinates of the cortex, and the great fissures.

A sulcus runs inwards from the surface, so the noise is smooth over 7 pixels of depth but over only
4 degrees of angle; it lies where that noise crosses zero. The noise is tabulated per slice over
angle and depth and read off at the pixels near the surface, the only ones computed at all.
"""

from typing import NamedTuple

import numpy as np

from ingest.phantom.fields import Axis, SmoothField, draw_field
from ingest.phantom.geometry import PIXEL, Hull, Part, Stack, highest, partial_volume

DEEPEST = 30.0  # 128-pixel-slice pixels: beyond it the potential never reaches the threshold
ANGLES, DEPTHS = 240, 48  # cells of the table: 1.5 degrees by 1 pixel, linear in between
EDGE_SLOPE = 0.21  # of the potential, per pixel of a 128-pixel slice
GAP = 2.0  # 128-pixel-slice pixels of tissue between a ventricle and the nearest sulcus


def carve_sulci(
    frame: Hull,
    ventricles: np.ndarray,
    fraction: np.ndarray,
    rng: np.random.Generator,
    stack: Stack,
) -> Part:
    """Fluid between the folds of the cortex.

    Args:
        frame: the hull.
        ventricles: bool[Z, h, w] in the frame's window, kept clear of.
        fraction: float64[Z], sulci / hull area to be met in each slice.
        rng: the folding.
        stack: where to sample.

    Returns:
        The structure in the frame's window.
    """
    folds = [
        SmoothField(
            rng, Axis(0, 31, 2.8), Axis(0, 360, degrees, periodic=True), Axis(0, DEPTHS - 1, depth)
        )
        for degrees, depth in ((4.2, 7.0), (7.0, 3.2))
    ]
    reach, bend = draw_field(rng, 3, 9), draw_field(rng, 3, 6)

    near = frame.mask & (frame.depth < DEEPEST) & ~widen(ventricles, round(GAP * stack.zoom))
    rows = np.flatnonzero(near)
    slice_ends = np.cumsum(near.sum((1, 2)))
    x, y, depth = frame.x.ravel()[rows], frame.y.ravel()[rows], frame.depth.ravel()[rows]
    t = np.repeat(stack.t.ravel(), np.diff(slice_ends, prepend=0))
    places = stack.positions, PIXEL * frame.window.y, PIXEL * frame.window.x

    cells = _cells(
        x, y, depth, np.repeat(np.arange(len(slice_ends)), np.diff(slice_ends, prepend=0))
    )
    along, across = (_read(field, stack, cells) for field in folds)
    potential = -np.minimum(np.abs(along), 0.35 + 1.3 * np.abs(across))
    inward = np.clip((depth - 9 - 2.4 * reach.on(*places).ravel()[rows]) / 9, 0, 3)
    potential -= 0.55 * inward * np.sqrt(inward)
    potential += 0.18 * np.exp(-((depth / 1.6) ** 2))
    potential += _midline_fissure(x + 0.012 * bend.on(*places).ravel()[rows], y, depth)
    potential += _sylvian_fissure(x, y, t)

    part = Part(np.zeros(frame.mask.shape, bool), np.zeros(frame.mask.shape, np.float32))
    wanted = np.rint(fraction * frame.area).astype(int)
    for start, end, count in zip([0, *slice_ends], slice_ends, wanted, strict=False):
        height = potential[start:end] - highest(potential[start:end], count)
        part.mask.ravel()[rows[start:end]] = height >= 0
        part.share.ravel()[rows[start:end]] = partial_volume(height, EDGE_SLOPE, stack)
    return part


def widen(mask: np.ndarray, steps: int) -> np.ndarray:
    """Grows a mask in its slices by some pixels along rows and columns.

    Args:
        mask: bool[Z, h, w].
        steps: how often each pixel takes its four neighbours in.
    """
    for _ in range(steps):
        grown = mask.copy()
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        grown[:, :, 1:] |= mask[:, :, :-1]
        grown[:, :, :-1] |= mask[:, :, 1:]
        mask = grown
    return mask


class _Cells(NamedTuple):
    """Corners in the flattened table around each of N points, and their shares of it."""

    corners: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    angle_share: np.ndarray
    depth_share: np.ndarray


def _cells(x: np.ndarray, y: np.ndarray, depth: np.ndarray, slices: np.ndarray) -> _Cells:
    angle = np.arctan2(y, x) * (ANGLES / (2 * np.pi)) + ANGLES / 2
    low_angle = np.minimum(angle.astype(np.int64), ANGLES - 1)
    depth = np.clip(depth, 0, DEPTHS - 1.001)
    low_depth = depth.astype(np.int64)
    next_angle = np.where(low_angle == ANGLES - 1, 1 - ANGLES, 1) * DEPTHS
    base = (slices * ANGLES + low_angle) * DEPTHS + low_depth
    corners = base, base + 1, base + next_angle, base + next_angle + 1
    return _Cells(corners, angle - low_angle, depth - low_depth)


def _read(field: SmoothField, stack: Stack, cells: _Cells) -> np.ndarray:
    """Reads a field over (slice, degrees, depth) at the points: bilinear, float64[N]."""
    degrees = np.arange(ANGLES) * (360 / ANGLES)
    table = field.on(stack.positions, degrees, np.arange(DEPTHS)).ravel()
    near, deeper, turned, opposite = (table[corner] for corner in cells.corners)
    near += (deeper - near) * cells.depth_share
    turned += (opposite - turned) * cells.depth_share
    return near + (turned - near) * cells.angle_share


def _midline_fissure(x: np.ndarray, y: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The cleft between the hemispheres, in front and at the back."""
    present = ((y < -0.34) | (y > 0.42)) & (np.abs(x) < 0.08) & (depth < 26)
    cleft = np.zeros(x.shape)
    x, depth = x[present], depth[present]
    cleft[present] = 1.6 * np.exp(-((x / 0.016) ** 2)) * np.clip((26 - depth) / 10, 0, 1)
    return cleft


def _sylvian_fissure(x: np.ndarray, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The clefts above the temporal lobes, in the lower half of the stack."""
    outward = np.abs(x) - 0.50
    present = (np.abs(y) < 0.30) & (np.abs(outward) < 0.40) & (t < 0.95)
    cleft = np.zeros(x.shape)
    outward, y, t = outward[present], y[present], t[present]
    line = (outward / 0.13) ** 2 + ((y + 0.05 - 0.25 * outward) / 0.035) ** 2
    cleft[present] = 1.1 * np.exp(-line) / (1 + np.exp((t - 0.55) / 0.08))
    return cleft
