"""Slices with their people: what every study compares its methods on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schema.errors import CortexflowError
from schema.features import UNLABELLED


class StudyError(CortexflowError):
    """A study that cannot be made of these images, or with these settings."""


@dataclass(frozen=True)
class Slices:
    """Labelled slices of people who are known, by person and then by position.

    Attributes:
        name: of where they came from.
        encoded: the N files, PNG or JPEG, as `ingest` leaves them.
        labels: int64[N], indices into `classes`.
        subjects: str[N].
        positions: int64[N], place in the person's stack; -1 where unknown.
        classes: names, from least to most severe where an order is known.
        ordered: whether one is.
    """

    name: str
    encoded: tuple[bytes, ...]
    labels: NDArray[np.int64]
    subjects: NDArray[np.str_]
    positions: NDArray[np.int64]
    classes: tuple[str, ...]
    ordered: bool

    def __len__(self) -> int:
        return len(self.encoded)

    def people(self) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.int64]]:
        """Sorted ids [P], their labels int64[P], and each slice's person int64[N]."""
        ids, first, person = np.unique(self.subjects, return_index=True, return_inverse=True)
        return ids, self.labels[first], person.astype(np.int64)

    def grid(self) -> NDArray[np.float32]:
        """Grey levels on the common grid of `schema.brain`: float32[N, 64, 64] in [0, 255]."""
        from schema import brain
        from schema.descriptors import decode

        pixels = [decode(file) for file in self.encoded]
        grids = np.empty((len(pixels), brain.GRID, brain.GRID), np.float32)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(pixels):
            by_shape.setdefault(image.shape, []).append(row)
        for rows in by_shape.values():
            grids[rows] = brain.to_grid(np.stack([pixels[row] for row in rows]))
        return grids

    def csf_fraction(self) -> NDArray[np.float64]:
        """Total CSF / brain of each slice, float64[N]: the hand-made number to beat."""
        from schema.descriptors import decode, describe

        measured = describe([decode(file) for file in self.encoded])
        return measured["csf_fraction"].astype(np.float64)


def read_slices(source: str | Path, subject_regex: str | None = None) -> Slices:
    """Reads labelled images of people who are known.

    Args:
        source: a folder of class folders, a public release, or an imported dataset.
        subject_regex: its first group, searched in a file's path, is the person; of a folder.

    Raises:
        StudyError: nobody knows whose images these are, a person has two labels, or an image
            cannot be used.
        CortexflowError: the source cannot be read.
    """
    path = Path(source).expanduser().absolute()
    if (path / "dataset.json").is_file():
        if subject_regex is not None:
            raise StudyError(
                f"{path} is a dataset already and knows its people (received --subject-regex "
                f"{subject_regex!r}). Leave the pattern out, or give the images it came from."
            )
        return _of_dataset(path)
    return _of_source(path, subject_regex)


def _of_source(path: Path, subject_regex: str | None) -> Slices:
    from ingest.images import Quarantined, read_image
    from ingest.reading import read_sources
    from ingest.releases import open_source

    listing = open_source(path, subject_regex=subject_regex)
    if listing.level != "subject":
        raise _nobody(path)
    encoded, images = [], []
    for image, outcome in read_sources(listing.labelled()):
        if not isinstance(outcome, bytes):
            raise StudyError(f"{image.name} cannot be read: {outcome}. Restore or remove the file.")
        normal = read_image(outcome, image.name)
        if isinstance(normal, Quarantined):
            raise StudyError(
                f"{image.name} is unusable ({normal.reason}): {normal.detail} Remove the file, or "
                "import the folder with `cortexflow ingest images`, which sets such files aside, "
                "and give the dataset."
            )
        encoded.append(normal.data)
        images.append(image)
    known = [-1 if image.slice_index is None else image.slice_index for image in images]
    return _arranged(
        listing.name,
        encoded,
        [image.label for image in images],
        [image.subject_id or "" for image in images],
        known,
        listing.classes,
        listing.severity,
    )


def _of_dataset(path: Path) -> Slices:
    from ingest.datasets import read_dataset
    from ingest.records import decode_example, read_records
    from schema import features

    dataset = read_dataset(path)
    if dataset.info.level != "subject":
        raise _nobody(path)
    rows: list[dict[str, Any]] = [
        decode_example(record)
        for split in features.SPLITS
        for file in dataset.files(split)
        for record in read_records(file)
    ]
    return _arranged(
        dataset.info.name,
        [row[features.IMAGE][0] for row in rows],
        [row[features.LABEL][0] for row in rows],
        [row[features.SUBJECT_ID][0].decode() for row in rows],
        [(row.get(features.SLICE_INDEX) or [-1])[0] for row in rows],
        dataset.info.classes,
        dataset.info.severity,
    )


def _arranged(
    name: str,
    encoded: Sequence[bytes],
    labels: Sequence[int],
    subjects: Sequence[str],
    positions: Sequence[int],
    classes: Sequence[str],
    severity: Sequence[str] | None,
) -> Slices:
    """Sorts the slices, and numbers the classes by severity where it is known."""
    order = np.lexsort((np.array(positions), np.array(subjects)))
    order = order[np.array(labels)[order] != UNLABELLED]
    if not len(order):
        raise StudyError(f"{name} holds no labelled images. A study needs labels.")
    names = tuple(severity or classes)
    rank = np.array([names.index(label) for label in classes])
    found = Slices(
        name=name,
        encoded=tuple(encoded[row] for row in order),
        labels=rank[np.array(labels)[order]].astype(np.int64),
        subjects=np.array(subjects)[order],
        positions=np.array(positions, np.int64)[order],
        classes=names,
        ordered=severity is not None,
    )
    _, own, person = found.people()
    torn = own[person] != found.labels
    if torn.any():
        raise StudyError(
            f"A person has one label, but {found.subjects[torn][0]!r} of {name} has several. "
            "Correct the folders, or the pattern that reads subject ids."
        )
    return found


def _nobody(path: Path) -> StudyError:
    return StudyError(
        f"Nobody knows whose images {path} holds, so people cannot be kept apart. Give "
        "--subject-regex: its first group in a file's path is the person."
    )
