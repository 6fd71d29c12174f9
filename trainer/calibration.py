"""Temperature scaling: probabilities that mean what they say (Guo et al. 2017).

A classifier's logits are divided by one number T before the softmax. The class chosen for an image
stays the same; how sure the model says it is does not. T is fitted on validation people, whom
training has seen only to choose its best epoch.

Every person counts as much as any other: a slice weighs 1 / (slices of its person), for a person is
what is judged. The fit is on slices all the same, since T is applied to slices, and it is convex
there; the average of a person's probabilities is not.
"""

import dataclasses
import logging

import numpy as np
from scipy.optimize import minimize_scalar

from trainer import metrics
from trainer.examples import Examples
from trainer.stages.trained import Trained
from trainer.validation import log_softmax, predictor

LOG = logging.getLogger(__name__)

LOWEST, HIGHEST = 0.05, 20.0
FEWEST_PEOPLE = 10  # one number is fitted, but on fewer than these it says more of them than of T
_TOLERANCE = 1e-6  # of log T


def calibrated(trained: Trained, examples: Examples) -> Trained:
    """Gives a classifier its temperature.

    Args:
        trained: a stage's; its model maps images to logits.
        examples: validation examples, labelled.

    Returns:
        The same with `temperature`, and with `calibration`, which tells what that does to the
        examples, by name: `nll_before`, `nll_after` (log-loss in nats, people weighing the same),
        `ece_before`, `ece_after` (expected calibration error of people's mean probabilities, ten
        bins; of slices where people are not known).
    """
    logits = predictor(trained.model)(examples.images)
    labels, groups = examples.labels, examples.subjects
    temperature = fit_temperature(logits, labels, groups)
    measured = {}
    for moment, divisor in (("before", 1.0), ("after", temperature)):
        measured[f"nll_{moment}"] = negative_log_likelihood(logits / divisor, labels, groups)
        measured[f"ece_{moment}"] = _calibration_error(logits / divisor, labels, groups)
    LOG.info(
        "Temperature %.3f: log-loss %.3f (before: %.3f), calibration error %.3f (before: %.3f)",
        temperature, measured["nll_after"], measured["nll_before"],
        measured["ece_after"], measured["ece_before"],
    )  # fmt: skip
    return dataclasses.replace(trained, temperature=temperature, calibration=measured)


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """Finds the T in [0.05, 20] that makes the labels most likely under `softmax(logits / T)`.

    Args:
        logits: `float[N, C]`, finite.
        labels: `int[N]` in [0, C).
        groups: `[N]`, the person of each slice; `None` takes each slice for a person.

    Returns:
        T; 1.0, with a line in the log, where the data cannot tell: fewer than ten people, one class
        only, every slice classified rightly (the likelihood then grows as T falls to 0), or logits
        that say no more than chance (it grows as T rises without end).
    """
    logits = np.asarray(logits, dtype=np.float64)
    weights = _weights(len(labels), groups)
    reason = _untellable(logits, labels, weights, groups)
    if reason is not None:
        LOG.warning("Probabilities keep temperature 1: %s", reason)
        return 1.0

    def loss(log_temperature: float) -> float:
        return _weighted_loss(logits / np.exp(log_temperature), labels, weights)

    # Convex in 1 / T, so there is one minimum in T and in its logarithm, too.
    found = minimize_scalar(
        loss, bounds=np.log([LOWEST, HIGHEST]), method="bounded", options={"xatol": _TOLERANCE}
    )
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def negative_log_likelihood(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """Mean cross-entropy in nats, every group counting the same; arguments as above."""
    weights = _weights(len(labels), groups)
    return _weighted_loss(np.asarray(logits, dtype=np.float64), labels, weights)


def _weights(count: int, groups: np.ndarray | None) -> np.ndarray:
    """Weight of each slice, `float64[N]`; they sum to 1."""
    if groups is None:
        return np.full(count, 1 / count)
    _, place = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    sizes = np.bincount(place)
    return 1 / (sizes[place] * len(sizes))


def _weighted_loss(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    chosen = log_softmax(logits)[np.arange(len(labels)), labels]
    return float(-(weights * chosen).sum())


def _untellable(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, groups: np.ndarray | None
) -> str | None:
    people = len(labels) if groups is None else len(np.unique(np.asarray(groups).astype(str)))
    if people < FEWEST_PEOPLE:
        return f"{people} validation people, at least {FEWEST_PEOPLE} are needed"
    if len(np.unique(labels)) < 2:
        return "all validation people are of one class"
    true = logits[np.arange(len(labels)), labels]
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    if (true > others.max(axis=1)).all():
        return "every validation slice is classified rightly, so no temperature is too low"
    # The slope of the loss in 1 / T at 1 / T = 0: upwards, and the best T is beyond all bounds.
    if (weights * (true - logits.mean(axis=1))).sum() <= 0:
        return "the logits tell no more than chance of the validation people"
    return None


def _calibration_error(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> float:
    probabilities = np.exp(log_softmax(logits.astype(np.float64)))
    if groups is not None:
        _, probabilities, labels = metrics.aggregate_by_subject(probabilities, labels, groups)
    return metrics.expected_calibration_error(probabilities, labels)
