"""Numbers about people who have several slices each, and how far each person moves them.

One sort per class counts, for each pair of people, how often a slice of the one scores above a
slice of the other. An AUC in which people count more or less, or not at all, is then a quadratic
form of their weights (Mann & Whitney 1947), and its derivative by these weights is at hand (DeLong
et al. 1988; Obuchowski 1997 for several measurements of a person).
"""

import dataclasses
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GROUP = 64  # people whose pairs are counted at once


@dataclasses.dataclass(frozen=True)
class People:
    """Who is resampled.

    Attributes:
        labels: int64[S], true class of each person; people are drawn within their class.
        rows: int64[N], the person of each row.
    """

    labels: Integers
    rows: Integers

    @classmethod
    def of(cls, labels: ArrayLike, subjects: ArrayLike | None = None) -> "People":
        """Groups rows by subject, in sorted order of the ids; without ids each row is a person.

        Args:
            labels: int[N].
            subjects: ids [N] of any sortable type, or None.

        Raises:
            ValueError: a subject has two labels, or ids and labels differ in number.
        """
        truth = np.asarray(labels, np.int64)
        if subjects is None:
            return cls(truth, np.arange(len(truth)))
        ids, first, rows = np.unique(np.asarray(subjects), return_index=True, return_inverse=True)
        if rows.shape != truth.shape or (truth[first][rows] != truth).any():
            raise ValueError(
                "Each row needs one subject, and each subject one label. Received: "
                f"{truth.size} labels, {rows.size} ids of {len(ids)} subjects. Correct the labels."
            )
        return cls(truth[first], rows)

    def __len__(self) -> int:
        """Number of people."""
        return len(self.labels)


class Statistic(Protocol):
    """A number that depends on how much each person counts."""

    @property
    def trials(self) -> int:
        """People in the smallest group that the number is about."""

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Measures B resamples.

        Args:
            weights: float64[B, S], how often each person was drawn.

        Returns:
            The estimates float64[B], and each person's influence float64[B, S]: the derivative of
            the estimate by the person's weight.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Auc:
    """Area under the ROC curve over all pairs of rows, ties counting half.

    Attributes:
        positive, negative: int64[P], int64[Q], the people with and without the class.
        pairs: float64[P, Q], pairs of rows of two people that stand in the right order.
        sizes: float64[S], rows of each person.
    """

    positive: Integers
    negative: Integers
    pairs: Floats
    sizes: Floats

    @classmethod
    def of(cls, scores: ArrayLike, people: People, label: int) -> "Auc":
        """Counts the pairs of one class against the rest.

        Args:
            scores: float[N], finite, one per row.
            people: whose rows they are.
            label: the class.
        """
        values = np.asarray(scores, np.float64)
        mine = people.labels == label
        positive, negative = np.flatnonzero(mine), np.flatnonzero(~mine)
        sizes = np.bincount(people.rows, minlength=len(people)).astype(np.float64)
        return cls(positive, negative, _pairs(values, people.rows, positive, negative), sizes)

    @property
    def trials(self) -> int:
        """See `Statistic`."""
        return min(self.pairs.shape)

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """See `Statistic`."""
        positive, negative = weights[:, self.positive], weights[:, self.negative]
        of_positive, of_negative = self.sizes[self.positive], self.sizes[self.negative]
        hits, alarms = positive @ of_positive, negative @ of_negative
        won = (negative @ self.pairs.T) / alarms[:, None]  # [B, P]
        lost = (positive @ self.pairs) / hits[:, None]  # [B, Q]
        area = (won * positive).sum(axis=1) / hits
        influence = np.zeros_like(weights)
        influence[:, self.positive] = (won - area[:, None] * of_positive) / hits[:, None]
        influence[:, self.negative] = (lost - area[:, None] * of_negative) / alarms[:, None]
        return area, influence


@dataclasses.dataclass(frozen=True, eq=False)
class Mean:
    """Mean of a number over rows: sensitivity, specificity, recall, Brier score.

    Attributes:
        sums: float64[S], sum over each person's rows that count.
        counts: float64[S], how many of them count.
    """

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, values: ArrayLike, people: People, among: ArrayLike | None = None) -> "Mean":
        """Takes the mean of float[N] over the rows `among` (bool[N]; None: all)."""
        counted = np.ones(len(people.rows)) if among is None else np.asarray(among, np.float64)
        numbers = np.where(counted > 0, np.asarray(values, np.float64), 0.0)
        size = len(people)
        return cls(
            np.bincount(people.rows, numbers, size).astype(np.float64),
            np.bincount(people.rows, counted, size).astype(np.float64),
        )

    @property
    def trials(self) -> int:
        """See `Statistic`."""
        return int((self.counts > 0).sum())

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """See `Statistic`."""
        total = weights @ self.counts
        mean = (weights @ self.sums) / total
        return mean, (self.sums - mean[:, None] * self.counts) / total[:, None]


def _pairs(scores: Floats, rows: Integers, positive: Integers, negative: Integers) -> Floats:
    """Pairs (a positive's row above a negative's row) by person, float64[P, Q]; ties half."""
    found = np.zeros((len(positive), len(negative)))
    if not found.size:
        return found
    place = np.full(int(rows.max()) + 1, -1)
    place[negative] = np.arange(len(negative))
    theirs = np.flatnonzero(place[rows] >= 0)
    ranked = np.sort(scores[theirs])
    theirs = theirs[np.argsort(place[rows[theirs]], kind="stable")]  # person by person
    begins = np.searchsorted(place[rows[theirs]], np.arange(len(negative)))
    ranks = np.searchsorted(ranked, scores[theirs])
    place[:] = -1
    place[positive] = np.arange(len(positive))
    mine = np.flatnonzero(place[rows] >= 0)
    edges = [np.searchsorted(ranked, scores[mine], side) for side in ("left", "right")]
    for start in range(0, len(positive), GROUP):
        # How often a row of person i has just k of the ranked rows below it; summed from the
        # right, how many rows of i lie above the k-th of them.
        group = found[start : start + GROUP]
        person = place[rows[mine]] - start
        near = (person >= 0) & (person < len(group))
        steps = np.zeros((len(group), len(ranked) + 1))
        for edge in edges:
            np.add.at(steps, (person[near], edge[near]), 0.5)
        above = steps[:, ::-1].cumsum(axis=1)[:, -2::-1]
        group[...] = np.add.reduceat(above[:, ranks], begins, axis=1)
    return found
