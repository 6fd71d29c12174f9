"""What a classifier's probabilities are worth: one definition of each metric, in NumPy alone.

Every function takes `probabilities` float[N, C] in [0, 1] and `labels` int[N] in [0, C), and
raises ValueError, saying what is wrong, for other shapes, NaN, values out of range or no examples.
A number that the data cannot give (the AUC of an absent class) is NaN, never a guess. A macro
average is the plain mean over the evaluable classes: those of at least `min_per_class` examples
(at least one), and NaN where there is none.

Curves are in `metric_curves.py`, sensitivity and specificity in `operating_points.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer import ranking
from trainer.metric_inputs import (
    Booleans,
    Floats,
    Integers,
    checked,
    checked_table,
    one_hot,
    ratio,
)  # fmt: skip
from trainer.operating_points import OperatingPoint, rates_at

LEAST_PROBABILITY = 1e-7  # about the resolution of float32; Keras clips at the same


class Reliability(NamedTuple):
    """Confidence against accuracy in equal bins of confidence; NaN in empty bins.

    Attributes:
        edges: float64[B + 1].
        confidence: float64[B], mean probability of the class predicted.
        accuracy: float64[B].
        counts: int64[B].
    """

    edges: Floats
    confidence: Floats
    accuracy: Floats
    counts: Integers


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose most probable class is the true one."""
    table, truth = checked(probabilities, labels)
    return float((table.argmax(axis=1) == truth).mean())


def confusion_matrix(probabilities: ArrayLike, labels: ArrayLike) -> Integers:
    """Counts, int64[C (true), C (predicted)]."""
    table, truth = checked(probabilities, labels)
    classes = table.shape[1]
    pairs = truth * classes + table.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 of each class, float64[C] each.

    Precision is NaN for a class never predicted, recall for a class absent, F1 for both at once.
    """
    confusion = confusion_matrix(probabilities, labels)
    hits, predicted, true = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    return (ratio(hits, predicted), ratio(hits, true), ratio(2 * hits, predicted + true))


def macro_f1(probabilities: ArrayLike, labels: ArrayLike, min_per_class: int = 1) -> float:
    """Mean F1 over the evaluable classes."""
    table, truth = checked(probabilities, labels)
    _, _, f1 = precision_recall_f1(table, truth)
    return _macro(f1, evaluable(truth, table.shape[1], min_per_class))


def balanced_accuracy(probabilities: ArrayLike, labels: ArrayLike, min_per_class: int = 1) -> float:
    """Mean recall over the evaluable classes."""
    table, truth = checked(probabilities, labels)
    _, recall, _ = precision_recall_f1(table, truth)
    return _macro(recall, evaluable(truth, table.shape[1], min_per_class))


def collapsed(probabilities: ArrayLike) -> bool:
    """Whether one and the same class is predicted for every example."""
    predicted = checked_table(probabilities).argmax(axis=1)
    return bool((predicted == predicted[0]).all())


def evaluable(
    labels: ArrayLike, classes: int, min_per_class: int = 1, subjects: ArrayLike | None = None
) -> Booleans:
    """Which classes have enough examples for a number of their own, bool[C].

    Args:
        labels: int[N] in [0, C).
        classes: C.
        min_per_class: how many examples are enough; an absent class never has.
        subjects: [N], ids of any sortable type: people are counted instead.
    """
    truth = np.asarray(labels)
    if subjects is not None:
        _, first = np.unique(np.asarray(subjects), return_index=True)
        truth = truth[first]
    return np.bincount(truth, minlength=classes) >= max(min_per_class, 1)


def one_vs_rest_auc(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Area under each class's ROC curve, float64[C]; NaN without positives or negatives.

    The probability that a positive example scores above a negative one, ties counting half
    (Mann & Whitney 1947).
    """
    table, truth = checked(probabilities, labels)
    return _each(ranking.auc, table, truth)


def macro_auc(probabilities: ArrayLike, labels: ArrayLike, min_per_class: int = 1) -> float:
    """Mean one-vs-rest AUC over the evaluable classes."""
    table, truth = checked(probabilities, labels)
    return _macro(one_vs_rest_auc(table, truth), evaluable(truth, table.shape[1], min_per_class))


def micro_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """AUC of all (example, class) pairs pooled. Rewards predicting the prior: never a gate."""
    table, truth = checked(probabilities, labels)
    return ranking.auc(table.ravel(), one_hot(truth, table.shape[1]).ravel())


def average_precision(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Area under each class's precision–recall curve, float64[C]; NaN as for the AUC.

    A sum of steps (`ranking.average_precision`). A guess is worth the class's share of examples,
    so that values of classes of different size do not compare.
    """
    table, truth = checked(probabilities, labels)
    return _each(ranking.average_precision, table, truth)


def macro_average_precision(
    probabilities: ArrayLike, labels: ArrayLike, min_per_class: int = 1
) -> float:
    """Mean average precision over the evaluable classes."""
    table, truth = checked(probabilities, labels)
    return _macro(average_precision(table, truth), evaluable(truth, table.shape[1], min_per_class))


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance between probabilities and truth, summed over classes (Brier 1950).

    Returns:
        A number in [0, 2]; lower is better.
    """
    table, truth = checked(probabilities, labels)
    return float(np.square(table - one_hot(truth, table.shape[1])).sum(axis=1).mean())


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean −log of the probability given to the true class, in nats; lower is better.

    A probability below 1e-7 counts as 1e-7, so that one certain mistake costs 16.1 nats and not
    infinitely many.
    """
    table, truth = checked(probabilities, labels)
    given = table[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(given, LEAST_PROBABILITY, 1.0)).mean())


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> Reliability:
    """Compares the probability of the predicted class with how often it is right."""
    table, truth = checked(probabilities, labels)
    confidence, right = table.max(axis=1), table.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    return Reliability(
        edges,
        ratio(np.bincount(place, confidence, bins), counts),
        ratio(np.bincount(place, right, bins), counts),
        counts,
    )


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 10
) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence (Guo et al. 2017)."""
    found = reliability(probabilities, labels, bins)
    gaps = np.nan_to_num(np.abs(found.confidence - found.accuracy))
    return float((gaps * found.counts).sum() / found.counts.sum())


def quadratic_kappa(probabilities: ArrayLike, labels: ArrayLike, order: Sequence[int]) -> float:
    """Agreement of stages beyond chance, errors weighted by their squared distance (Cohen 1968).

    Args:
        probabilities: float[N, C].
        labels: int[N].
        order: the C labels from least to most severe.

    Returns:
        At most 1; 0 at chance. NaN where truth and predictions are all one and the same class.
    """
    counts = _by_severity(probabilities, labels, order).astype(np.float64)
    stages = np.arange(len(counts))
    weights = np.square(stages[:, None] - stages)
    chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    expected = (weights * chance).sum()
    return float(1 - (weights * counts).sum() / expected) if expected else float("nan")


def mean_stage_error(probabilities: ArrayLike, labels: ArrayLike, order: Sequence[int]) -> float:
    """Mean distance, in stages, between the predicted and the true one; `order` as above."""
    counts = _by_severity(probabilities, labels, order)
    stages = np.arange(len(counts))
    return float((np.abs(stages[:, None] - stages) * counts).sum() / counts.sum())


def aggregate_by_subject(
    probabilities: ArrayLike, labels: ArrayLike, subjects: ArrayLike
) -> tuple[NDArray[Any], Floats, Integers]:
    """Averages the probabilities of each subject's slices.

    Args:
        probabilities: float[N, C].
        labels: int[N].
        subjects: [N], ids of any sortable type.

    Returns:
        Sorted ids [S], mean probabilities float64[S, C], labels int64[S].

    Raises:
        ValueError: also where a subject has two labels, or ids and labels differ in number.
    """
    table, truth = checked(probabilities, labels)
    ids, first, place = np.unique(np.asarray(subjects), return_index=True, return_inverse=True)
    if place.shape != truth.shape:
        raise ValueError(
            f"Each example needs one subject id. Received: {place.size} ids, {truth.size} labels."
        )
    own = truth[first]
    torn = own[place] != truth
    if torn.any():
        culprit = ids[place[torn][0]]
        raise ValueError(
            f"A subject has one label, but subject {culprit!r} has "
            f"{sorted({int(label) for label in truth[ids[place] == culprit]})}. "
            "Correct the labels, or the pattern that reads subject ids."
        )
    sums = np.zeros((len(ids), table.shape[1]))
    np.add.at(sums, place, table)
    return ids, sums / np.bincount(place)[:, None], own


def summary(
    probabilities: ArrayLike,
    labels: ArrayLike,
    severity: Sequence[int] | None = None,
    *,
    min_per_class: int = 1,
    subjects: ArrayLike | None = None,
    operating_point: OperatingPoint | None = None,
) -> dict[str, Any]:
    """Every metric, by name, ready for JSON (NaN where not evaluable).

    Args:
        probabilities: float[N, C].
        labels: int[N].
        severity: the C labels from least to most severe; None leaves out the ordinal metrics.
        min_per_class: examples, or people where `subjects` are given, that make a class evaluable;
            macro averages are over these.
        subjects: [N], the person of each slice: so a class of two people is not evaluable by
            slices either, however many there are.
        operating_point: where sensitivity and specificity are read; None leaves them out.

    Returns:
        `examples`, `accuracy`, `balanced_accuracy`, `macro_auc`, `micro_auc`,
        `macro_average_precision`, `macro_f1`, `brier`, `log_loss`, `expected_calibration_error`,
        `collapsed`; per class, as lists, `auc`, `average_precision`, `precision`, `recall`, `f1`,
        `support`, `evaluable`; `confusion_matrix` [true][predicted]; with `severity` also
        `quadratic_kappa` and `mean_stage_error`; with `operating_point` also `threshold`,
        `sensitivity` and `specificity`.
    """
    table, truth = checked(probabilities, labels)
    precision, recall, f1 = precision_recall_f1(table, truth)
    areas, precisions = one_vs_rest_auc(table, truth), average_precision(table, truth)
    enough = evaluable(truth, table.shape[1], min_per_class, subjects)
    found = {
        "examples": len(truth),
        "accuracy": accuracy(table, truth),
        "balanced_accuracy": _macro(recall, enough),
        "macro_auc": _macro(areas, enough),
        "micro_auc": micro_auc(table, truth),
        "macro_average_precision": _macro(precisions, enough),
        "macro_f1": _macro(f1, enough),
        "brier": brier(table, truth),
        "log_loss": log_loss(table, truth),
        "expected_calibration_error": expected_calibration_error(table, truth),
        "collapsed": collapsed(table),
        "auc": areas.tolist(),
        "average_precision": precisions.tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": np.bincount(truth, minlength=table.shape[1]).tolist(),
        "evaluable": enough.tolist(),
        "confusion_matrix": confusion_matrix(table, truth).tolist(),
    }
    if severity is not None:
        found["quadratic_kappa"] = quadratic_kappa(table, truth, severity)
        found["mean_stage_error"] = mean_stage_error(table, truth, severity)
    if operating_point is not None:
        found["threshold"] = float(operating_point.threshold)
        found["sensitivity"], found["specificity"] = rates_at(table, truth, operating_point)
    return found


def _each(of: Callable[[Floats, Booleans], float], table: Floats, truth: Integers) -> Floats:
    """A number of each class against the rest."""
    hot = one_hot(truth, table.shape[1])
    return np.array([of(*column) for column in zip(table.T, hot.T, strict=True)])


def _macro(values: Floats, enough: Booleans) -> float:
    counted = values[enough & ~np.isnan(values)]
    return float(counted.mean()) if counted.size else float("nan")


def _by_severity(probabilities: ArrayLike, labels: ArrayLike, order: Sequence[int]) -> Integers:
    counts = confusion_matrix(probabilities, labels)
    if sorted(order) != list(range(len(counts))):
        raise ValueError(
            f"Severity must order all {len(counts)} labels, each once. Received: {list(order)}."
        )
    return counts[np.ix_(order, order)]
