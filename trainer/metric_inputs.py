"""What every metric takes, checked once: probabilities float[N, C] and labels int[N]."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def checked_table(probabilities: ArrayLike) -> Floats:
    """The probabilities as float64[N, C].

    Raises:
        ValueError: another shape, nothing in it, NaN or infinity, or values outside [0, 1].
    """
    table = np.asarray(probabilities, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(
            "Probabilities must be a table of N examples × C classes, with at least one example. "
            f"Received shape: {table.shape}."
        )
    if not np.isfinite(table).all():
        rows = int((~np.isfinite(table)).any(axis=1).sum())
        raise ValueError(
            f"Probabilities must be finite. Received: NaN or infinity in {rows} of {len(table)} "
            "rows. The model that gave them is broken; do not score it."
        )
    # Room for the rounding of float32 and of int8 outputs.
    if table.min() < -1e-6 or table.max() > 1 + 1e-6:
        raise ValueError(
            f"Probabilities must lie in [0, 1]. Received: {table.min():.3g} to {table.max():.3g}. "
            "Apply a softmax to logits first."
        )
    return table


def checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    """Probabilities float64[N, C] and labels int64[N] in [0, C).

    Raises:
        ValueError: as `checked_table`; or labels that are not N integers in [0, C).
    """
    table, truth = checked_table(probabilities), np.asarray(labels)
    if truth.shape != (len(table),) or not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(
            f"Labels must be integers, one for each of {len(table)} examples. "
            f"Received: {truth.dtype} of shape {truth.shape}."
        )
    if truth.min() < 0 or truth.max() >= table.shape[1]:
        raise ValueError(
            f"Labels must lie in [0, {table.shape[1]}). Received: {truth.min()} to {truth.max()}. "
            "Leave unlabelled examples (-1) out."
        )
    return table, truth.astype(np.int64)


def checked_scores(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Booleans]:
    """Scores float64[N] of one question, and bool[N]: for whom the answer is yes.

    Raises:
        ValueError: nobody, other shapes, scores that are not finite, or truths that are not bool.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive)
    if values.ndim != 1 or not values.size or values.shape != truth.shape:
        raise ValueError(
            "Each of N ≥ 1 people needs one score and one truth. "
            f"Received shapes: {values.shape} and {truth.shape}."
        )
    if truth.dtype != np.bool_:
        raise ValueError(
            f"Truths must be booleans (received {truth.dtype}), for example labels == 1."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"Scores must be finite (received NaN or infinity in {(~np.isfinite(values)).sum()} of "
            f"{values.size})."
        )
    return values, truth


def one_hot(truth: Integers, classes: int) -> Booleans:
    """bool[N, C], one True in each row."""
    return truth[:, None] == np.arange(classes)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Quotient, NaN where the whole is 0."""
    blank = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=blank, where=np.asarray(whole) > 0)
