"""Small phantoms of the studies, generated once."""

import pytest

from ingest.phantom import PhantomSpec, generate
from studies.phantom import SUBJECT_REGEX, public_mix
from studies.slices import read_slices


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("phantoms")


@pytest.fixture(scope="session")
def whole_stacks(cache):
    """Fifty people with all 32 slices: as dense as the public set."""
    return public_mix(50, seed=3, cache=cache)


@pytest.fixture(scope="session")
def few_folder(cache):
    """Two dozen people whom anything can tell apart, six slices each."""
    spec = PhantomSpec("easy", (12, 7, 4, 1), slices=6, size=64, seed=1)
    return generate(spec, cache, workers=1) / "images"


@pytest.fixture(scope="session")
def few(few_folder):
    return read_slices(few_folder, SUBJECT_REGEX)
