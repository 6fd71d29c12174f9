"""ModelGate: may this student go live? `evaluation.gate` decides; this node publishes.

It publishes its decision and lets the run go on: the next node, `StopOnRefusal`, ends it, so that a
refused model still has its decision, report and lineage (docs/adr/0003).
"""

import os

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import ModelBlessing, ModelEvaluation

from components.artifacts import (
    ControlDecision,
    DataDecision,
    ModelDecision,
    Predictions,
    ServingDecision,
)
from components.decisions import read_decision, write_decision
from components.predictor import TOUCHES
from evaluation import predictions
from evaluation.config import GateSettings
from evaluation.gate import decide
from evaluation.outcome import Outcome


@component
def ModelGate(  # noqa: N802 (a TFX node is named as a class)
    predictions_table: InputArtifact[Predictions],
    evaluation: InputArtifact[ModelEvaluation],
    blessing: OutputArtifact[ModelBlessing],
    decision: OutputArtifact[ModelDecision],
    classes: Parameter[str],
    severity: Parameter[str],
    settings: Parameter[str],
    leaked: Parameter[int],
    code: Parameter[str],
    leakage: InputArtifact[DataDecision] = None,
    control: InputArtifact[ControlDecision] = None,
    serving: InputArtifact[ServingDecision] = None,
):
    """TFX node: publishes blessing and decision. `classes`, `severity`: names joined by commas.
    `settings`: `GateSettings` as JSON. `code` is the hash of this code: an edited gate must decide
    again.

    `evaluation` is the same student's TFMA result: an input so that no model is judged that the
    Evaluator could not load and run. `leakage` is the leak check's answer, `control` that of the
    label-shuffle control, `serving` that of the serving check, if they ran.
    """
    with fileio.open(os.path.join(predictions_table.uri, predictions.FILE), "rb") as file:
        tables = predictions.from_bytes(file.read())
    counted = predictions_table.has_custom_property(TOUCHES)
    verdict = decide(
        tables,
        tuple(classes.split(",")),
        GateSettings.model_validate_json(settings),
        severity=tuple(severity.split(",")) if severity else None,
        leaked=bool(leaked),
        leakage=read_decision(leakage.uri) if leakage is not None else None,
        control=read_decision(control.uri) if control is not None else None,
        serving=read_decision(serving.uri) if serving is not None else None,
        touches=predictions_table.get_int_custom_property(TOUCHES) if counted else None,
    )
    write_decision(verdict, decision.uri)
    write_decision(verdict, blessing.uri)  # the Pusher, whose inputs are TFX's, reads it there
    passed = verdict.outcome is Outcome.PASSED
    blessing.set_int_custom_property("blessed", int(passed))
    blessing.set_string_custom_property("evaluation", evaluation.uri)
    flag = "BLESSED" if passed else "NOT_BLESSED"
    with fileio.open(os.path.join(blessing.uri, flag), "w") as file:
        file.write("")
