"""Names of what the node RunView is given and gives, without anything heavy behind them."""

import re
from collections.abc import Sequence

# Input name → node and output key that it comes from.
INPUTS = {
    "examples": ("ImageExampleGen", "examples"),
    "statistics": ("StatisticsGen", "statistics"),
    "anomalies": ("ExampleValidator", "anomalies"),
    "anomaly_decision": ("AnomalyGate", "decision"),
    "leakage": ("LeakageCheck", "decision"),
    "drift": ("DriftGate", "decision"),
    "control": ("ShuffleControl", "decision"),
    "serving": ("ServingCheck", "decision"),
    "predictions": ("Predictor", "predictions"),
    "evaluation": ("Evaluator", "evaluation"),
    "decision": ("ModelGate", "decision"),
    "pretrained": ("Pretrainer", "model"),
    "teacher": ("Teacher", "model"),
    "student": ("Student", "model"),
}
OF_DATA = ("examples", "statistics", "anomalies", "anomaly_decision", "leakage", "drift")

METRICS, CONFUSION = "metrics", "confusion_matrix"
REPORT, STATISTICS, CHECKS, CARD = "report", "statistics_view", "data_checks", "model_card"
# Output name → Kubeflow's own artifact type, which decides how its UI shows it, and what it is.
OUTPUTS = {
    METRICS: ("system.Metrics", "Headline numbers per test person, with their intervals."),
    CONFUSION: (
        "system.ClassificationMetrics",
        "Confusion matrix of the student, one count per test person.",
    ),
    REPORT: ("system.HTML", "The whole report of the run."),
    STATISTICS: ("system.HTML", "Images, people and image descriptors of each split."),
    CHECKS: ("system.HTML", "Anomalies, leak check with its picture, and drift."),
    CARD: ("system.Markdown", "The model card."),
}
PAGES_OF_DATA = (STATISTICS, CHECKS)


def roc_names(classes: Sequence[str]) -> dict[str, str]:
    """Class → name of the output with its ROC curve, in which only letters, digits and _ may be.

    Classes that come out alike are numbered.
    """
    found: dict[str, str] = {}
    for name in classes:
        plain = "roc_" + re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
        taken, number = set(found.values()), 2
        unique = plain
        while unique in taken:
            unique, number = f"{plain}_{number}", number + 1
        found[name] = unique
    return found


def outputs(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Every output of RunView: name → Kubeflow's artifact type, and what it is."""
    curves = {
        output: (
            "system.ClassificationMetrics",
            f"ROC of the student, {name} against the rest, per test person.",
        )
        for name, output in roc_names(classes).items()
    }
    order = (METRICS, CONFUSION)
    return {
        **{name: OUTPUTS[name] for name in order},
        **curves,
        **{name: told for name, told in OUTPUTS.items() if name not in order},
    }
