"""Pairs of images that stand on two sides of a split: what they are told from, and how."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.leakage_search import unit_vectors


@dataclasses.dataclass(frozen=True, eq=False)
class SplitImages:
    """The images of one split, as far as the check needs them.

    Attributes:
        digests: unicode[N], hex SHA-256 of shape and decoded grey pixels.
        thumbnails: uint8[N, S, S], the images shrunk to a square.
        subjects: unicode[N], empty where unknown; None for slice-level data.
        labels: int64[N], -1 where unlabelled.
        slice_index: int64[N], -1 where unknown.
        sources: unicode[N], hex SHA-256 of the file that each came from; empty where unknown.
        sides: int64[N], pixels of each image's shorter side as stored.
        unreadable: what could not be decoded, and why; not among the N.

    Raises:
        ValueError: the columns differ in length, or the thumbnails are no square uint8 images.
    """

    digests: np.ndarray
    thumbnails: np.ndarray
    subjects: np.ndarray | None
    labels: np.ndarray
    slice_index: np.ndarray
    sources: np.ndarray
    sides: np.ndarray
    unreadable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, kind = self.thumbnails.shape, self.thumbnails.dtype
        if kind != np.uint8 or len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(f"Thumbnails are uint8[N, S, S]. Received: {kind}{list(shape)}.")
        lengths = {
            field.name: len(column)
            for field in dataclasses.fields(self)
            if isinstance(column := getattr(self, field.name), np.ndarray)
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Each column has one entry per image. Received lengths: {lengths}.")

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def named(self) -> np.ndarray:
        """Which images are of somebody known: bool[N]."""
        return np.zeros(len(self), bool) if self.subjects is None else self.subjects != ""

    @property
    def people(self) -> np.ndarray:
        """Everybody known, once: unicode[P]."""
        return np.empty(0, "<U1") if self.subjects is None else np.unique(self.subjects[self.named])


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """One image of a split. `subject` and `source` are empty, `slice_index` -1 where unknown."""

    split: str
    row: int
    subject: str
    slice_index: int
    label: int
    source: str

    def __str__(self) -> str:
        who = self.subject or (f"file {self.source[:8]}" if self.source else f"image {self.row}")
        return f"{self.split} {who}" + (f" slice {self.slice_index}" * (self.slice_index >= 0))


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images that stand on two sides and should not.

    Attributes:
        a, b: the images; `a` is of the training side where one of them is.
        correlation: of the two, in [-1, 1]; None where one is blank.
        layers: which of the three found this pair.
    """

    a: Place
    b: Place
    correlation: float | None
    layers: tuple[str, ...]

    def __str__(self) -> str:
        likeness = "blank" if self.correlation is None else f"{self.correlation:.3f}"
        return f"{self.a} ~ {self.b} ({likeness})"


class Hits(NamedTuple):
    """What one layer found between two splits: rows, and correlations (NaN where blank)."""

    layer: str
    a: str
    b: str
    number: int
    i: np.ndarray
    j: np.ndarray
    correlation: np.ndarray


def correlations(a: SplitImages, b: SplitImages, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Correlation of chosen pairs: float32[K], NaN where an image is blank."""
    left, right = unit_vectors(a.thumbnails[i]), unit_vectors(b.thumbnails[j])
    blank = ~(left.any(1) & right.any(1))
    return np.where(blank, np.nan, np.einsum("np,np->n", left, right)).clip(-1, 1)


def merged(hits: Sequence[Hits], splits: Mapping[str, SplitImages]) -> tuple[Pair, ...]:
    """Every pair once, with all layers that found it; the most alike first."""
    layers: dict[tuple[str, str, int, int], list[str]] = {}
    likeness: dict[tuple[str, str, int, int], float] = {}
    for found in hits:
        columns = (found.i.tolist(), found.j.tolist(), found.correlation.tolist())
        for i, j, correlation in zip(*columns, strict=True):
            key = (found.a, found.b, i, j)
            layers.setdefault(key, []).append(found.layer)
            likeness[key] = correlation
    pairs = [
        Pair(
            place(a, splits[a], i),
            place(b, splits[b], j),
            None if math.isnan(likeness[a, b, i, j]) else min(likeness[a, b, i, j], 1.0),
            tuple(found),
        )
        for (a, b, i, j), found in layers.items()
    ]
    return tuple(sorted(pairs, key=lambda pair: (-_rounded(pair.correlation), pair.a, pair.b)))


def _rounded(correlation: float | None) -> float:
    return -1.0 if correlation is None else round(correlation, 5)


def place(split: str, images: SplitImages, row: int) -> Place:
    """What is known of one row of a split."""
    return Place(
        split,
        row,
        "" if images.subjects is None else str(images.subjects[row]),
        int(images.slice_index[row]),
        int(images.labels[row]),
        str(images.sources[row]),
    )


def apart(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """The worst `most` pairs, of as many different people as there are."""
    first: dict[tuple[str, ...], Pair] = {}
    for pair in pairs:
        first.setdefault(tuple(p.subject or p.source or str(p.row) for p in (pair.a, pair.b)), pair)
    chosen = set(map(id, first.values()))
    return [*first.values(), *(pair for pair in pairs if id(pair) not in chosen)][:most]
