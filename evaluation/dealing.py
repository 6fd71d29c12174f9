"""People dealt anew to two groups by chance: what differences look like where there are none."""

import dataclasses

import numpy as np

from evaluation.histograms import Histograms


@dataclasses.dataclass(frozen=True)
class Dealing:
    """How rows may be dealt anew, and what each weighs in either group.

    Attributes:
        current: bool[U], as it was.
        early, late: float64[U], a row's weight in the reference's and in the current mean.
        blocks: rows that may change places, int[·] each: of people who appear once, by stratum.
        pairs: int[P, 2], rows of people who appear in both groups, within one stratum.
    """

    current: np.ndarray
    early: np.ndarray
    late: np.ndarray
    blocks: list[np.ndarray]
    pairs: np.ndarray

    @classmethod
    def of(cls, table: Histograms, stratum: np.ndarray | None) -> "Dealing":
        """Everybody in one stratum, or in the strata given: int[U]."""
        stratum = np.zeros(len(table.current), int) if stratum is None else stratum
        count = int(stratum.max()) + 1
        before = np.bincount(stratum[~table.current], minlength=count)
        after = np.bincount(stratum[table.current], minlength=count)
        common = (before > 0) & (after > 0)
        share = np.where(common, before, 0) / max(before[common].sum(), 1)
        order = np.argsort(table.person, kind="stable")
        twice = table.person[order][1:] == table.person[order][:-1]
        both = np.stack([order[:-1][twice], order[1:][twice]], 1)
        single = np.ones(len(stratum), bool)
        single[both.ravel()] = False
        return cls(
            table.current,
            (share / np.maximum(before, 1))[stratum],
            (share / np.maximum(after, 1))[stratum],
            [np.flatnonzero(single & (stratum == s)) for s in np.flatnonzero(common)],
            both[stratum[both[:, 0]] == stratum[both[:, 1]]],
        )

    def deal(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Who is in the current group, `count` times by chance: bool[count, U]."""
        dealt = np.tile(self.current, (count, 1))
        for rows in self.blocks:
            dealt[:, rows] = rng.permuted(dealt[:, rows], axis=1)
        swap = rng.random((count, len(self.pairs))) < 0.5
        first = dealt[:, self.pairs[:, 0]] ^ swap
        dealt[:, self.pairs[:, 0]], dealt[:, self.pairs[:, 1]] = first, ~first
        return dealt

    def means(self, table: Histograms, dealt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean histograms of both groups: two float64[count, H]."""
        return (
            np.where(dealt, 0.0, self.early) @ table.histograms,
            np.where(dealt, self.late, 0.0) @ table.histograms,
        )
