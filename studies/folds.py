"""Who tests when: people, or slices, dealt out to folds. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

from studies.slices import StudyError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows to train on, rows to test on


def deal(labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Deals people out to folds, each class evenly.

    The classes are dealt one after another without starting anew, so that the folds' sizes differ
    by one at most, and so do each class's counts.

    Args:
        labels: int64[P], one per person.
        folds: how many.
        seed: of the shuffle within each class.

    Returns:
        int64[P] in [0, folds).

    Raises:
        StudyError: fewer than two folds, or more than there are people.
    """
    if not 2 <= folds <= len(labels):
        raise StudyError(
            f"Folds must be 2 or more, and no more than people (received folds={folds}, "
            f"{len(labels)} people). Choose between."
        )
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    dealt = np.empty(len(labels), np.int64)
    dealt[by_class] = np.arange(len(labels)) % folds
    return dealt


def by_group(groups: NDArray[np.int64], folds: int) -> list[Fold]:
    """Folds of rows whose groups, int64[N] in [0, folds), are given."""
    return [(np.flatnonzero(groups != k), np.flatnonzero(groups == k)) for k in range(folds)]


def random_slices(rows: int, folds: int, seed: int) -> list[Fold]:
    """Slices dealt out at random, as published systems do: everybody is on both sides."""
    order = np.random.default_rng(seed).permutation(rows)
    groups = np.empty(rows, np.int64)
    groups[order] = np.arange(rows) % folds
    return by_group(groups, folds)


def shipped(
    labels: NDArray[np.int64], positions: NDArray[np.int64], share: float = 0.8
) -> list[Fold]:
    """One split as the public release ships it: of each class the first slices of all people train.

    Files stand in order of slice, then person, and are cut at `share`, so that
    everybody is on both sides and the test shows the top of the brain alone.

    Args:
        labels: int64[N].
        positions: int64[N], known.
        share: of each class's files that train.
    """
    train, test = [], []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(positions[rows], kind="stable")]
        cut = int(share * len(rows))
        train.append(rows[:cut])
        test.append(rows[cut:])
    return [(np.sort(np.concatenate(train)), np.sort(np.concatenate(test)))]
