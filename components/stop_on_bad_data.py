"""StopOnBadData: ends the run before any training when a gate on the data refused it.

The gates publish and succeed; this node fails (docs/adr/0003), so that data that may not be trained
on still have their decisions, pictures and lineage.
"""

from collections.abc import Mapping

from tfx.dsl.component.experimental.annotations import InputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component

from components.artifacts import DataDecision
from components.decisions import read_decision
from evaluation.outcome import Decision, Outcome, Refused

SHOWN = 3  # reasons of each gate
HEADINGS = {
    "anomalies": (
        "The data break their contract in {count} place(s): {reasons}. Mend the data, or change "
        "the schema on purpose (`cortexflow schema diff` shows what differs)."
    ),
    "leakage": "The leak check refused the data: {reasons}.",
    "drift": (
        "The data have drifted: {reasons}. Find out why; to train on them on purpose: "
        "--set drift.on_drift=report."
    ),
}


def complaint(decisions: Mapping[str, Decision], *, leaked: bool) -> str:
    """What the refusals say together, or "" where training may begin.

    Args:
        decisions: by the keys of `HEADINGS`.
        leaked: the split is known to leak and was asked for. The run may then go on to show what
            a leak is worth; `ModelGate` refuses its model, and nothing overrides that.
    """
    told = []
    for name, decision in decisions.items():
        if decision.outcome is not Outcome.REFUSED or (name == "leakage" and leaked):
            continue
        more = len(decision.reasons) - SHOWN
        reasons = "; ".join(decision.reasons[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
        told.append(HEADINGS[name].format(count=len(decision.reasons), reasons=reasons))
    return " ".join(told)


@component
def StopOnBadData(  # noqa: N802 (a TFX node is named as a class)
    anomalies: InputArtifact[DataDecision],
    leaked: Parameter[int],
    leakage: InputArtifact[DataDecision] = None,
    drift: InputArtifact[DataDecision] = None,
):
    """TFX node: raises `Refused` with the gates' own reasons."""
    gates = {"anomalies": anomalies, "leakage": leakage, "drift": drift}
    decisions = {name: read_decision(gate.uri) for name, gate in gates.items() if gate}
    if message := complaint(decisions, leaked=bool(leaked)):
        raise Refused(message)
