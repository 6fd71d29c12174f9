"""Bounds on means of numbers between 0 and 1 that hold for every number of samples.

For the mean of n independent values in [0, 1], P(n · kl(observed, true) ≥ x, observed on one side)
≤ exp(−x), where kl is the divergence of two coins (Chernoff 1952 for counts; Hoeffding 1963,
theorem 1, for any values in [0, 1]). Nothing is assumed to be normal or large, so that ten
requests are judged as soundly as ten thousand.
"""

import math

import numpy as np
from numpy.typing import NDArray

STEPS = 50  # of bisection: below 1e-15
ROUNDS, SETTLED = 2000, 1e-9

Vector = NDArray[np.float64]


def interval(means: Vector, count: int, level: float) -> tuple[Vector, Vector]:
    """Bounds of each true mean; each of the two bounds fails with probability `level` at most.

    Args:
        means: float64[K], observed, within [0, 1].
        count: independent samples behind each of them; 0 tells nothing.
        level: probability that one bound is wrong.

    Returns:
        Lower and upper bounds, float64[K].
    """
    means = np.asarray(means, np.float64)
    if not count:
        return np.zeros_like(means), np.ones_like(means)
    allowed = math.log(1 / level) / count
    return _edge(means, np.zeros_like(means), allowed), _edge(means, np.ones_like(means), allowed)


def _edge(means: Vector, end: Vector, allowed: float) -> Vector:
    """The point between `means` and `end` where the divergence reaches `allowed`."""
    inside, outside = means.copy(), end.copy()
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        near = _coin_divergence(means, middle) <= allowed
        inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
    return outside


def _coin_divergence(p: Vector, q: Vector) -> Vector:
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(p > 0, p * np.log(p / q), 0)
        second = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0)
    return first + second


def jensen_shannon(p: Vector, q: Vector) -> float:
    """Jensen-Shannon divergence of two distributions, in bits: 0 equal, 1 disjoint (Lin 1991)."""
    middle = (p + q) / 2
    return (_divergence(p, middle) + _divergence(q, middle)) / 2


def _divergence(p: Vector, q: Vector) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))


def least_divergence(first: tuple[Vector, Vector], second: tuple[Vector, Vector]) -> float:
    """The smallest Jensen-Shannon divergence of two distributions that lie within their bounds.

    Jensen-Shannon divergence is the least mean divergence to a third distribution, and convex, so
    alternating between the two and their middle reaches the minimum (Csiszár & Tusnády 1984).

    Args:
        first, second: lower and upper bounds of each class, float64[C].

    Returns:
        Bits, 0 to 1.
    """
    middle = (first[0] + first[1] + second[0] + second[1]) / 4
    reached = math.inf
    for _ in range(ROUNDS):
        p, q = _project(middle, *first), _project(middle, *second)
        middle = (p + q) / 2
        before, reached = reached, jensen_shannon(p, q)
        if before - reached < SETTLED:
            break
    return reached


def _project(target: Vector, low: Vector, high: Vector) -> Vector:
    """The distribution within the bounds that diverges least from `target`: clip(c · target)."""
    below, above = -80.0, 80.0  # logarithm of c
    for _ in range(STEPS):
        middle = (below + above) / 2
        if np.clip(target * math.exp(middle), low, high).sum() < 1:
            below = middle
        else:
            above = middle
    found = np.clip(target * math.exp(above), low, high)
    return found / found.sum()
