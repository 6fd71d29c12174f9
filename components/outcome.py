"""What a gate says: passed, refused or insufficient evidence, and why."""

import dataclasses
import enum
import json
import os
from typing import Any

from schema.errors import CortexflowError

FILE = "decision.json"


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
    """One question that a gate asked: a value held against its bound."""

    name: str
    passed: bool
    value: float | None = None
    bound: float | None = None
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Decision:
    """A gate's answer with its reasons in words and the checks behind them."""

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)


class GateStopped(CortexflowError):
    """A gate ended the run."""

    outcome = Outcome.REFUSED


class Refused(GateStopped):
    """The data or the model did not pass."""


class InsufficientEvidence(GateStopped):
    """There is too little data to tell."""

    outcome = Outcome.INSUFFICIENT


def write_decision(decision: Decision, folder: str) -> None:
    """Writes `decision.json` into a local or remote folder."""
    from tfx.dsl.io import fileio

    with fileio.open(os.path.join(folder, FILE), "w") as file:
        file.write(json.dumps(dataclasses.asdict(decision), indent=2, sort_keys=True))


def read_decision(folder: str) -> Decision:
    """Reads what `write_decision` wrote."""
    from tfx.dsl.io import fileio

    with fileio.open(os.path.join(folder, FILE), "r") as file:
        fields = json.loads(file.read())
    return Decision(
        outcome=Outcome(fields["outcome"]),
        reasons=tuple(fields["reasons"]),
        checks=tuple(Check(**check) for check in fields["checks"]),
        metrics=fields["metrics"],
    )
