"""The files of a generated cohort, in the order in which the public releases were listed."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest.phantom.cohort import IMAGES, file_name, load_spec, load_truth
from schema.features import ALZHEIMER_CLASSES

Source = tuple[str, int]  # subject id, slice index
Sources = dict[str, Source]  # by path in an export
File = tuple[str, bytes, Source]  # path in an export, content, what it is


class Slice(NamedTuple):
    """One file of the phantom."""

    source: Source
    path: Path

    def read(self) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()


class Cohort(NamedTuple):
    """A cohort's files.

    Attributes:
        seed: of the phantom.
        subjects: number of subjects per class; classes without any are left out.
        slices: files per class, slice-major: everyone's first slice, then everyone's second.
    """

    seed: int
    subjects: dict[str, int]
    slices: dict[str, list[Slice]]

    def random(self, purpose: str) -> np.random.Generator:
        """A stream that depends on the phantom's seed and the purpose only."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])


def read_cohort(folder: Path) -> Cohort:
    """Lists a generated cohort.

    Raises:
        SpecError: the folder is not one.
    """
    spec, truth = load_spec(folder), load_truth(folder)
    slices = {}
    for label, name in enumerate(ALZHEIMER_CLASSES):
        ids = [str(subject) for subject in truth.ids[truth.labels == label]]
        if ids:
            slices[name] = [
                Slice((subject, number), folder / IMAGES / name / file_name(subject, number))
                for number in range(spec.slices)
                for subject in ids
            ]
    return Cohort(spec.seed, {n: len(s) // spec.slices for n, s in slices.items()}, slices)
