"""What an encoder's embeddings tell of the labels, while it learns without them.

Two classifiers too simple to learn features of their own are fitted to the embeddings of labelled
people who train, and judged on people held out, one answer per person. They select nothing: no
epoch, no setting, no stopping; the encoder that is kept is the last one whatever they say.
"""

import logging
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from schema import features as columns
from trainer import metrics, sampling
from trainer.examples import Examples
from trainer.representation import Features, unit_rows

LOG = logging.getLogger(__name__)

Floats = NDArray[np.float64]

# Wu et al. 2018, section 3.4: 200 neighbours of a million and more images, temperature 0.07.
NEIGHBOURS = 200
TEMPERATURE = 0.07
# Weight of the linear probe's squared weights beside a mean loss.
DECAY = 0.1
ITERATIONS = 200


def prober(
    features: Features, examples: Examples, held_out: Examples | None, seed: int
) -> Callable[[], dict[str, float]] | None:
    """Prepares both probes on fixed samples of people who train and of people who do not.

    Each sample has a quarter as many images as train, 256 to 4,096 of them, of as many people as
    there are. Whoever is on both sides is left out of the training side.

    Args:
        features: of the encoder, as it is when they are asked for.
        examples: those trained on, with labels or without.
        held_out: examples of other people, if there are any.
        seed: of the samples.

    Returns:
        A function without arguments to the present `probe_knn_auc` and `probe_linear_auc`, macro
        AUC over people (over slices where subject ids are unknown); or `None`, logged with its
        reason, where labels or people are lacking.
    """
    if held_out is None:
        LOG.info("No probes of the features: there are no held-out people")
        return None
    known, judged = _labelled(examples), _labelled(held_out)
    if known.subjects is not None and judged.subjects is not None:
        known = known.select(~np.isin(known.subjects, judged.subjects))
    for side, people in (("training", known), ("held-out", judged)):
        classes = len(np.unique(people.labels))
        if classes < 2:
            LOG.info(
                "No probes of the features: the %s people have labels of %d class(es), and an AUC "
                "needs 2",
                side, classes,
            )  # fmt: skip
            return None
    random = np.random.default_rng(seed)
    count = min(4096, max(256, len(examples) // 4))
    known = known.select(sampling.spread(known, count, random))
    judged = judged.select(sampling.spread(judged, count, random))
    classes = int(max(known.labels.max(), judged.labels.max())) + 1

    def probe() -> dict[str, float]:
        shown, asked = features(known.images)[0], features(judged.images)[0]
        return {
            f"probe_{name}_auc": _auc(fit(shown, known.labels, asked, classes), judged)
            for name, fit in (("knn", nearest_neighbours), ("linear", linear))
        }

    return probe


def nearest_neighbours(
    known: ArrayLike, labels: ArrayLike, asked: ArrayLike, classes: int
) -> Floats:
    """Votes of the nearest embeddings, by cosine, weighted (Wu et al. 2018, section 3.4).

    Each of the k nearest votes for its class with weight exp(cosine / 0.07). k is the root of the
    number of known embeddings, at most the paper's 200.

    Args:
        known: float[N, D].
        labels: int[N] in [0, classes).
        asked: float[M, D].
        classes: how many.

    Returns:
        Shares of the votes, float64[M, classes].
    """
    known, labels = unit_rows(known), np.asarray(labels)
    cosines = unit_rows(asked) @ known.T
    count = min(NEIGHBOURS, max(1, round(math.sqrt(len(known)))))
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    weights = softmax(np.take_along_axis(cosines, nearest, axis=1) / TEMPERATURE, axis=1)
    votes = np.zeros((len(cosines), classes))
    np.add.at(votes, (np.arange(len(cosines))[:, None], labels[nearest]), weights)
    return np.minimum(votes, 1.0)


def linear(known: ArrayLike, labels: ArrayLike, asked: ArrayLike, classes: int) -> Floats:
    """Multinomial logistic regression on standardised embeddings, by L-BFGS.

    Minimises the mean cross-entropy plus `DECAY` / 2 times the sum of squared weights; intercepts
    are free.

    Args:
        known: float[N, D].
        labels: int[N] in [0, classes).
        asked: float[M, D].
        classes: how many.

    Returns:
        Probabilities, float64[M, classes].
    """
    known, asked = np.asarray(known, np.float64), np.asarray(asked, np.float64)
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    shown = (known - mean) / scale
    hot = np.eye(classes)[np.asarray(labels)]

    def cost(flat: Floats) -> tuple[float, Floats]:
        weights, intercepts = flat[:-classes].reshape(-1, classes), flat[-classes:]
        logits = shown @ weights + intercepts
        excess = (softmax(logits, axis=1) - hot) / len(hot)
        entropy = (logsumexp(logits, axis=1) - (logits * hot).sum(axis=1)).mean()
        gradient = np.append(shown.T @ excess + DECAY * weights, excess.sum(axis=0))
        return entropy + DECAY / 2 * np.square(weights).sum(), gradient

    start = np.zeros((shown.shape[1] + 1) * classes)
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
    weights, intercepts = found[:-classes].reshape(-1, classes), found[-classes:]
    return softmax((asked - mean) / scale @ weights + intercepts, axis=1)


def _labelled(examples: Examples) -> Examples:
    return examples.select(examples.labels != columns.UNLABELLED)


def _auc(probabilities: Floats, judged: Examples) -> float:
    labels = judged.labels
    if judged.subjects is not None:
        _, probabilities, labels = metrics.aggregate_by_subject(
            probabilities, labels, judged.subjects
        )
    return metrics.macro_auc(probabilities, labels)
