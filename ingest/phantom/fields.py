"""Smooth random fields that cost what their smoothness costs, not what their pixels cost.

White noise convolved with a Gaussian of width sigma holds no detail finer than sigma. So the noise
is drawn at knots 1.25 sigma apart and each knot carries a Gaussian; the sum has the covariance of
the convolution to within 0.4 %. The sum is separable: three small matrix products give the field
on any grid. As the knots do not depend on the grid, a subject keeps its shape at every image size
and for every choice of slices.
"""

from typing import NamedTuple

import numpy as np

KNOT_SPACING = 1.25  # sigmas
MARGIN = 4.0  # sigmas beyond the domain, so that the variance does not fall off at its edge


class Axis(NamedTuple):
    """One dimension of a field: its domain, the width of the Gaussian, and whether it closes."""

    low: float
    high: float
    sigma: float
    periodic: bool = False

    def knots(self) -> np.ndarray:
        """Places of the knots: float64[K]."""
        if self.periodic:
            count = int(np.ceil((self.high - self.low) / (KNOT_SPACING * self.sigma)))
            return np.linspace(self.low, self.high, count, endpoint=False)
        margin = MARGIN * self.sigma
        count = int(np.ceil((self.high - self.low + 2 * margin) / (KNOT_SPACING * self.sigma)))
        return np.linspace(self.low - margin, self.high + margin, count + 1)

    def lattice(self) -> np.ndarray:
        """Places about one sigma apart that cover the domain evenly: float64[M]."""
        count = int(np.ceil((self.high - self.low) / self.sigma))
        return self.low + (np.arange(count) + 0.5) * (self.high - self.low) / count

    def weights(self, places: np.ndarray) -> np.ndarray:
        """What each knot gives to each place: float64[len(places), K], rows of unit length."""
        offset = np.asarray(places, np.float64)[:, None] - self.knots()
        if self.periodic:
            period = self.high - self.low
            offset -= period * np.round(offset / period)
        weights = np.exp(-0.5 * (offset / self.sigma) ** 2)
        return weights / np.sqrt((weights**2).sum(1, keepdims=True))


class SmoothField:
    """A Gaussian random field over three axes, of standard deviation 1 over its domain."""

    def __init__(self, rng: np.random.Generator, *axes: Axis):
        self.axes = axes
        noise = rng.standard_normal([len(axis.knots()) for axis in axes])
        self.coefficients = noise
        self.coefficients = noise / self.on(*(axis.lattice() for axis in axes)).std()

    def on(self, *places: np.ndarray) -> np.ndarray:
        """The field on the grid spanned by three vectors of places.

        Returns:
            float64[len(places[0]), len(places[1]), len(places[2])].
        """
        first, second, third = (
            axis.weights(place) for axis, place in zip(self.axes, places, strict=True)
        )
        slabs = np.tensordot(first, self.coefficients, 1)
        return (second @ slabs) @ third.T


def draw_field(rng: np.random.Generator, sigma_z: float, sigma_xy: float) -> SmoothField:
    """A field over the stack: z in slices (0 to 31), y and x in 1/64 of the half-width.

    In the plane it closes at the image's border, outside of the brain. A displacement that closes
    hardly swells or shrinks what it displaces, and brains in an atlas all have nearly one area.

    Args:
        rng: source of the field's noise.
        sigma_z: smoothness across slices, in slices.
        sigma_xy: smoothness in the plane, in pixels of a 128-pixel slice.
    """
    plane = Axis(-64, 64, sigma_xy, periodic=True)
    return SmoothField(rng, Axis(0, 31, sigma_z), plane, plane)
