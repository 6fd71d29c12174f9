"""Images as columns: who, which class and site, which file, and the descriptors; no pixels."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from evaluation.histograms import Group
from schema import descriptors, features

UNKNOWN = ""


@dataclasses.dataclass(frozen=True)
class Columns:
    """Images in a fixed order; position i of every column is image i.

    Attributes:
        subjects: unicode[N], "" where unknown.
        labels: int64[N], -1 for unlabelled.
        sites: unicode[N], "" where unknown.
        sha256: unicode[N], digest of the source file, "" where unknown.
        splits: unicode[N].
        spans: unicode[N], "" where unknown.
        described: descriptor → float[N], in the order of `descriptors.NAMES`.
    """

    subjects: np.ndarray
    labels: np.ndarray
    sites: np.ndarray
    sha256: np.ndarray
    splits: np.ndarray
    spans: np.ndarray
    described: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: np.ndarray) -> "Columns":
        """The images at `chosen` (bool[N] or int[M])."""
        picked = {name: getattr(self, name)[chosen] for name in _TEXTS_AND_LABELS}
        described = {name: values[chosen] for name, values in self.described.items()}
        return Columns(**picked, described=described)


_TEXTS_AND_LABELS = ("subjects", "labels", "sites", "sha256", "splits", "spans")


def joined(parts: Sequence[Columns]) -> Columns:
    """Columns one below the other; none give empty ones."""
    empty = np.empty(0, str)
    nothing = Columns(
        empty, np.empty(0, np.int64), empty, empty, empty, empty,
        {name: np.empty(0) for name in descriptors.NAMES},
    )  # fmt: skip
    whole = [nothing, *parts]
    return Columns(
        **{
            name: np.concatenate([getattr(part, name) for part in whole])
            for name in _TEXTS_AND_LABELS
        },
        described={
            name: np.concatenate([part.described[name] for part in whole])
            for name in descriptors.NAMES
        },
    )


def grouped(
    reference: Columns, current: Columns, names: tuple[str, str], classes: Sequence[str]
) -> tuple[Group, Group]:
    """Two groups for `drift.compare`: descriptors, `label` by class name, and `site`.

    Labels or sites that are unknown throughout in either are left out of both. A group in which a
    single image has no subject id has no people.
    """
    sides = (reference, current)
    categorical = [{"label": _named(side.labels, classes), "site": side.sites} for side in sides]
    known = [
        key
        for key in ("label", "site")
        if all((columns[key] != UNKNOWN).any() for columns in categorical)
    ]
    one, other = (
        Group(
            name,
            side.subjects if (side.subjects != UNKNOWN).all() else None,
            side.described,
            {key: columns[key] for key in known},
        )
        for side, name, columns in zip(sides, names, categorical, strict=True)
    )
    return one, other


def _named(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Class names of labels; one outside of the classes is told by its number."""
    values, place = np.unique(labels, return_inverse=True)
    known = dict(enumerate(classes)) | {features.UNLABELLED: UNKNOWN}
    return np.array([known.get(value, str(value)) for value in values.tolist()], str)[place]
