"""How well scores put those who have something above those who do not.

Scores are float64[N], finite; `positive` is bool[N]. Only their order counts, so any increasing
transform of the scores gives the same. Equal scores are one threshold: nobody is put above another
by the order of rows.
"""

import numpy as np

from trainer.metric_inputs import Booleans, Floats


def auc(scores: Floats, positive: Booleans) -> float:
    """The chance that a positive scores above a negative, ties counting half.

    This is the area under the ROC curve (Mann & Whitney 1947; Bamber 1975).

    Returns:
        NaN without positives or without negatives.
    """
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    wins = ranks[place][positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def average_precision(scores: Floats, positive: Booleans) -> float:
    """Mean of the precisions at which each positive is found: area under the steps of the PR curve.

    Nothing is interpolated between thresholds, which would be too hopeful (Davis & Goadrich 2006).

    Returns:
        NaN without positives or without negatives. Chance is the share of positives.
    """
    if not 0 < positive.sum() < positive.size:
        return float("nan")
    return area_of_steps(*positives_above(scores, positive))


def area_of_steps(hits: Floats, alarms: Floats) -> float:
    """Average precision from counts.

    Args:
        hits: float64[P], positives at or above each threshold, highest threshold first; the last
            threshold must let everyone through.
        alarms: float64[P], negatives likewise.

    Returns:
        NaN without positives.
    """
    if not hits[-1]:
        return float("nan")
    gained = np.diff(hits, prepend=0.0)
    found = gained > 0
    return float((gained[found] * hits[found] / (hits + alarms)[found]).sum() / hits[-1])


def area_of_trapezoids(hits: Floats, alarms: Floats) -> float:
    """AUC from counts, as `area_of_steps` takes them; NaN without positives or negatives."""
    if not hits[-1] or not alarms[-1]:
        return float("nan")
    area = np.trapz(np.append(0.0, hits), np.append(0.0, alarms))
    return float(area / (hits[-1] * alarms[-1]))


def positives_above(scores: Floats, positive: Booleans) -> tuple[Floats, Floats]:
    """True and false positives at each distinct threshold, highest first: float64[P] each."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    hits = np.cumsum(positive[order])[last_of_ties].astype(np.float64)
    return hits, last_of_ties + 1.0 - hits
