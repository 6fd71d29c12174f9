"""What a classifier's probabilities are worth: one definition of each metric, in NumPy alone.

Every function takes `probabilities` float[N, C] in [0, 1] and `labels` int[N] in [0, C), and
raises ValueError, saying what is wrong, for other shapes, NaN, values out of range or no examples.
A number that the data cannot give (the AUC of an absent class) is NaN, never a guess.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Curve(NamedTuple):
    """A curve of float64[P] points and the area under it.

    Attributes:
        x: false positive rate (ROC), or recall (precision–recall); never decreases.
        y: true positive rate, or precision.
        area: AUC by the trapezoidal rule, or average precision (a sum of steps).
    """

    x: Floats
    y: Floats
    area: float


class Curves(NamedTuple):
    """One curve for each class against the rest, and two summaries.

    Attributes:
        classes: by label; None where a class has no positives or no negatives.
        micro: of all (example, class) pairs pooled.
        macro: mean of the classes' curves over a common grid; None where no class has a curve.
    """

    classes: tuple[Curve | None, ...]
    micro: Curve
    macro: Curve | None


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
    table, truth = _checked(probabilities, labels)
    return float((table.argmax(axis=1) == truth).mean())


def confusion_matrix(probabilities: ArrayLike, labels: ArrayLike) -> Integers:
    """Counts, int64[C (true), C (predicted)]."""
    table, truth = _checked(probabilities, labels)
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
    return (_ratio(hits, predicted), _ratio(hits, true), _ratio(2 * hits, predicted + true))


def macro_f1(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean F1 over the classes present in `labels`."""
    _, recall, f1 = precision_recall_f1(probabilities, labels)
    return float(f1[~np.isnan(recall)].mean())


def balanced_accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean recall over the classes present in `labels`."""
    _, recall, _ = precision_recall_f1(probabilities, labels)
    return float(np.nanmean(recall))


def collapsed(probabilities: ArrayLike) -> bool:
    """Whether one and the same class is predicted for every example."""
    predicted = _table(probabilities).argmax(axis=1)
    return bool((predicted == predicted[0]).all())


def one_vs_rest_auc(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Area under each class's ROC curve, float64[C]; NaN without positives or negatives.

    The probability that a positive example scores above a negative one, ties counting half
    (Mann & Whitney 1947).
    """
    table, truth = _checked(probabilities, labels)
    classes = range(table.shape[1])
    return np.array([_auc(table[:, label], truth == label) for label in classes])


def macro_auc(probabilities: ArrayLike, labels: ArrayLike, min_per_class: int = 1) -> float:
    """Mean one-vs-rest AUC over the classes of at least `min_per_class` examples.

    Returns:
        NaN where no class is evaluable.
    """
    table, truth = _checked(probabilities, labels)
    enough = np.bincount(truth, minlength=table.shape[1]) >= max(min_per_class, 1)
    areas = one_vs_rest_auc(table, truth)
    evaluable = areas[enough & ~np.isnan(areas)]
    return float(evaluable.mean()) if evaluable.size else float("nan")


def micro_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """AUC of all (example, class) pairs pooled. Rewards predicting the prior: never a gate."""
    table, truth = _checked(probabilities, labels)
    return _auc(table.ravel(), _one_hot(truth, table.shape[1]).ravel())


def roc_curves(probabilities: ArrayLike, labels: ArrayLike) -> Curves:
    """ROC curves, one-vs-rest. The macro area is `macro_auc`."""
    table, truth = _checked(probabilities, labels)
    return _curves(table, truth, _roc)


def precision_recall_curves(probabilities: ArrayLike, labels: ArrayLike) -> Curves:
    """Precision–recall curves, one-vs-rest. Areas are average precisions."""
    table, truth = _checked(probabilities, labels)
    return _curves(table, truth, _precision_recall)


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance between probabilities and truth, summed over classes (Brier 1950).

    Returns:
        A number in [0, 2]; lower is better.
    """
    table, truth = _checked(probabilities, labels)
    return float(np.square(table - _one_hot(truth, table.shape[1])).sum(axis=1).mean())


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> Reliability:
    """Compares the probability of the predicted class with how often it is right."""
    table, truth = _checked(probabilities, labels)
    confidence, right = table.max(axis=1), table.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    return Reliability(
        edges,
        _ratio(np.bincount(place, confidence, bins), counts),
        _ratio(np.bincount(place, right, bins), counts),
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
    table, truth = _checked(probabilities, labels)
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
    probabilities: ArrayLike, labels: ArrayLike, severity: Sequence[int] | None = None
) -> dict[str, Any]:
    """Every metric, by name, ready for JSON (NaN where not evaluable).

    Args:
        probabilities: float[N, C].
        labels: int[N].
        severity: the C labels from least to most severe; None leaves out the ordinal metrics.

    Returns:
        `examples`, `accuracy`, `balanced_accuracy`, `macro_auc`, `micro_auc`, `macro_f1`, `brier`,
        `expected_calibration_error`, `collapsed`; per class, as lists, `auc`, `precision`,
        `recall`, `f1`, `support`; `confusion_matrix` [true][predicted]; with `severity` also
        `quadratic_kappa` and `mean_stage_error`.
    """
    table, truth = _checked(probabilities, labels)
    precision, recall, f1 = precision_recall_f1(table, truth)
    found = {
        "examples": len(truth),
        "accuracy": accuracy(table, truth),
        "balanced_accuracy": balanced_accuracy(table, truth),
        "macro_auc": macro_auc(table, truth),
        "micro_auc": micro_auc(table, truth),
        "macro_f1": macro_f1(table, truth),
        "brier": brier(table, truth),
        "expected_calibration_error": expected_calibration_error(table, truth),
        "collapsed": collapsed(table),
        "auc": one_vs_rest_auc(table, truth).tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": np.bincount(truth, minlength=table.shape[1]).tolist(),
        "confusion_matrix": confusion_matrix(table, truth).tolist(),
    }
    if severity is not None:
        found["quadratic_kappa"] = quadratic_kappa(table, truth, severity)
        found["mean_stage_error"] = mean_stage_error(table, truth, severity)
    return found


def _table(probabilities: ArrayLike) -> Floats:
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


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    table, truth = _table(probabilities), np.asarray(labels)
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


def _one_hot(truth: Integers, classes: int) -> NDArray[np.bool_]:
    return truth[:, None] == np.arange(classes)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Quotient, NaN where the whole is 0."""
    blank = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=blank, where=np.asarray(whole) > 0)


def _auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    wins = ranks[place][positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def _hits(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """True and false positives at each distinct threshold, highest first."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    hits = np.cumsum(positive[order])[last_of_ties].astype(np.float64)
    return hits, last_of_ties + 1.0 - hits


def _roc(scores: Floats, positive: NDArray[np.bool_]) -> Curve:
    hits, alarms = _hits(scores, positive)
    x = np.append(0.0, alarms / alarms[-1])
    y = np.append(0.0, hits / hits[-1])
    return Curve(x, y, _auc(scores, positive))


def _precision_recall(scores: Floats, positive: NDArray[np.bool_]) -> Curve:
    hits, alarms = _hits(scores, positive)
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    area = float((np.diff(recall, prepend=0.0) * precision).sum())
    return Curve(np.append(0.0, recall), np.append(1.0, precision), area)


def _curves(table: Floats, truth: Integers, curve: Any) -> Curves:
    hot = _one_hot(truth, table.shape[1])
    by_class = tuple(
        curve(scores, positive) if 0 < positive.sum() < positive.size else None
        for scores, positive in zip(table.T, hot.T, strict=True)
    )
    found = [each for each in by_class if each is not None]
    macro = None
    if found:
        # Curves rise or fall upright at a tied x: the mean keeps both ends of each such step.
        grid = np.unique(np.concatenate([each.x for each in found]))
        ends = [np.mean([_at(grid, each, end) for each in found], axis=0) for end in (0, -1)]
        area = float(np.mean([each.area for each in found]))
        macro = Curve(np.repeat(grid, 2), np.stack(ends, axis=1).ravel(), area)
    return Curves(by_class, curve(table.ravel(), hot.ravel()), macro)


def _at(grid: Floats, of: Curve, end: int) -> Floats:
    """The curve's y on `grid`; of tied x the first (`end` 0) or the last (`end` -1)."""
    y = np.interp(grid, of.x, of.y)
    place = np.searchsorted(of.x, grid, "right") - 1 if end else np.searchsorted(of.x, grid)
    exact = of.x[place] == grid
    y[exact] = of.y[place[exact]]
    return y


def _by_severity(probabilities: ArrayLike, labels: ArrayLike, order: Sequence[int]) -> Integers:
    counts = confusion_matrix(probabilities, labels)
    if sorted(order) != list(range(len(counts))):
        raise ValueError(
            f"Severity must order all {len(counts)} labels, each once. Received: {list(order)}."
        )
    return counts[np.ix_(order, order)]
