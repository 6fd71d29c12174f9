"""What ModelGate measured, as its decision's details tell it, in typed form.

Anything may be absent: a run may have stopped earlier, or have been recorded by an earlier gate.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.outcome import Decision

HEADLINE = "macro_auc"
NAMES = {
    "student": "Student",
    "teacher": "Teacher",
    "live": "Live version",
    "total CSF": "Total CSF",
    "constant prior": "Constant prior",
}


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number and its confidence interval; None where it is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        """Whether both ends of the interval are there."""
        return self.low is not None and self.high is not None


@dataclasses.dataclass(frozen=True)
class Group:
    """One group of people (or of slices) and the student's macro AUC in it."""

    name: str
    people: int | None
    images: int | None
    macro_auc: Interval | None


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The gate's numbers beyond its checks.

    Attributes:
        level: "subject" or "slice", or "" where the gate did not say.
        evaluable: classes with enough people for an AUC of their own.
        not_evaluable: the others → number of test people.
        people: class → number of test people.
        confidence: of the intervals, in (0, 1).
        intervals: model → metric → interval.
        differences: "student - live" → interval of the paired difference of macro AUC.
        resampled: "cluster" and "row" → the student's interval when people, or rows, are drawn.
        operating_point: measured at the threshold chosen on validation people.
        subgroups: dimension → groups.
        touches: how many candidates were judged on these test people, this one included.
        final: names of checks that no override lifts.
        notes: sentences for the reader.
    """

    level: str = ""
    evaluable: tuple[str, ...] = ()
    not_evaluable: Mapping[str, int] = dataclasses.field(default_factory=dict)
    people: Mapping[str, int] = dataclasses.field(default_factory=dict)
    confidence: float | None = None
    intervals: Mapping[str, Mapping[str, Interval]] = dataclasses.field(default_factory=dict)
    differences: Mapping[str, Interval] = dataclasses.field(default_factory=dict)
    resampled: Mapping[str, Interval] = dataclasses.field(default_factory=dict)
    operating_point: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    subgroups: Mapping[str, tuple[Group, ...]] = dataclasses.field(default_factory=dict)
    touches: int | None = None
    final: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def headline(self, model: str) -> Interval | None:
        """A model's macro AUC."""
        return self.intervals.get(model, {}).get(HEADLINE)

    @property
    def interval_name(self) -> str:
        """The intervals in words: "95 % interval"."""
        return f"{100 * self.confidence:.3g}\u00a0% interval" if self.confidence else "interval"


def judgement(decision: Decision | None, confidence: float | None = None) -> Judgement:
    """Reads a decision's details; what is missing or has another form is left out.

    Args:
        decision: ModelGate's, or None.
        confidence: of the run's settings, where the details do not give it.
    """
    details = _mapping(decision.details) if decision is not None else {}
    names = _mapping(details.get("not_evaluable"))
    return Judgement(
        level=details.get("level") or "",
        evaluable=tuple(map(str, details.get("evaluable") or ())),
        not_evaluable={name: int(people) for name, people in names.items()},
        people=_mapping(details.get("people")),
        confidence=details.get("confidence") or confidence,
        intervals={
            model: dict(_intervals(metrics))
            for model, metrics in _mapping(details.get("intervals")).items()
        },
        differences=dict(_intervals(details.get("differences"))),
        resampled=dict(_intervals(details.get("slice_intervals"))),
        operating_point=_mapping(details.get("operating_point")),
        subgroups={
            dimension: tuple(_group(name, of) for name, of in _mapping(groups).items())
            for dimension, groups in _mapping(details.get("subgroups")).items()
        },
        touches=details.get("touches"),
        final=tuple(map(str, details.get("final") or ())),
        notes=tuple(map(str, details.get("notes") or ())),
    )


def interval(found: Any) -> Interval | None:
    """An interval from [value, low, high]; None for anything else."""
    if not isinstance(found, list | tuple) or len(found) != 3:
        return None
    if not all(each is None or isinstance(each, int | float) for each in found):
        return None
    return Interval(*map(finite, found))


def finite(value: float | None) -> float | None:
    """A score as a float, or None where it is missing or not evaluable (NaN)."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def model_name(key: str) -> str:
    """A model or baseline as it is called on the page."""
    return NAMES.get(key, f"{key[:1].upper()}{key[1:]}")


def _intervals(found: Any) -> Iterator[tuple[str, Interval]]:
    for name, values in _mapping(found).items():
        of = interval(values)
        if of is not None and of.value is not None:
            yield name, of


def _group(name: str, of: Any) -> Group:
    told = _mapping(of)
    return Group(name, told.get("people"), told.get("images"), interval(told.get("macro_auc")))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
