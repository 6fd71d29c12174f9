"""Bounds that hold for every number of samples: analytic values, coverage, a search by force."""

import itertools

import numpy as np
import pytest

from serving import bounds


def test_the_bound_of_all_or_nothing_is_analytic():
    low, high = bounds.interval(np.array([0.0, 1.0]), 50, 0.01)
    np.testing.assert_allclose(high[0], 1 - 0.01 ** (1 / 50), rtol=1e-9)
    np.testing.assert_allclose(low[1], 0.01 ** (1 / 50), rtol=1e-9)
    np.testing.assert_allclose([low[0], high[1]], [0, 1], atol=1e-9)


def test_without_samples_nothing_is_known():
    low, high = bounds.interval(np.array([0.3]), 0, 0.01)
    assert (low[0], high[0]) == (0, 1)


@pytest.mark.parametrize("count", [10, 100])
@pytest.mark.parametrize("kind", ["coins", "beta"])
def test_each_bound_is_wrong_no_oftener_than_promised(count, kind):
    random, level, trials = np.random.default_rng(1), 0.05, 4_000
    if kind == "coins":
        means = random.binomial(count, 0.1, trials) / count
    else:
        means = random.beta(0.5, 4.5, (trials, count)).mean(1)
    low, high = bounds.interval(means, count, level)
    allowed = level + 3 * np.sqrt(level / trials)
    assert (low > 0.1).mean() <= allowed
    assert (high < 0.1).mean() <= allowed
    if kind == "coins":  # is no empty promise
        assert np.mean((low > 0.1) | (high < 0.1)) > level / 50


def test_jensen_shannon_in_bits():
    one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert bounds.jensen_shannon(one, other) == pytest.approx(1)
    assert bounds.jensen_shannon(one, one) == 0
    # H((.75, .25)) − (H((1, 0)) + H((.5, .5))) / 2 = 0.811278 − 0.5
    half = np.array([0.5, 0.5])
    assert bounds.jensen_shannon(one, half) == pytest.approx(0.311278, abs=1e-6)


def test_the_least_divergence_is_found():
    """Against every pair of distributions on a grid within the bounds."""
    first = np.array([0.55, 0.1, 0.0]), np.array([0.9, 0.4, 0.2])
    second = np.array([0.0, 0.2, 0.3]), np.array([0.3, 0.5, 0.9])
    steps = np.linspace(0, 1, 41)
    grid = [
        np.array([a, b, 1 - a - b]) for a, b in itertools.product(steps, steps) if a + b <= 1 + 1e-9
    ]

    def within(limits):
        return [
            one
            for one in grid
            if (one >= limits[0] - 1e-9).all() and (one <= limits[1] + 1e-9).all()
        ]

    forced = min(
        bounds.jensen_shannon(np.abs(p), np.abs(q))
        for p, q in itertools.product(within(first), within(second))
    )
    found = bounds.least_divergence(first, second)
    assert found == pytest.approx(forced, abs=5e-4)  # the grid is coarse
    assert found <= forced + 1e-9


def test_bounds_that_share_a_distribution_diverge_by_nothing():
    wide = np.zeros(4), np.ones(4)
    narrow = np.full(4, 0.2), np.full(4, 0.3)
    assert bounds.least_divergence(wide, narrow) == pytest.approx(0, abs=1e-8)
