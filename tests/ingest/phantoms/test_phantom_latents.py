import importlib.util

import numpy as np
import pytest

from ingest.phantom import PRESETS
from ingest.phantom.latents import SPREAD, Latents, draw_latents, generator


@pytest.fixture(scope="module")
def prototype(shared):
    path = shared / "prototype" / "phantom.py"
    loader = importlib.util.spec_from_file_location("phantom_prototype", path)
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    return module


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "null"])
def test_latents_are_the_prototypes(prototype, preset):
    for stage in range(4):
        for subject in range(100):
            old = prototype.latents(7, subject, stage, spread=SPREAD[preset])
            expected = old["vbr"], old["sul"], old["hip"], old["ct"]
            assert draw_latents(7, subject, stage, preset) == pytest.approx(expected, rel=1e-12)


def test_moments_are_those_of_the_table():
    draws = np.array([draw_latents(3, subject, 0, "realistic") for subject in range(4000)])
    draws[:, 0] = np.log(draws[:, 0])
    mean = [np.log(0.056), 0.150, 1.00, 2.45]
    deviation = [0.44, 0.032, 0.11, 0.11]
    assert (np.abs(draws.mean(0) - mean) < 4 * np.array(deviation) / np.sqrt(4000)).all()
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.05)
    # Atrophy is common: what widens the ventricles thins the cortex.
    correlation = np.corrcoef(draws.T)
    np.testing.assert_allclose(correlation[0, 1], 0.55, atol=0.04)
    np.testing.assert_allclose(correlation[0, 2:], -0.55, atol=0.04)


def test_latents_stay_in_their_ranges():
    for preset in PRESETS:
        draws = np.array([draw_latents(1, n, n % 4, preset) for n in range(500)])
        low, high = draws.min(0), draws.max(0)
        assert (low >= [0.015, 0.07, 0.45, 1.7]).all()
        assert (high <= [0.24, 0.30, 1.35, 2.9]).all()


def test_streams_are_independent_of_each_other():
    first = generator(7, 1, 3).standard_normal(4)
    assert (first == generator(7, 1, 3).standard_normal(4)).all()
    for other in (generator(8, 1, 3), generator(7, 2, 3), generator(7, 1, 4)):
        assert (first != other.standard_normal(4)).all()


def test_latents_have_names():
    assert Latents._fields == ("vbr", "sulci", "hippocampus", "thickness")
