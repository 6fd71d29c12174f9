"""One narrow public model, saved once for all tests that read it."""

from pathlib import Path

import numpy as np
import pytest
from public_model import NARROW, PublicModel


@pytest.fixture(scope="session")
def public() -> PublicModel:
    return PublicModel(NARROW)


@pytest.fixture(scope="session")
def saved_model(public, tmp_path_factory) -> Path:
    """A SavedModel in the public code's layout; not to be changed."""
    return public.save(tmp_path_factory.mktemp("public") / "saved_model")


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Colour images, `float32[2, 64, 64, 3]`, as the golden numbers have them."""
    return np.random.Generator(np.random.PCG64(0)).random((2, 64, 64, 3)).astype(np.float32)
