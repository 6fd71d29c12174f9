import numpy as np
import pytest

from ingest.phantom.fields import Axis, SmoothField, draw_field


def test_a_field_has_the_covariance_of_smoothed_noise():
    sigma = 6.0
    places = np.arange(-60.0, 61.0)
    products = np.zeros(25)
    for seed in range(40):
        field = draw_field(np.random.default_rng(seed), 3, sigma)
        row = field.on(np.array([0.0, 15.0, 31.0]), np.array([-40.0, 0.0, 40.0]), places)
        for lag in range(25):
            products[lag] += (row[..., : 121 - lag] * row[..., lag:]).mean()
    expected = np.exp(-((np.arange(25) / sigma) ** 2) / 4)
    np.testing.assert_allclose(products / products[0], expected, atol=0.08)


def test_a_field_has_unit_variance_over_its_domain():
    field = draw_field(np.random.default_rng(0), 3, 5)
    values = field.on(np.arange(32.0), np.linspace(-64, 64, 65), np.linspace(-64, 64, 65))
    assert values.std() == pytest.approx(1, abs=0.02)


def test_the_grid_does_not_change_the_field():
    field = draw_field(np.random.default_rng(0), 3, 5)
    fine = field.on(np.arange(32.0), np.linspace(-64, 64, 129), np.linspace(-64, 64, 129))
    coarse = field.on(np.arange(0.0, 32.0, 4), np.linspace(-64, 64, 65), np.linspace(-64, 64, 65))
    np.testing.assert_allclose(coarse, fine[::4, ::2, ::2], rtol=1e-9, atol=1e-12)


def test_a_periodic_axis_closes():
    axes = Axis(0, 31, 3), Axis(0, 360, 5, periodic=True), Axis(0, 47, 7)
    field = SmoothField(np.random.default_rng(1), *axes)
    ends = field.on(np.array([3.0]), np.array([0.0, 360.0, 359.9]), np.array([5.0]))[0, :, 0]
    assert ends[0] == pytest.approx(ends[1])
    assert ends[0] == pytest.approx(ends[2], abs=0.1)


def test_an_open_axis_does_not_close():
    field = draw_field(np.random.default_rng(1), 3, 5)
    ends = field.on(np.array([0.0, 31.0]), np.array([0.0]), np.array([0.0]))[:, 0, 0]
    assert abs(ends[0] - ends[1]) > 0.1
