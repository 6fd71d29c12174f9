"""Bounds on means of numbers between 0 and 1 that hold for every number of samples.

For the mean of n independent values in [0, 1], P(n · kl(observed, true) ≥ x, observed on one side)
≤ exp(−x), where kl is the divergence of two coins (Chernoff 1952 for counts; Hoeffding 1963,
theorem 1, for any values in [0, 1]). Nothing is assumed to be normal or large, so that ten
requests are judged as soundly as ten thousand.
"""

import math

import numpy as np
from numpy.typing import NDArray

STEPS = 40  # of bisection: below 1e-12
ROUNDS, SETTLED = 500, 1e-9

Vector = NDArray[np.float64]


def lower(mean: float, count: int, level: float) -> float:
    """A bound that the true mean is below with probability `level` at most.

    Args:
        mean: observed, 0 to 1.
        count: independent samples behind it; 0 tells nothing.
        level: probability that the bound is wrong.
    """
    if not count or mean <= 0:
        return 0.0
    allowed = math.log(1 / level) / count
    outside, inside = 0.0, mean
    for _ in range(STEPS):
        middle = (outside + inside) / 2
        if _coin_divergence(mean, middle) > allowed:
            outside = middle
        else:
            inside = middle
    return outside


def upper(mean: float, count: int, level: float) -> float:
    """A bound that the true mean is above with probability `level` at most; see `lower`."""
    return 1 - lower(1 - mean, count, level)


def interval(means: Vector, count: int, level: float) -> tuple[Vector, Vector]:
    """Lower and upper bounds of several means, float64[K]; each fails as `lower` may."""
    return (
        np.array([lower(mean, count, level) for mean in means.tolist()]),
        np.array([upper(mean, count, level) for mean in means.tolist()]),
    )


def _coin_divergence(p: float, q: float) -> float:
    """kl(p, q) in nats, for 0 < q ≤ p ≤ 1."""
    first = p * math.log(p / q)
    return first + (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else first


def jensen_shannon(p: Vector, q: Vector) -> float:
    """Jensen-Shannon divergence of two distributions, in bits: 0 equal, 1 disjoint (Lin 1991)."""
    middle = (p + q) / 2
    return (_divergence(p, middle) + _divergence(q, middle)) / 2


def _divergence(p: Vector, q: Vector) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))


def least_divergence(
    first: tuple[Vector, Vector], second: tuple[Vector, Vector], enough: float = 0.0
) -> float:
    """The smallest Jensen-Shannon divergence of two distributions that lie within their bounds.

    Jensen-Shannon divergence is the least mean divergence to a third distribution, and convex, so
    alternating between the two and their middle reaches the minimum (Csiszár & Tusnády 1984).

    Args:
        first, second: lower and upper bounds of each class, float64[C].
        enough: stop as soon as the divergence is seen to be no larger.

    Returns:
        Bits, 0 to 1; if at most `enough`, then not the smallest.
    """
    middle = (first[0] + first[1] + second[0] + second[1]) / 4
    reached = math.inf
    for _ in range(ROUNDS):
        p, q = _project(middle, *first), _project(middle, *second)
        middle = (p + q) / 2
        before, reached = reached, jensen_shannon(p, q)
        if reached <= enough or before - reached < SETTLED:
            break
    return reached


def _project(target: Vector, low: Vector, high: Vector) -> Vector:
    """The distribution within the bounds that diverges least from `target`: clip(c · target).

    The sum over the classes is piecewise linear in c, with a knot where a class meets a bound.
    """
    knots = np.sort(np.concatenate([low, high]) / np.tile(target, 2))
    sums = np.clip(knots[:, None] * target, low, high).sum(1)
    return np.clip(np.interp(1.0, sums, knots) * target, low, high)
