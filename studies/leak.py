"""Where 99 % goes: one classifier, one set of images, and only the split between them differs.

A pixel nearest neighbour cannot know of disease. Where slices are dealt out at random it finds the
same person's next slice and reads the answer off it: 99.9 % on the public set, and as much when
the labels are drawn at random (Yagis et al. 2021, Scientific Reports 11:22544). With new people it
is at chance (measured).
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies import folds, shallow
from studies.slices import Slices, StudyError

SPLITS = {
    "random": "by slice",
    "shipped": "as shipped",
    "person": "by person",
}
METHODS = {"neighbour": "pixel 1-NN", "regression": "PCA + LR", "prior": "constant"}
EVALUABLE = 5  # people of a class whose AUC counts

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Score:
    """What one method scores under one split, out of fold.

    Attributes:
        split: a key of `SPLITS`.
        method: a key of `METHODS`.
        shuffled: whether each person's label was drawn at random.
        accuracy: share of slices given the right class.
        slice_auc: macro one-vs-rest AUC over slices; NaN where not evaluable.
        person_auc: the same over people, each the mean of its slices.
        same_person: share of slices whose nearest training image is of the same person; of
            `neighbour` alone.
    """

    split: str
    method: str
    shuffled: bool
    accuracy: float
    slice_auc: float
    person_auc: float
    same_person: float | None = None


@dataclass(frozen=True)
class Example:
    """A test slice and the training slice most like it: rows of the images, and what they are."""

    split: str
    test: int
    train: int
    correlation: float


@dataclass(frozen=True)
class Verdict:
    """The leak check's outcome, and its reasons in words."""

    outcome: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class LeakStudy:
    """Every score, the examples to show, and what the leak check says of each split.

    Attributes:
        name: of the images.
        people, slices: how many.
        classes: their names.
        counts: people of each class.
        folds, seed: of the splits that have several.
        scores: by split, then method.
        examples: one per split, of the same test slice where possible.
        verdicts: split → what the leak check says of its first fold.
    """

    name: str
    people: int
    slices: int
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    folds: int
    seed: int
    scores: tuple[Score, ...]
    examples: tuple[Example, ...]
    verdicts: dict[str, Verdict]

    def score(self, split: str, method: str = "neighbour", shuffled: bool = False) -> Score:
        """One of the scores.

        Raises:
            KeyError: it was not measured.
        """
        for score in self.scores:
            if (score.split, score.method, score.shuffled) == (split, method, shuffled):
                return score
        raise KeyError((split, method, shuffled))

    def document(self) -> dict[str, Any]:
        """As JSON holds it; what is not evaluable is null."""
        found = asdict(self)
        for score in found["scores"]:
            blank = [k for k, v in score.items() if isinstance(v, float) and np.isnan(v)]
            score.update(dict.fromkeys(blank))
        return found


def study(
    slices: Slices, *, count: int = 5, seed: int = 0, progress: Progress = lambda what: None
) -> LeakStudy:
    """Measures both methods under every split, with the true labels and with drawn ones.

    Args:
        slices: of people who are known, two of them or more in each fold.
        count: folds of the splits that have several.
        seed: of the folds and of the drawn labels.
        progress: told what is done now.

    Raises:
        StudyError: too few people, classes or slices for the comparison to say anything.
    """
    _check(slices, count)
    ids, own, person = slices.people()
    grid = slices.grid()
    vectors, small = shallow.unit_vectors(grid), shallow.halved(grid)
    drawn = np.random.default_rng([seed, 1]).permutation(own)[person]
    scores: list[Score] = []
    examples, verdicts = [], {}
    for split, dealt in _splits(slices, own, person, count, seed).items():
        progress(f"{SPLITS[split]}: nearest neighbours")
        tested = np.concatenate([test for _, test in dealt])
        near = np.concatenate(
            [train[shallow.nearest(vectors[train], vectors[test])] for train, test in dealt]
        )
        same = float((person[near] == person[tested]).mean())
        for shuffled, labels in ((False, slices.labels), (True, drawn)):
            one_hot = np.eye(len(slices.classes))[labels[near]]
            measured = _measured(one_hot, labels[tested], person[tested])
            scores.append(Score(split, "neighbour", shuffled, *measured, same))
        progress(f"{SPLITS[split]}: PCA + logistic regression")
        for shuffled, labels in ((False, slices.labels), (True, drawn)):
            answers = [
                shallow.regression(small[train], labels[train], small[test], len(slices.classes))
                for train, test in dealt
            ]
            measured = _measured(np.concatenate(answers), labels[tested], person[tested])
            scores.append(Score(split, "regression", shuffled, *measured))
        measured = _measured(_prior(slices, len(tested)), slices.labels[tested], person[tested])
        scores.append(Score(split, "prior", False, *measured))
        examples.append(_example(split, vectors, tested, near, slices))
        progress(f"{SPLITS[split]}: leak check")
        verdicts[split] = _verdict(slices, grid, dealt[0])
    return LeakStudy(
        name=slices.name,
        people=len(ids),
        slices=len(slices),
        classes=slices.classes,
        counts=tuple(np.bincount(own, minlength=len(slices.classes)).tolist()),
        folds=count,
        seed=seed,
        scores=tuple(scores),
        examples=tuple(examples),
        verdicts=verdicts,
    )


def _check(slices: Slices, count: int) -> None:
    _, own, _ = slices.people()
    least = int(np.bincount(own).max())
    if len(np.unique(own)) < 2 or least < 2 * EVALUABLE:
        raise StudyError(
            f"{slices.name} holds {len(own)} people of {len(np.unique(own))} class(es), the "
            f"largest of {least}: nothing could be told apart. Give 2 classes or more with at "
            f"least {2 * EVALUABLE} people in the largest."
        )
    if len(slices) < 2 * len(own):
        raise StudyError(
            f"{slices.name} holds {len(slices)} slices of {len(own)} people. With one slice a "
            "person, slices and people are one and the same; give several of each person."
        )


def _splits(
    slices: Slices,
    own: NDArray[np.int64],
    person: NDArray[np.int64],
    count: int,
    seed: int,
) -> dict[str, list[folds.Fold]]:
    """The folds of every split; the release's own needs positions."""
    found = {"random": folds.random_slices(len(slices), count, seed)}
    if (slices.positions >= 0).all():
        found["shipped"] = folds.shipped(slices.labels, slices.positions)
    found["person"] = folds.by_group(folds.deal(own, count, seed)[person], count)
    return found


def _measured(
    answers: NDArray[np.float64], labels: NDArray[np.int64], person: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Accuracy of slices, and macro AUC of slices and of people, over evaluable classes."""
    from trainer import metrics

    _, means, own = metrics.aggregate_by_subject(answers, labels, person)
    enough = np.bincount(own, minlength=answers.shape[1]) >= EVALUABLE
    areas = metrics.one_vs_rest_auc(answers, labels)[enough]
    return (
        metrics.accuracy(answers, labels),
        float(areas.mean()) if enough.any() else float("nan"),
        metrics.macro_auc(means, own, min_per_class=EVALUABLE),
    )


def _prior(slices: Slices, rows: int) -> NDArray[np.float64]:
    # Of all images, not of each fold's training: over folds, those would rank people backwards.
    counts = np.bincount(slices.labels, minlength=len(slices.classes))
    return np.tile(counts / counts.sum(), (rows, 1))


def _example(
    split: str,
    vectors: NDArray[np.float32],
    tested: NDArray[np.int64],
    near: NDArray[np.int64],
    slices: Slices,
) -> Example:
    """Of the first person that this split tests, the slice nearest the middle of the stack."""
    chosen = np.flatnonzero(slices.subjects[tested] == slices.subjects[tested.min()])
    wanted = np.median(np.flatnonzero(slices.subjects == slices.subjects[tested.min()]))
    place = chosen[np.abs(tested[chosen] - wanted).argmin()]
    test, train = int(tested[place]), int(near[place])
    return Example(split, test, train, float(vectors[test] @ vectors[train]))


def _verdict(slices: Slices, grid: NDArray[np.float32], fold: folds.Fold) -> Verdict:
    """What the check that stands before every training says of this split."""
    from evaluation import leakage
    from evaluation.config import LeakageSettings
    from evaluation.leakage_pairs import SplitImages
    from schema.descriptors import decode

    thumbnails = np.clip(grid + 0.5, 0, 255).astype(np.uint8)
    pixels = [decode(file) for file in slices.encoded]
    digests = np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in pixels])
    sides = np.array([min(image.shape) for image in pixels])

    def side(rows: NDArray[np.int64]) -> SplitImages:
        return SplitImages(
            digests=digests[rows],
            thumbnails=thumbnails[rows],
            subjects=slices.subjects[rows],
            labels=slices.labels[rows],
            slice_index=slices.positions[rows],
            sources=np.full(len(rows), ""),
            sides=sides[rows],
        )

    train, test = fold
    found = leakage.check({"train": side(train), "test": side(test)}, LeakageSettings())
    decision = found.decision
    return Verdict(str(decision.outcome), decision.reasons)
