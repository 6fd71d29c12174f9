"""The numbers of a run in the form in which Kubeflow's UI shows them: metadata of its artifacts.

The shapes are those that `kfp.dsl.Metrics` and `kfp.dsl.ClassificationMetrics` keep; a test holds
them against the SDK. Nothing that is not finite is written: JSON has no word for it.
"""

import re
from typing import Any

import numpy as np

from components.report.evidence import Evidence
from components.report.judgement import finite, judgement
from components.report.scores import Scores
from trainer import ranking

MAX_POINTS = 200
DIGITS = 6


def scalars(evidence: Evidence, level: Scores | None) -> dict[str, float | int | str]:
    """Headline numbers by model, with the ends of their intervals, and the gate's outcome.

    Args:
        evidence: of the run.
        level: its headline scores, or None where no model was judged.

    Returns:
        `student_macro_auc`, `student_macro_auc_low`, …, `test_people`, `outcome`, `gate_passed`;
        what was not measured is left out.
    """
    found: dict[str, float | int | str | None] = {}
    columns = level.columns if level else ()
    for row in level.rows if level else ():
        intervals = row.intervals or (None,) * len(row.values)
        for column, value, interval in zip(columns, row.values, intervals, strict=True):
            if not column.headline or value is None:
                continue
            name = f"{_slug(row.name)}_{column.key}"
            found[name] = value
            if interval is not None and interval.known:
                found |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    if level is not None:
        found[f"test_{level.units}"] = level.size
    if evidence.predictions is not None:
        found["test_images"] = len(evidence.predictions.labels)
    for other, of in judgement(evidence.decision).differences.items():
        name = f"{_slug(other.replace(' - ', ' less '))}_macro_auc"
        found |= {name: of.value, f"{name}_low": of.low, f"{name}_high": of.high}
    if evidence.decision is not None:
        checks = evidence.decision.checks
        found["outcome"] = evidence.decision.outcome.value
        found["gate_passed"] = int(evidence.decision.outcome == "passed")
        found["checks_passed"] = sum(check.passed for check in checks)
        found["checks"] = len(checks)
    return {name: _told(value) for name, value in found.items() if _sayable(value)}


def confusion(level: Scores) -> dict[str, Any]:
    """The student's confusion matrix: rows are truth, columns answers, in order of severity."""
    return {
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": row.name} for row in level.confusion.rows],
            "rows": [{"row": [cell.count for cell in row.cells]} for row in level.confusion.rows],
        }
    }


def roc(level: Scores, label: int) -> dict[str, Any]:
    """The student's ROC curve of one class against the rest.

    Args:
        level: the scores.
        label: of the class.

    Returns:
        Points from (0, 0) to (1, 1) by falling threshold, `MAX_POINTS` at most; nothing where all
        or none are of this class, which have no such curve.
    """
    scores, positive = level.probabilities["student"][:, label], level.labels == label
    if not 0 < positive.sum() < positive.size:
        return {}
    hits, alarms = ranking.positives_above(scores, positive)
    thresholds = np.unique(scores)[::-1]
    kept = np.unique(np.linspace(0, len(thresholds) - 1, MAX_POINTS - 1).round().astype(int))
    above_all = np.nextafter(thresholds[0], np.inf)  # reached by nobody; infinity is no JSON
    points = zip(
        (above_all, *thresholds[kept]),
        (0.0, *(hits[kept] / hits[-1])),
        (0.0, *(alarms[kept] / alarms[-1])),
        strict=True,
    )
    return {
        "confidenceMetrics": [
            {
                "confidenceThreshold": float(threshold),
                "recall": float(recall),
                "falsePositiveRate": float(rate),
            }
            for threshold, recall, rate in points
        ]
    }


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _sayable(value: float | int | str | None) -> bool:
    return isinstance(value, str) or finite(value) is not None


def _told(value: float | int | str | None) -> float | int | str:
    """A number as it is read in a table, close enough to be compared between runs."""
    return round(value, DIGITS) if isinstance(value, float) else value  # type: ignore[return-value]
