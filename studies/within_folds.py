"""AUC of a cross-validation: pairs of people are compared by one fold's model only. Pure NumPy.

Each fold has a model of its own, and a score of one says nothing beside a score of another: pooled
over folds, honest models can look worse than chance, since a fold rich in ill people is scored by a
model that saw few (Parker, Günter & Bedo 2007, BMC Bioinformatics 8:326; Airola et al. 2011). So a
person with the class is held only against people without it whom the same model scored. That is the
mean of the folds' AUCs, each by its pairs, and its bootstrap may resample people freely.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class WithinFolds:
    """The statistic, as `evaluation.intervals.bootstrap` takes it.

    Attributes:
        positive, negative: int64[P], int64[Q], the people with and without the class.
        won: float64[P, Q], in how many repeats the pair met and stood in the right order (a tie:
            half).
        met: float64[P, Q], in how many repeats one model scored both.
    """

    positive: Integers
    negative: Integers
    won: Floats
    met: Floats

    @classmethod
    def of(cls, scores: Floats, folds: Integers, labels: Integers) -> "WithinFolds":
        """Counts the pairs.

        Args:
            scores: float64[R, S], of each repeat of the cross-validation, finite.
            folds: int64[R, S], the fold that each person was tested in.
            labels: int64[S], 1 with the class and 0 without.
        """
        positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels != 1)
        met = folds[:, positive, None] == folds[:, None, negative]
        ahead = scores[:, positive, None] - scores[:, None, negative]
        won = np.where(met, (np.sign(ahead) + 1) / 2, 0.0)
        return cls(positive, negative, won.sum(axis=0), met.sum(axis=0, dtype=np.float64))

    @property
    def trials(self) -> int:
        """People in the smaller of the two groups."""
        return min(self.met.shape)

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Estimates float64[B] and influences float64[B, S] for weights float64[B, S]."""
        mine, theirs = weights[:, self.positive], weights[:, self.negative]
        pairs = (mine @ self.met * theirs).sum(axis=1)
        area = (mine @ self.won * theirs).sum(axis=1) / pairs
        influence = np.zeros_like(weights)
        share, scale = area[:, None], pairs[:, None]
        influence[:, self.positive] = (theirs @ self.won.T - share * (theirs @ self.met.T)) / scale
        influence[:, self.negative] = (mine @ self.won - share * (mine @ self.met)) / scale
        return area, influence


def pooled(scores: Floats, labels: Integers) -> float:
    """AUC over all pairs, whoever scored them: the mean over repeats. To be printed beside.

    Args:
        scores: float64[R, S].
        labels: int64[S], 1 and 0.
    """
    nobody = np.zeros(scores.shape, np.int64)
    everybody = np.ones((1, len(labels)))
    return float(WithinFolds.of(scores, nobody, labels)(everybody)[0][0])


def of_each_fold(scores: Floats, folds: Integers, labels: Integers) -> list[float]:
    """The AUC of each fold of each repeat, in order; NaN for a fold of one class only."""
    found = []
    for row, groups in zip(scores, folds, strict=True):
        for fold in np.unique(groups):
            here = groups == fold
            both = len(np.unique(labels[here])) == 2
            found.append(pooled(row[None, here], labels[here]) if both else float("nan"))
    return found
