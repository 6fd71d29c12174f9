"""What the gates on data and on images found, as evidence."""

import dataclasses
from typing import Any

from components.report.strict import Strict
from evaluation.outcome import Decision, Outcome


@dataclasses.dataclass(frozen=True)
class Leakage(Strict):
    """What LeakageCheck found between training and evaluation images.

    Attributes:
        pairs: the pairs it lists, most alike first, as `pairs.json` has them.
        picture: PNG bytes of some of these pairs side by side.
    """

    decision: Decision
    pairs: tuple[dict[str, Any], ...] = ()
    picture: bytes | None = None


@dataclasses.dataclass(frozen=True)
class DriftFeature(Strict):
    """One feature compared between two groups of people, as `evaluation.drift` measures it.

    Attributes:
        kind: "numeric" or "categorical".
        divergence: Jensen–Shannon divergence of the two distributions, in bits, 0 to 1.
        threshold: what chance keeps below.
        p, adjusted_p: of the permutation test, alone and with Holm's correction.
        before, after: means in the reference and in the current group; None for categories.
        bins: edges between bins (one fewer than bins), or the categories' names.
        reference, current: shares of the bins.
        drifted_at_equal_mix: whether it drifts when both groups have the same mix of labels.
    """

    name: str
    kind: str
    divergence: float | None
    threshold: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    drifted: bool = False
    before: float | None = None
    after: float | None = None
    bins: tuple[float | str | None, ...] = ()
    reference: tuple[float, ...] = ()
    current: tuple[float, ...] = ()
    drifted_at_equal_mix: bool | None = None


@dataclasses.dataclass(frozen=True)
class DriftComparison(Strict):
    """Two groups of people compared: a span with those before, or test with train.

    Attributes:
        people: number of people in reference and current.
        in_both: people who stand in both groups.
        outcome: of this comparison alone; the decision may only report it.
    """

    reference: str
    current: str
    people: tuple[int, int]
    outcome: Outcome
    reason: str = ""
    in_both: int = 0
    features: tuple[DriftFeature, ...] = ()


@dataclasses.dataclass(frozen=True)
class Drift(Strict):
    """DriftGate's decision and the comparisons behind it."""

    decision: Decision
    comparisons: tuple[DriftComparison, ...] = ()


@dataclasses.dataclass(frozen=True)
class WrongImages(Strict):
    """Validation images spoilt in one way, and what the input gate made of them.

    Attributes:
        family: how they were spoilt, as `trainer.input_gate_families` names it.
        images: how many.
        caught: share refused, in [0, 1].
        auroc: chance that a spoilt image scores above one that was left as it is.
        fpr95: share that would pass a limit which 95 % of the images as they are pass.
    """

    family: str
    images: int
    caught: float
    auroc: float
    fpr95: float


@dataclasses.dataclass(frozen=True)
class InputGate(Strict):
    """The student's input gate (`trainer.input_gate`): what it was fitted on, what it refuses.

    Attributes:
        people, images: of the training split, that it was fitted on.
        target: share of unseen people's images that it may refuse, in [0, 1].
        cross_fitted: share of the training images refused by gates fitted without their people.
        turns: way of turning that training images tell from upright → share of turned ones caught.
        validation_images: how many it was measured on; 0: it was not.
        false_rejection: share of these refused; None where it was not measured.
        families: what was made of them.
    """

    people: int
    images: int
    target: float
    cross_fitted: float
    turns: dict[str, float] = dataclasses.field(default_factory=dict)
    validation_images: int = 0
    false_rejection: float | None = None
    families: tuple[WrongImages, ...] = ()
