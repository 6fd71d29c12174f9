"""Sensitivity and specificity where a probability becomes a yes.

The question is "does this person have any of these classes?", its score the sum of their
probabilities, and the answer yes where the score is at least the threshold. The threshold is set on
validation people and only read on test people.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from trainer.metric_inputs import Booleans, Floats, checked, checked_scores, checked_table


class OperatingPoint(NamedTuple):
    """A question, and from which score on it is answered with yes.

    Attributes:
        classes: labels that make the answer yes.
        threshold: least score, in [0, 1], that is a yes; NaN where none could be set.
    """

    classes: tuple[int, ...]
    threshold: float


def union_probability(probabilities: ArrayLike, classes: Sequence[int]) -> Floats:
    """The probability of having any of some classes, float64[N].

    Args:
        probabilities: float[N, C], rows that sum to 1.
        classes: labels, each once; some but not all of the C.

    Raises:
        ValueError: probabilities as in `trainer.metrics`, or classes that ask nothing.
    """
    table = checked_table(probabilities)
    return table[:, _asked(classes, table.shape[1])].sum(axis=1)


def threshold_for_sensitivity(scores: ArrayLike, positive: ArrayLike, target: float) -> float:
    """The highest threshold that may be expected to find `target` of the positives of new people.

    With n positives it is the score of the k-th highest of them, k = ⌈target · (n + 1)⌉. Of one
    more positive, exchangeable with these, the chance to score at least as high is k / (n + 1), or
    more where scores are tied: the quantile of conformal prediction (Vovk et al. 2005). The plain
    share, ⌈target · n⌉, finds `target` of those on whom it was set, and fewer of new people.

    Args:
        scores: float[N], of validation people.
        positive: bool[N].
        target: sensitivity wanted, in (0, 1).

    Returns:
        One of the scores; NaN below target / (1 − target) positives (9 for .90), of whom even the
        lowest score promises too little.

    Raises:
        ValueError: scores and truths do not fit together, or a target outside (0, 1).
    """
    if not 0 < target < 1:
        raise ValueError(f"A target sensitivity lies between 0 and 1 (received {target}).")
    values, truth = checked_scores(scores, positive)
    found = np.sort(values[truth])[::-1]
    wanted = math.ceil(target * (len(found) + 1) - 1e-9)  # .7 · 10 is a little over 7 in binary
    return float(found[wanted - 1]) if wanted <= len(found) else float("nan")


def sensitivity_specificity(
    scores: ArrayLike, positive: ArrayLike, threshold: float
) -> tuple[float, float]:
    """Share of positives at or above a threshold, and of negatives below it.

    Args:
        scores: float[N].
        positive: bool[N].
        threshold: from which score on the answer is yes.

    Returns:
        Sensitivity, NaN without positives; specificity, NaN without negatives. Both NaN where the
        threshold is.
    """
    values, truth = checked_scores(scores, positive)
    yes = values >= threshold
    if math.isnan(threshold):
        return float("nan"), float("nan")
    return _share(yes[truth]), _share(~yes[~truth])


def rates_at(
    probabilities: ArrayLike, labels: ArrayLike, point: OperatingPoint
) -> tuple[float, float]:
    """Sensitivity and specificity of a classifier at an operating point, as above."""
    table, truth = checked(probabilities, labels)
    scores = union_probability(table, point.classes)
    return sensitivity_specificity(scores, np.isin(truth, point.classes), point.threshold)


def _share(answers: Booleans) -> float:
    return float(answers.mean()) if answers.size else float("nan")


def _asked(classes: Sequence[int], known: int) -> list[int]:
    asked = sorted(set(classes))
    if (
        len(asked) != len(classes)
        or not 0 < len(asked) < known
        or not set(asked) < set(range(known))
    ):
        raise ValueError(
            f"Ask for some but not all of the {known} classes, each once, by labels in "
            f"[0, {known}). Received: {list(classes)}."
        )
    return asked
