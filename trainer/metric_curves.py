"""ROC and precision–recall curves, one class against the rest; their areas are those of `metrics`.

Every function takes `probabilities` float[N, C] in [0, 1] and `labels` int[N] in [0, C), and
raises ValueError as `trainer.metrics` does.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trainer import ranking
from trainer.metric_inputs import Booleans, Floats, Integers, checked, one_hot


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
        macro: mean of the evaluable classes' curves over a common grid; None without any.
    """

    classes: tuple[Curve | None, ...]
    micro: Curve
    macro: Curve | None


def roc_curves(
    probabilities: ArrayLike, labels: ArrayLike, evaluable: Collection[int] | None = None
) -> Curves:
    """ROC curves, one-vs-rest.

    Args:
        probabilities, labels: as above.
        evaluable: classes that the macro curve is the mean of; None: all that have a curve. Its
            area is then `metrics.macro_auc` over the same classes.
    """
    return _curves(*checked(probabilities, labels), _roc, evaluable)


def precision_recall_curves(
    probabilities: ArrayLike, labels: ArrayLike, evaluable: Collection[int] | None = None
) -> Curves:
    """Precision–recall curves, one-vs-rest; the macro area is `metrics.macro_average_precision`.

    Args as of `roc_curves`.
    """
    return _curves(*checked(probabilities, labels), _precision_recall, evaluable)


def _roc(scores: Floats, positive: Booleans) -> Curve:
    hits, alarms = ranking.positives_above(scores, positive)
    x = np.append(0.0, alarms / alarms[-1])
    y = np.append(0.0, hits / hits[-1])
    return Curve(x, y, ranking.auc(scores, positive))


def _precision_recall(scores: Floats, positive: Booleans) -> Curve:
    hits, alarms = ranking.positives_above(scores, positive)
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    area = ranking.area_of_steps(hits, alarms)
    return Curve(np.append(0.0, recall), np.append(1.0, precision), area)


def _curves(
    table: Floats,
    truth: Integers,
    curve: Callable[[Floats, Booleans], Curve],
    evaluable: Collection[int] | None,
) -> Curves:
    hot = one_hot(truth, table.shape[1])
    by_class = tuple(
        curve(scores, positive) if 0 < positive.sum() < positive.size else None
        for scores, positive in zip(table.T, hot.T, strict=True)
    )
    found = [
        each
        for label, each in enumerate(by_class)
        if each is not None and (evaluable is None or label in evaluable)
    ]
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
