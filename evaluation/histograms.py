"""People as histograms: the tables that drift checks deal anew.

Edges of bins are quantiles of both groups together, so that dealing people anew leaves them as they
are, which makes a permutation test exact.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

ROUNDING = 1e-9  # cumulated weights closer than this are equal

Kind = Literal["numeric", "categorical"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Images of some people; position i of each column is image i.

    Attributes:
        name: what the group is called in words, as "span-2" or "train".
        people: unicode[N], whose image it is; None where that is unknown.
        numeric: feature → float[N]; what is not finite is a bin of its own.
        categorical: feature → unicode[N].
    """

    name: str
    people: np.ndarray | None
    numeric: Mapping[str, np.ndarray]
    categorical: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of people; 0 where they are unknown."""
        return 0 if self.people is None else len(np.unique(self.people))

    @property
    def images(self) -> int:
        """Number of images."""
        columns = [*self.numeric.values(), *self.categorical.values()]
        return len(columns[0]) if columns else 0


@dataclasses.dataclass(frozen=True)
class Histograms:
    """One row per appearance of a person in a group; `H` bins of all features side by side.

    Attributes:
        names, kinds: of the F features.
        bins: of each feature, as in `FeatureDrift`.
        starts: int[F], first column of each.
        histograms: float64[U, H], shares: each feature's columns of a row add up to 1.
        means: float64[U, F], of the finite values; NaN for categories.
        current: bool[U], whether the row is of the current group.
        person: int[U].
    """

    names: list[str]
    kinds: list[Kind]
    bins: list[tuple[Any, ...]]
    starts: np.ndarray
    histograms: np.ndarray
    means: np.ndarray
    current: np.ndarray
    person: np.ndarray

    @classmethod
    def of(
        cls,
        people: np.ndarray,
        late: np.ndarray,
        numeric: Mapping[str, np.ndarray],
        categorical: Mapping[str, np.ndarray],
        bins: int,
    ) -> "Histograms":
        """Counts images into people's histograms.

        Args:
            people: unicode[N], whose image it is.
            late: bool[N], whether the image is of the current group.
            numeric: feature → float[N].
            categorical: feature → unicode[N].
            bins: most bins of a number.
        """
        _, who = np.unique(people, return_inverse=True)
        keys, row = np.unique(who * 2 + late, return_inverse=True)
        weight = (1 / np.bincount(row))[row]
        parts, means, edges = [], [], []
        for name in numeric:
            values = np.asarray(numeric[name], np.float64)
            found = _quantile_edges(values, weight, bins)
            place = np.where(np.isfinite(values), np.searchsorted(found, values, "right"), -1)
            place[place < 0] = len(found) + 1
            parts.append(_shares(row, place, weight, len(keys)))
            means.append(_finite_means(row, values, len(keys)))
            edges.append(tuple(found.tolist()))
        for name in categorical:
            categories, place = np.unique(categorical[name], return_inverse=True)
            parts.append(_shares(row, place, weight, len(keys)))
            means.append(np.full(len(keys), np.nan))
            edges.append(tuple(map(str, categories)))
        widths = [part.shape[1] for part in parts]
        kinds: list[Kind] = ["numeric"] * len(numeric)
        kinds += ["categorical"] * len(categorical)
        return cls(
            [*numeric, *categorical],
            kinds,
            edges,
            np.cumsum([0, *widths[:-1]]),
            np.concatenate(parts, 1),
            np.stack(means, 1),
            keys % 2 == 1,
            keys // 2,
        )

    def columns(self, feature: int) -> slice:
        """Where a feature's bins stand."""
        ends = [*self.starts[1:], self.histograms.shape[1]]
        return slice(int(self.starts[feature]), int(ends[feature]))


def _quantile_edges(values: np.ndarray, weight: np.ndarray, bins: int) -> np.ndarray:
    """Inner edges that part the weight evenly, as far as equal values allow: float64[< bins].

    A bin holds its lower edge. So the smallest value is no edge: nothing would lie below it.
    """
    finite = np.isfinite(values)
    order = np.argsort(values[finite], kind="stable")
    ordered, mass = values[finite][order], np.cumsum(weight[finite][order])
    if not len(ordered):
        return np.empty(0)
    wanted = np.arange(1, bins) / bins * mass[-1]
    first_above = np.searchsorted(mass, wanted - ROUNDING) + 1
    edges = np.unique(ordered[np.minimum(first_above, len(ordered) - 1)])
    return edges[edges > ordered[0]]


def _shares(row: np.ndarray, place: np.ndarray, weight: np.ndarray, rows: int) -> np.ndarray:
    """Each row's histogram: float64[rows, bins]."""
    width = int(place.max(initial=0)) + 1
    return np.bincount(row * width + place, weight, rows * width).reshape(rows, width)


def _finite_means(row: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    """Each row's mean of finite values, NaN where it has none: float64[rows]."""
    finite = np.isfinite(values)
    counts = np.bincount(row[finite], minlength=rows)
    sums = np.bincount(row[finite], values[finite], rows)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
