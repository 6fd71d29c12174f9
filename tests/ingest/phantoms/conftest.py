"""Cohorts that several tests look at, rendered once."""

from typing import NamedTuple

import numpy as np
import pytest

from ingest.phantom import PhantomSpec, Subject, render_subject


class Rendered(NamedTuple):
    """Subjects and their slices as unit vectors: vectors is float32[S, Z, pixels]."""

    spec: PhantomSpec
    subjects: list[Subject]
    vectors: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return np.array([subject.label for subject in self.subjects])


def render(spec: PhantomSpec) -> Rendered:
    subjects = [render_subject(spec, index) for index in range(len(spec))]
    vectors = np.stack([subject.images for subject in subjects]).astype(np.float32)
    vectors = vectors.reshape(*vectors.shape[:2], -1)
    vectors -= vectors.mean(2, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return Rendered(spec, subjects, vectors)


@pytest.fixture(scope="session")
def rendered():
    """Renders any cohort."""
    return render


@pytest.fixture(scope="session")
def whole_stacks() -> Rendered:
    """34 people with all 32 slices at 64 px, in about the public set's proportions."""
    return render(PhantomSpec("realistic", (14, 10, 6, 4), slices=32, size=64))


@pytest.fixture(scope="session")
def standard() -> Rendered:
    """96 people of the `standard` preset, 8 slices at 64 px."""
    return render(PhantomSpec("standard", (24, 24, 24, 24)))


@pytest.fixture(scope="session")
def large() -> Rendered:
    """8 people with all 32 slices at 128 px."""
    return render(PhantomSpec("realistic", (2, 2, 2, 2), slices=32, size=128))
