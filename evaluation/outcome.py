"""What a gate says: passed, refused or insufficient evidence, and why."""

import dataclasses
import enum
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from schema.errors import CortexflowError


class Outcome(enum.StrEnum):
    """The three answers of a gate."""

    PASSED = "passed"
    REFUSED = "refused"
    INSUFFICIENT = "insufficient evidence"

    @property
    def exit_code(self) -> int:
        """0 passed, 2 refused, 3 insufficient evidence."""
        return {Outcome.PASSED: 0, Outcome.REFUSED: 2, Outcome.INSUFFICIENT: 3}[self]


@dataclasses.dataclass(frozen=True)
class Check:
    """One question that a gate asked, and its answer.

    Attributes:
        name: the question, in a few words.
        outcome: its answer.
        value: what was measured.
        bound: what it is held against.
        low, high: the confidence interval of `value`, where it has one.
        detail: the answer in words: the reason where it did not pass, else what is worth telling.
    """

    name: str
    outcome: Outcome
    value: float | None = None
    bound: float | None = None
    low: float | None = None
    high: float | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether this check lets a model or data through."""
        return self.outcome is Outcome.PASSED


@dataclasses.dataclass(frozen=True)
class Decision:
    """A gate's answer with its reasons in words and the checks behind them.

    Attributes:
        outcome: refused where any check is, else insufficient where any is, else passed.
        reasons: one for each check that did not pass, refusals first.
        checks: in the order in which they were asked.
        metrics: model or baseline → level ("subject", "slice") → metric → value.
        details: what else was measured, as JSON; each gate documents its own.
    """

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def concluded(
    checks: Iterable[Check],
    *,
    metrics: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Decision:
    """The decision that follows from checks: one refusal refuses, else one doubt is a doubt."""
    asked = tuple(checks)
    ordered = [
        check
        for outcome in (Outcome.REFUSED, Outcome.INSUFFICIENT)
        for check in asked
        if check.outcome is outcome
    ]
    outcome = ordered[0].outcome if ordered else Outcome.PASSED
    reasons = tuple(check.detail or check.name for check in ordered)
    return Decision(outcome, reasons, asked, metrics or {}, details or {})


class GateStopped(CortexflowError):
    """A gate ended the run."""

    outcome = Outcome.REFUSED


class Refused(GateStopped):
    """The data or the model did not pass."""

    exit_code = Outcome.REFUSED.exit_code


class InsufficientEvidence(GateStopped):
    """There is too little data to tell."""

    outcome = Outcome.INSUFFICIENT
    exit_code = Outcome.INSUFFICIENT.exit_code


def to_json(decision: Decision) -> str:
    """Writes a decision as JSON; NaN and infinity become null, for readers that know neither."""
    return json.dumps(_finite(dataclasses.asdict(decision)), indent=2, sort_keys=True)


def from_json(text: str) -> Decision:
    """Reads what `to_json` wrote."""
    fields = json.loads(text)
    checks = [
        Check(**{**check, "outcome": Outcome(check["outcome"])}) for check in fields["checks"]
    ]
    return Decision(
        Outcome(fields["outcome"]),
        tuple(fields["reasons"]),
        tuple(checks),
        fields["metrics"],
        fields["details"],
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
