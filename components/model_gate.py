"""ModelGate: may this student go live? Decided on people it has never seen.

The numbers are per subject (mean probability over a person's slices). The gate asks for a floor on
macro one-vs-rest AUC and for more than one predicted class; never for micro AUC or accuracy, which
reward predicting the prior. It publishes its decision and lets the run go on: the next node,
`StopOnRefusal`, ends it, so that a refused model still has its decision, report and lineage.
"""

import os
from typing import Any

import numpy as np
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import ModelBlessing, ModelEvaluation

from components.artifacts import ModelDecision, Predictions
from components.decisions import write_decision
from evaluation import baselines, predictions
from evaluation.outcome import Check, Decision, Outcome
from evaluation.predictions import SplitTable
from trainer import metrics

CANDIDATE = "student"


def decide(
    train: SplitTable,
    test: SplitTable,
    classes: tuple[str, ...],
    *,
    macro_auc_floor: float,
    leaked: bool = False,
    severity: tuple[str, ...] | None = None,
) -> Decision:
    """Judges the student on the test split.

    Args:
        train: table of the training split; baselines are fitted on it.
        test: table of the test split with the models' probabilities.
        classes: class names by label.
        macro_auc_floor: least subject-level macro one-vs-rest AUC, in [0, 1].
        leaked: the split is known to share subjects; such a model can never pass.
        severity: class names from least to most severe, for the ordinal metrics.

    Returns:
        The decision with its checks, and the metrics of every model and baseline at both levels.
    """
    tables = _with_baselines(train, test, len(classes))
    measured = {
        name: _measure(probabilities, test, classes, severity)
        for name, probabilities in tables.items()
    }
    candidate = test.probabilities[CANDIDATE]
    checks = [
        _check(
            "evaluated by subject",
            test.subjects is not None,
            detail="no subject ids: slices of one person may stand on both sides of the split",
        ),
        _check("split without known leaks", not leaked, detail="the split shares subjects"),
        _check(
            "finite probabilities",
            bool(np.isfinite(candidate).all()),
            detail="the model returned NaN or infinite probabilities",
        ),
    ]
    if not checks[-1].passed:
        return _conclude(checks, measured, evaluable=True)
    level = "subject" if test.subjects is not None else "slice"
    headline = measured[CANDIDATE][level]
    predicted = int((np.array(headline["confusion_matrix"]).sum(axis=0) > 0).sum())
    checks.append(
        _check(
            "more than one class predicted",
            predicted > 1,
            predicted,
            2,
            "the model gives everyone the same class",
        )
    )
    auc = headline["macro_auc"]
    evaluable = bool(np.isfinite(auc))
    checks.append(
        _check(
            "macro AUC floor",
            evaluable and auc >= macro_auc_floor,
            auc if evaluable else None,
            macro_auc_floor,
            f"{level}-level macro AUC {auc:.3f} is below the floor {macro_auc_floor:.3f}"
            if evaluable
            else "fewer than two classes are present in the test split",
        )
    )
    return _conclude(checks, measured, evaluable)


def _check(name, passed, value=None, bound=None, detail="") -> Check:
    outcome = Outcome.PASSED if passed else Outcome.REFUSED
    return Check(name, outcome, value, bound, detail=detail)


def _with_baselines(train: SplitTable, test: SplitTable, classes: int) -> dict[str, np.ndarray]:
    tables = dict(test.probabilities)
    tables["constant prior"] = baselines.constant_prior(train, len(test.labels), classes)
    csf = baselines.total_csf(train, test, classes)
    if csf is not None:
        tables["total CSF"] = csf
    return tables


def _measure(probabilities, test, classes, severity) -> dict[str, Any]:
    """Every metric of one model per slice and, where there are subjects, per subject."""
    if not np.isfinite(probabilities).all():
        return {}
    order = tuple(classes.index(name) for name in severity) if severity else None
    measured = {"slice": metrics.summary(probabilities, test.labels, severity=order)}
    if test.subjects is not None:
        _, means, labels = metrics.aggregate_by_subject(probabilities, test.labels, test.subjects)
        measured["subject"] = metrics.summary(means, labels, severity=order)
    return measured


def _conclude(checks: list[Check], measured: dict[str, Any], evaluable: bool) -> Decision:
    failed = [check for check in checks if not check.passed]
    outcome = Outcome.PASSED
    if failed:
        only_unevaluable = not evaluable and failed == checks[-1:]
        outcome = Outcome.INSUFFICIENT if only_unevaluable else Outcome.REFUSED
    return Decision(outcome, tuple(check.detail for check in failed), tuple(checks), measured)


@component
def ModelGate(  # noqa: N802 (a TFX node is named as a class)
    predictions_table: InputArtifact[Predictions],
    evaluation: InputArtifact[ModelEvaluation],
    blessing: OutputArtifact[ModelBlessing],
    decision: OutputArtifact[ModelDecision],
    classes: Parameter[str],
    severity: Parameter[str],
    macro_auc_floor: Parameter[float],
    leaked: Parameter[int],
    code: Parameter[str],
):
    """TFX node: publishes blessing and decision. `classes`, `severity`: names joined by commas.
    `code` is the hash of this code: an edited gate must decide again.

    `evaluation` is the same student's TFMA result: an input so that no model is judged that the
    Evaluator could not load and run.
    """
    with fileio.open(os.path.join(predictions_table.uri, predictions.FILE), "rb") as file:
        tables = predictions.from_bytes(file.read())
    verdict = decide(
        tables["train"],
        tables["test"],
        tuple(classes.split(",")),
        macro_auc_floor=macro_auc_floor,
        leaked=bool(leaked),
        severity=tuple(severity.split(",")) if severity else None,
    )
    write_decision(verdict, decision.uri)
    write_decision(verdict, blessing.uri)  # the Pusher, whose inputs are TFX's, reads it there
    passed = verdict.outcome is Outcome.PASSED
    blessing.set_int_custom_property("blessed", int(passed))
    blessing.set_string_custom_property("evaluation", evaluation.uri)
    flag = "BLESSED" if passed else "NOT_BLESSED"
    with fileio.open(os.path.join(blessing.uri, flag), "w") as file:
        file.write("")
