"""Finding equal and look-alike images between two sets, in bounded memory. NumPy alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

BLOCK = 2048  # images of a side at once: 16 MB of products, 32 MB of vectors a side at 64 pixels
ROUNDING = 1e-6  # of a float32 product of unit vectors: equal images stay at or above 1

Progress = Callable[[int, int], None]


class LookAlikes(NamedTuple):
    """Pairs of images that correlate at or above a threshold.

    Attributes:
        number: how many pairs there are.
        i, j: int64[K], their rows in the two sets; the K most alike, best first.
        correlation: float32[K].
        flagged: bool[N_b], whether an image of the second set has any look-alike in the first.
        highest: the highest correlation of any pair, below the threshold too; -1 without images.
    """

    number: int
    i: np.ndarray
    j: np.ndarray
    correlation: np.ndarray
    flagged: np.ndarray
    highest: float


def halved(thumbnails: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels: uint8[N, S, S] → uint8[N, S/2, S/2], S even."""
    count, side, _ = thumbnails.shape
    parts = thumbnails.reshape(count, side // 2, 2, side // 2, 2)
    return ((parts.sum((2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def unit_vectors(thumbnails: np.ndarray) -> np.ndarray:
    """Vectors whose dot product is the normalised cross-correlation (Pearson's r over pixels).

    Args:
        thumbnails: uint8[N, S, S].

    Returns:
        float32[N, S²] of mean 0 and length 1; zeros for an image of one grey level, which
        correlates with nothing.
    """
    pixels = thumbnails.shape[1] * thumbnails.shape[2]
    vectors = thumbnails.reshape(len(thumbnails), pixels).astype(np.float32)
    vectors -= vectors.mean(1, keepdims=True)
    lengths = np.sqrt(np.einsum("np,np->n", vectors, vectors))
    vectors /= np.where(lengths > 0, lengths, 1)[:, None]
    return vectors


def look_alikes(
    a: np.ndarray,
    b: np.ndarray,
    threshold: float,
    keep: int,
    progress: Progress | None = None,
) -> LookAlikes:
    """Correlates every image of one set with every image of another.

    The N_a×N_b matrix is never held: memory is two blocks of vectors, their product, and `keep`
    pairs, whatever the number of images.

    Args:
        a: uint8[N_a, S, S].
        b: uint8[N_b, S, S].
        threshold: least correlation of a pair, in (0, 1].
        keep: how many pairs are told; all are counted.
        progress: called with pairs done and pairs in all.
    """
    worst: tuple[np.ndarray, ...] = (np.empty(0, np.int64),) * 2 + (np.empty(0, np.float32),)
    count, highest = 0, -1.0
    flagged = np.zeros(len(b), bool)
    for top in range(0, len(a), BLOCK):
        rows = unit_vectors(a[top : top + BLOCK])
        for left in range(0, len(b), BLOCK):
            product = rows @ unit_vectors(b[left : left + BLOCK]).T
            highest = max(highest, float(product.max()))
            i, j = np.nonzero(product >= threshold - ROUNDING)
            if len(i):
                count += len(i)
                flagged[left + j] = True
                worst = _most_alike(worst, (i + top, j + left, product[i, j]), keep)
            if progress:
                done = top * len(b) + len(rows) * min(left + BLOCK, len(b))
                progress(done, len(a) * len(b))
    i, j, correlation = worst
    # Rounded, so that the order of equals does not hang on the machine's matrix product.
    order = np.lexsort((j, i, -correlation.round(5)))
    return LookAlikes(count, i[order], j[order], correlation[order], flagged, min(highest, 1.0))


def _most_alike(
    held: tuple[np.ndarray, ...], found: tuple[np.ndarray, ...], keep: int
) -> tuple[np.ndarray, ...]:
    i, j, correlation = (np.concatenate(pair) for pair in zip(held, found, strict=True))
    if len(correlation) > keep:
        best = np.argpartition(-correlation, keep - 1)[:keep]
        i, j, correlation = i[best], j[best], correlation[best]
    return i, j, correlation


def equal_entries(a: np.ndarray, b: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Entries that two columns share.

    Args:
        a: unicode[N_a].
        b: unicode[N_b].

    Returns:
        The number of pairs of equal entries, and int64[K], int64[K]: for each of the K values that
        both hold, the first row of each column that has it, in order of the value.
    """
    values_a, first_a, counts_a = np.unique(a, return_index=True, return_counts=True)
    values_b, first_b, counts_b = np.unique(b, return_index=True, return_counts=True)
    _, at_a, at_b = np.intersect1d(values_a, values_b, assume_unique=True, return_indices=True)
    pairs = int((counts_a[at_a] * counts_b[at_b]).sum())
    return pairs, first_a[at_a], first_b[at_b]


def copies(digests: np.ndarray) -> int:
    """How many images are exact copies of another one of the same set."""
    return len(digests) - len(np.unique(digests))


def contradictions(digests: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """First rows, int64[K], of the K images that stand in one set under two labels or more.

    Args:
        digests: unicode[N].
        labels: int64[N], -1 where unlabelled, which contradicts nothing.
    """
    known = np.flatnonzero(labels >= 0)
    _, first, which = np.unique(digests[known], return_index=True, return_inverse=True)
    distinct = np.unique(np.stack([which, labels[known]]), axis=1)
    return known[first[np.bincount(distinct[0], minlength=len(first)) > 1]]


def own_look_alikes(
    thumbnails: np.ndarray, subjects: np.ndarray, threshold: float, people: int
) -> float | None:
    """How sure a person under two names would be noticed, measured on people under one.

    Args:
        thumbnails: uint8[N, S, S].
        subjects: unicode[N], empty where unknown.
        threshold: as `look_alikes`.
        people: of how many, spread evenly, to measure.

    Returns:
        The share of images, in [0, 1], that have a look-alike among the others of their person;
        None where nobody has two images.
    """
    known = np.unique(subjects[subjects != ""])
    chosen = known[:: max(1, -(-len(known) // people))]
    found = images = 0
    for person in chosen:
        vectors = unit_vectors(thumbnails[subjects == person])
        if len(vectors) > 1:
            product = vectors @ vectors.T
            np.fill_diagonal(product, -1)
            found += int((product.max(1) >= threshold - ROUNDING).sum())
            images += len(vectors)
    return found / images if images else None
