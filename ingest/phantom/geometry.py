"""Where slices are sampled, and the few shapes that brains are built from.

Coordinates are those of the registered head: x to the right, y to the back, in units of half the
image's width, so that a length holds at every image size; `PIXEL` converts to depths, which are in
pixels of a 128-pixel slice. Height `t` runs from 0 (basal ganglia) to 1 (top of the stack).
"""

from typing import NamedTuple

import numpy as np

from ingest.phantom.spec import STACK

PIXEL = 64.0  # 128-pixel-slice pixels per unit of x and y


class Window(NamedTuple):
    """A block of the image: rows and columns, and the coordinates of their centres."""

    rows: slice
    columns: slice
    y: np.ndarray
    x: np.ndarray

    @property
    def block(self) -> tuple[slice, slice, slice]:
        """Index of the window in an array [Z, size, size]."""
        return (slice(None), self.rows, self.columns)


class Stack(NamedTuple):
    """Where the slices are sampled: their positions in [0, 31] and their size in pixels."""

    positions: np.ndarray
    size: int

    @property
    def t(self) -> np.ndarray:
        """Heights in [0, 1] as a column: float64[Z, 1, 1]."""
        return (self.positions / (STACK - 1))[:, None, None]

    @property
    def zoom(self) -> float:
        """Pixels per pixel of a 128-pixel slice."""
        return self.size / (2 * PIXEL)

    def window(self, y: tuple[float, float], x: tuple[float, float]) -> Window:
        """The smallest block of pixels whose centres cover the given ranges."""
        centres = (np.arange(self.size) - (self.size - 1) / 2) / (self.size / 2)
        rows, columns = (
            slice(*np.searchsorted(centres, [low, high], "left")) for low, high in (y, x)
        )
        return Window(rows, columns, centres[rows], centres[columns])


class Hull(NamedTuple):
    """The brain's outline and the warped coordinates of every pixel of its window.

    Attributes:
        window: where in the image the arrays lie.
        x, y: float64[Z, h, w], coordinates in the registered head after displacement.
        mask: bool[Z, h, w].
        depth: float64[Z, h, w], distance below the surface in 128-pixel-slice pixels.
        area: int64[Z], pixels of the mask.
    """

    window: Window
    x: np.ndarray
    y: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    area: np.ndarray

    def within(
        self, stack: Stack, y: tuple[float, float], x: tuple[float, float]
    ) -> tuple["Hull", tuple[slice, slice, slice]]:
        """The same, cut down to a smaller window, and the index of the cut in this one's arrays."""
        part = stack.window(y, x)
        top, left = self.window.rows.start, self.window.columns.start
        cut = (
            slice(None),
            slice(part.rows.start - top, part.rows.stop - top),
            slice(part.columns.start - left, part.columns.stop - left),
        )
        smaller = Hull(part, self.x[cut], self.y[cut], self.mask[cut], self.depth[cut], self.area)
        return smaller, cut


def ellipse(
    point: tuple[np.ndarray, np.ndarray],
    centre: tuple[np.ndarray | float, np.ndarray | float],
    radii: tuple[np.ndarray | float, np.ndarray | float],
    angle: np.ndarray | float,
) -> np.ndarray:
    """Potential of an ellipse: 1 at its centre, 0 on its outline, falling on outside.

    Args:
        point: x and y, float64[Z, h, w].
        centre, radii: x and y, numbers or float64[Z, 1, 1].
        angle: in radians, a number or float64[Z, 1, 1].
    """
    (x, y), (x0, y0), (radius_x, radius_y) = point, centre, radii
    cosine, sine = np.cos(angle), np.sin(angle)
    u = x * (cosine / radius_x) + y * (sine / radius_x)
    u -= (x0 * cosine + y0 * sine) / radius_x
    v = y * (cosine / radius_y) - x * (sine / radius_y)
    v -= (y0 * cosine - x0 * sine) / radius_y
    u *= u
    v *= v
    u += v
    return 1 - np.sqrt(u, out=u)


class Part(NamedTuple):
    """A structure whose area was aimed at.

    Attributes:
        mask: bool[Z, h, w], of exactly the area aimed at.
        share: float32[Z, h, w], how much of each pixel is in the structure: partial volume, without
            which a small image would be jagged. It is 0.5 at the mask's edge.
    """

    mask: np.ndarray
    share: np.ndarray


def partial_volume(height: np.ndarray, slope: float, stack: Stack) -> np.ndarray:
    """Share of a pixel that lies above a threshold.

    Args:
        height: potential above the threshold.
        slope: of the potential at a typical edge, per pixel of a 128-pixel slice.
        stack: gives the size of a pixel.

    Returns:
        float32, in [0, 1], of the shape of `height`.
    """
    return np.clip(0.5 + height * (stack.zoom / slope), 0, 1).astype(np.float32)


def highest(values: np.ndarray, count: int) -> float:
    """The count-th largest of some values: at or above it lie exactly `count` of them."""
    if count < 1:
        return np.inf
    flat = values.ravel()
    return np.partition(flat, flat.size - count)[flat.size - count]
