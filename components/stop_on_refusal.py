"""Nodes that end the run when the gate did not pass the model (docs/adr/0003).

One for each reason, because the name of a failed node is what every runner, API and screen shows.
"""

from tfx.dsl.component.experimental.annotations import InputArtifact
from tfx.dsl.component.experimental.decorators import component

from components.artifacts import ModelDecision
from components.decisions import read_decision
from evaluation.outcome import InsufficientEvidence, Outcome, Refused


@component
def StopOnRefusal(decision: InputArtifact[ModelDecision]):  # noqa: N802 (a TFX node)
    """TFX node: raises `Refused` with the gate's own reasons."""
    verdict = read_decision(decision.uri)
    if verdict.outcome is Outcome.REFUSED:
        raise Refused(f"{'; '.join(verdict.reasons)}.")


@component
def StopOnInsufficientEvidence(  # noqa: N802 (a TFX node)
    decision: InputArtifact[ModelDecision],
):
    """TFX node: raises `InsufficientEvidence` with the gate's own reasons."""
    verdict = read_decision(decision.uri)
    if verdict.outcome is Outcome.INSUFFICIENT:
        raise InsufficientEvidence(f"{'; '.join(verdict.reasons)}.")
