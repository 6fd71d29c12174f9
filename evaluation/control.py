"""The label-shuffle control: labels that mean nothing must teach nothing about other people.

The pipeline's tail is trained once more on labels permuted between people. Whoever predicts them on
the test split has met the test people before: with slices of one person on both sides a network
that only recognises people scores near 1 (Yagis et al. 2021, Sci Rep 11:22544, whose random labels
still gave about 96 % accuracy), and with people apart it scores what chance gives.

A person is one id, and keeps one permuted label on every side. What the control can not see is one
person under two ids: they get two labels. The leak check looks for those by their pixels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from evaluation.config import ControlSettings
from evaluation.leakage_search import unit_vectors
from evaluation.outcome import Check, Decision, Outcome, concluded
from schema.errors import CortexflowError
from schema.features import UNLABELLED
from trainer import metrics

# Who is asked, and how the checks call them.
JUDGED = {"student": "student", "teacher": "teacher", "neighbour": "nearest neighbour"}
EVALUABLE = 5  # people of a class whose AUC counts
BINS = 30  # of the null's histogram
SIDE = 64  # pixels at which images are compared: enough to know a person again
BLOCK = 1024  # images compared at once

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class ControlError(CortexflowError):
    """Labels cannot be permuted between people."""


@dataclasses.dataclass(frozen=True)
class People:
    """What a model says of each person, and the permuted label of each.

    Attributes:
        probabilities: float64[S, C], mean over the person's slices.
        labels: int64[S].
    """

    probabilities: Floats
    labels: Integers


@dataclasses.dataclass(frozen=True)
class NullBand:
    """Where an AUC lies among those that chance gives.

    Attributes:
        auc: macro one-vs-rest AUC over classes of five people or more.
        low, high: the band; an AUC outside is less likely than the level, half of it on each side.
        null: float64[permutations], the AUCs under random reassignment of the labels.
    """

    auc: float
    low: float
    high: float
    null: Floats


def permuted_labels(subjects: ArrayLike | None, labels: ArrayLike, seed: int) -> Integers:
    """Permutes labels between people, so that they say nothing about images.

    Give the images of all splits at once: a person then keeps one label on every side.

    Args:
        subjects: [N], the person of each image.
        labels: int[N]; -1 is unlabelled, and stays so.
        seed: of the permutation. The order of the images has no part in it.

    Returns:
        int64[N]. As many people have each class as before.

    Raises:
        ControlError: people are not known, or a person has two labels.
    """
    if subjects is None:
        raise ControlError(
            "The label-shuffle control permutes labels between people, and these examples carry no "
            "subject ids. Import them with --subject-regex, or set control.shuffle=false."
        )
    given, ids = np.asarray(labels, np.int64), np.asarray(subjects).astype(str)
    if ids.shape != given.shape:
        raise ValueError(
            f"Each label needs one subject id. Received: {ids.size} ids, {given.size} labels."
        )
    known = given != UNLABELLED
    people, first, place = np.unique(ids[known], return_index=True, return_inverse=True)
    own = given[known][first]
    torn = own[place] != given[known]
    if torn.any():
        raise ControlError(
            f"A person has one label, but {people[place[torn][0]]!r} has several. Correct the "
            "labels, or the pattern that reads subject ids."
        )
    permuted = given.copy()
    permuted[known] = np.random.default_rng([seed, 0]).permutation(own)[place]
    return permuted


def by_person(probabilities: ArrayLike, labels: ArrayLike, subjects: ArrayLike) -> People:
    """Averages a model's probabilities over each person's slices.

    Args:
        probabilities: float[N, C].
        labels: int[N], permuted.
        subjects: [N].
    """
    _, means, own = metrics.aggregate_by_subject(probabilities, labels, subjects)
    return People(means, own)


def macro_auc(people: People) -> float:
    """Macro one-vs-rest AUC over the classes of five people or more; NaN where there is none."""
    return metrics.macro_auc(people.probabilities, people.labels, min_per_class=EVALUABLE)


def null_band(people: People, *, level: float, permutations: int, seed: int) -> NullBand:
    """Holds an AUC against those of the same predictions with labels dealt out at random.

    The test is exact (Phipson & Smyth 2010): without a leak the label that a test person got says
    nothing about the answer, so every way to deal the labels out among the test people was equally
    likely, whatever the model learnt. Needs 8 bytes × permutations × people.

    Args:
        people: one or more classes with five people, and not all of one class.
        level: of both sides together.
        permutations: at least 2 / level - 1.
        seed: of the reassignments.
    """
    random = np.random.default_rng([seed, 1])
    dealt = random.permuted(np.tile(people.labels, (permutations, 1)), axis=1)
    ranks = rankdata(people.probabilities, axis=0)
    null = _macro_aucs(ranks, dealt)
    # The AUC found is one more draw of the null: with k of 999 + 1 beyond a bound, its level is
    # k / 1000, not less.
    beyond = int(level / 2 * (permutations + 1) + 1e-9)
    ordered = np.sort(null)
    return NullBand(
        auc=float(_macro_aucs(ranks, people.labels[None])[0]),
        low=float(ordered[beyond - 1]),
        high=float(ordered[-beyond]),
        null=null,
    )


def untellable(labels: Mapping[str, Integers], settings: ControlSettings) -> Check | None:
    """Whether there are too few people for the control, asked before anything is trained.

    Args:
        labels: split → permuted label of each person in it; `train`, `val` and `test`.
        settings: `min_people` is the least of the test split.

    Returns:
        A check that says so, or None where the control can tell.
    """
    test = labels["test"]
    if len(test) < settings.min_people:
        return Check(
            "enough test people",
            Outcome.INSUFFICIENT,
            float(len(test)),
            float(settings.min_people),
            detail=f"{len(test)} test people are too few to tell a leak from chance "
            f"({settings.min_people} are needed)",
        )
    if np.bincount(labels["test"]).max() < EVALUABLE:
        return Check(
            "a class to judge",
            Outcome.INSUFFICIENT,
            float(np.bincount(labels["test"]).max()),
            float(EVALUABLE),
            detail=f"no class has {EVALUABLE} of the {len(labels['test'])} test people",
        )
    for split, own in labels.items():
        if len(np.unique(own)) < 2:
            return Check(
                f"two classes in {split}",
                Outcome.INSUFFICIENT,
                float(len(np.unique(own))),
                2.0,
                detail=f"the permuted labels of {len(own)} people in the split {split} are all of "
                "one class; another control.seed deals them otherwise",
            )
    return None


def neighbour_votes(
    train: NDArray[np.uint8],
    labels: Integers,
    classes: int,
    images: NDArray[np.uint8] | None = None,
) -> Floats:
    """What the most correlated training image says of each image.

    It knows nothing of disease and finds the same person where they are, which no network does as
    soon: of slices dealt out at random it names the person of 999 in 1,000 on a public set.

    Args:
        train: uint8[N, S, S, C], two or more.
        labels: int[N].
        classes: how many.
        images: uint8[M, S, S, C]; None asks the other training images about each of their own.

    Returns:
        float64[M, classes], a one for the neighbour's label.
    """
    known = unit_vectors(_small(train))
    asked = known if images is None else unit_vectors(_small(images))
    nearest = np.empty(len(asked), np.int64)
    for start in range(0, len(asked), BLOCK):
        likeness = asked[start : start + BLOCK] @ known.T
        if images is None:
            rows = np.arange(len(likeness))
            likeness[rows, start + rows] = -np.inf
        nearest[start : start + BLOCK] = likeness.argmax(axis=1)
    return np.eye(classes)[labels[nearest]]


def decide(
    told: Mapping[str, Mapping[str, People]],
    settings: ControlSettings,
    *,
    details: Mapping[str, Any] | None = None,
) -> Decision:
    """Judges a teacher and a student that learnt permuted labels, and the nearest neighbour.

    Above the band something leaks. Below it too: nothing that knows no more than chance is wrong
    that often, so the labels were met and turned round on the way, as where classes change places
    between splits. The three bands together keep the level (Bonferroni).

    A few epochs may teach a network too little to show a leak. The neighbour shows what it could
    have seen: asked about training people whose other slices are there, it must do better than
    chance would on the test people; else nothing was proved.

    Args:
        told: `teacher`, `student` and `neighbour` → `test` and `train` → what it says of these
            people; the neighbour of a training image is another one (`neighbour_votes`).
        settings: level, permutations and seed.
        details: what the caller measured besides.

    Returns:
        The decision. Its details are, of the student, `auc`, `low`, `high`, `trained_auc` and
        `null` (`edges` and `counts` of a histogram, and `mean`); the same of the others under
        `teacher` and `neighbour`; `people`, `level`, `permutations`, `seed`, and those given.
    """
    bands = {
        name: null_band(
            told[name]["test"],
            level=settings.level / len(JUDGED),
            permutations=settings.permutations,
            seed=settings.seed,
        )
        for name in JUDGED
    }
    measured = {name: _measured(bands[name], told[name]["train"]) for name in JUDGED}
    checks = [_within(JUDGED[name], band) for name, band in bands.items()]
    neighbours = told["neighbour"]["train"]
    checks.append(_could_show(macro_auc(neighbours), bands["neighbour"].high))
    details = {
        **measured.pop("student"),
        **measured,
        "people": {split: len(people.labels) for split, people in told["student"].items()},
        "level": settings.level,
        "permutations": settings.permutations,
        "seed": settings.seed,
        **(details or {}),
    }
    return concluded(checks, details=details)


def _measured(band: NullBand, trained: People) -> dict[str, Any]:
    counts, edges = np.histogram(band.null, bins=BINS)
    return {
        "auc": band.auc,
        "low": band.low,
        "high": band.high,
        "trained_auc": macro_auc(trained),
        "null": {
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "mean": float(band.null.mean()),
        },
    }


def _within(name: str, band: NullBand) -> Check:
    chance = f"chance gives {band.low:.3f} to {band.high:.3f}"
    outcome = Outcome.REFUSED
    if band.auc > band.high:
        detail = (
            f"the {name} predicts labels that mean nothing: macro AUC {band.auc:.3f} of test "
            f"people, {chance}. Something leaks: test people were met in training"
        )
    elif band.auc < band.low:
        detail = (
            f"the {name} predicts labels that mean nothing the wrong way round: macro AUC "
            f"{band.auc:.3f} of test people, {chance}. Look whether classes change places between "
            "the splits"
        )
    else:
        outcome = Outcome.PASSED
        detail = f"macro AUC {band.auc:.3f} of labels that mean nothing; {chance}"
    return Check(
        f"shuffled labels, {name}", outcome, band.auc, band.high, band.low, band.high, detail
    )


def _could_show(auc: float, bound: float) -> Check:
    """Whether a person on both sides would have been noticed; `auc` may be NaN."""
    detail = f"training people are known again by their other slices: macro AUC {auc:.3f}"
    outcome = Outcome.PASSED
    if not auc > bound:
        outcome = Outcome.INSUFFICIENT
        detail = (
            f"a leak could not show: not even training people are known again by their other "
            f"slices (macro AUC {auc:.3f}, which must lie above {bound:.3f}). Where everybody has "
            "one image nobody can stand on both sides: set control.shuffle=false"
        )
    return Check("a leak could show", outcome, auc, bound, detail=detail)


def _small(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey copies of at most 127 pixels a side: float32[N, s, s]."""
    grey = images.mean(axis=3, dtype=np.float32)
    step = max(1, grey.shape[1] // SIDE)
    side = grey.shape[1] // step
    cut = grey[:, : side * step, : side * step]
    return cut.reshape(-1, side, step, side, step).mean(axis=(2, 4))


def _macro_aucs(ranks: Floats, dealt: Integers) -> Floats:
    """Macro AUC of each way to deal the labels out (Mann & Whitney 1947).

    Args:
        ranks: float64[S, C], of each class's probabilities, ties at their mean.
        dealt: int64[B, S]; every row has the same number of people of each class.
    """
    people, classes = ranks.shape
    counts = np.bincount(dealt[0], minlength=classes)
    aucs = []
    for label in np.flatnonzero((counts >= EVALUABLE) & (counts < people)):
        positives = int(counts[label])
        wins = (dealt == label) @ ranks[:, label] - positives * (positives + 1) / 2
        aucs.append(wins / (positives * (people - positives)))
    return np.mean(aucs, axis=0)
