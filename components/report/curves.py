"""ROC, precision–recall and calibration: `trainer` computes, `figures` draws."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from components.report import figures, style
from components.report.evidence import Dataset, Evidence
from components.report.figures import Line
from components.report.panels import Panel
from components.report.scores import Scores
from evaluation.calibration import uncalibrated
from trainer import metric_curves, metrics
from trainer.metric_curves import Curve
from trainer.metrics import Reliability

POINTS = 250  # more cannot be seen at the size of a panel
LOOKS = {
    "student": (2.4, "-"),
    "teacher": (1.0, "-"),
    "slices": (1.3, "--"),
    "uncalibrated": (1.3, "--"),
}


@dataclasses.dataclass(frozen=True)
class Curves:
    """Panels for each class and each average; `both`: slices are drawn beside people."""

    roc: tuple[Panel, ...]
    pr: tuple[Panel, ...]
    teacher: bool
    both: bool


@dataclasses.dataclass(frozen=True)
class _Subject:
    """What one panel is about: a class (`label`, `rank`) or an average over classes."""

    title: str
    rank: int | None = None
    label: int | None = None

    def of(self, curves: metric_curves.Curves) -> Curve | None:
        """This subject's curve among a model's."""
        if self.label is not None:
            return curves.classes[self.label]
        return curves.macro if self.title.startswith("Macro") else curves.micro


def curves(evidence: Evidence, levels: Sequence[Scores]) -> Curves | None:
    """Draws the headline level's curves, with slices beside people; None without a model."""
    if not levels:
        return None
    headline, beside = levels[0], levels[1:]
    series = {name: (table, headline.labels) for name, table in headline.probabilities.items()}
    for at in beside:
        series["slices"] = (at.probabilities["student"], at.labels)
    counted = _counted(evidence.dataset, headline)  # the macro curve's area is the macro AUC
    roc = {name: metric_curves.roc_curves(*of, counted) for name, of in series.items()}
    pr = {
        name: _stepped(metric_curves.precision_recall_curves(*of, counted))
        for name, of in series.items()
    }
    subjects = _subjects(evidence.dataset)
    return Curves(
        tuple(_roc(f"roc{position}", of, roc, headline) for position, of in enumerate(subjects)),
        tuple(
            _pr(f"pr{position}", of, pr, headline, counted) for position, of in enumerate(subjects)
        ),
        "teacher" in headline.probabilities,
        bool(beside),
    )


def _counted(dataset: Dataset, scores: Scores) -> list[int]:
    """Labels of the evaluable classes."""
    return [
        label
        for label, row in zip(dataset.order, scores.classes, strict=True)
        if row.auc is not None
    ]


def _subjects(dataset: Dataset) -> list[_Subject]:
    of_classes = [
        _Subject(dataset.classes[label], rank, label) for rank, label in enumerate(dataset.order)
    ]
    return [*of_classes, _Subject("Macro average"), _Subject("Micro average")]


def _roc(
    key: str, of: _Subject, found: Mapping[str, metric_curves.Curves], scores: Scores
) -> Panel:
    lines, areas = _lines(of, found)
    if not lines or _few(of, scores):
        return _void(of, scores)
    svg = figures.roc(key, f"ROC curve, {of.title}; area: {areas}", lines)
    return Panel(of.title, f"AUC: {areas}", svg, of.rank)


def _pr(
    key: str,
    of: _Subject,
    found: Mapping[str, metric_curves.Curves],
    scores: Scores,
    counted: Sequence[int],
) -> Panel:
    lines, areas = _lines(of, found)
    if not lines or _few(of, scores) or not counted:
        return _void(of, scores)
    prevalence = _prevalence(of, scores, counted)
    description = f"Precision over recall, {of.title}; average precision: {areas}"
    note = f"AP: {areas}; prevalence\u00a0{prevalence:.2f}"
    svg = figures.precision_recall(key, description, lines, prevalence)
    return Panel(of.title, note, svg, of.rank)


def _lines(of: _Subject, found: Mapping[str, metric_curves.Curves]) -> tuple[list[Line], str]:
    """The lines of one panel, the student's on top, and their areas in words."""
    colour = style.ACCENT if of.rank is None else style.class_colour(of.rank)
    known = {name: curve for name, curves in found.items() if (curve := of.of(curves))}
    areas = ", ".join(f"{name}\u00a0{curve.area:.3f}" for name, curve in known.items())
    lines = [Line(*_thinned(curve), colour, *LOOKS[name]) for name, curve in known.items()]
    return lines[::-1], areas


def _stepped(curves: metric_curves.Curves) -> metric_curves.Curves:
    classes = tuple(curve and _steps(curve) for curve in curves.classes)
    return metric_curves.Curves(classes, _steps(curves.micro), curves.macro)


def _steps(curve: Curve) -> Curve:
    """The steps whose area is the average precision: of each recall, the first precision."""
    x, first = np.unique(curve.x, return_index=True)
    return Curve(x, curve.y[first], curve.area)


def _thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out points that cannot be seen."""
    if len(curve.x) <= POINTS:
        return curve.x, curve.y
    kept = np.linspace(0, len(curve.x) - 1, POINTS).round().astype(int)
    return curve.x[kept], curve.y[kept]


def _prevalence(of: _Subject, scores: Scores, counted: Sequence[int]) -> float:
    """Precision of a guess: the share of positives (pooled, one in C pairs is positive).

    The macro average takes the mean over evaluable classes, as its curve does.
    """
    classes = scores.probabilities["student"].shape[1]
    if of.label is not None:
        return float((scores.labels == of.label).mean())
    if of.title.startswith("Micro"):
        return 1.0 / classes
    return float(np.isin(scores.labels, counted).mean()) / len(counted)


def _few(of: _Subject, scores: Scores) -> bool:
    """Whether a class has too few people for a curve of its own."""
    return of.rank is not None and scores.classes[of.rank].auc is None


def _void(of: _Subject, scores: Scores) -> Panel:
    if of.rank is not None and (number := scores.classes[of.rank].support):
        void = f"{number} {scores.unit if number == 1 else scores.units} of this class"
    else:
        void = f"needs {scores.units} of this class and others"
    return Panel(of.title, "", None, of.rank, void=void)


def calibration(evidence: Evidence, levels: Sequence[Scores]) -> tuple[Panel, ...]:
    """Draws reliability, and how the student's confidence is spread, at each level.

    Where the student was calibrated, its reliability before is drawn beside: its probabilities are
    softmax(logits / T), so that their T-th powers, made to sum to 1 again, are softmax(logits).
    """
    if not levels:  # no answers, or such as cannot be measured
        return ()
    found = evidence.calibrations.get("student")
    before = None
    if found is not None and found.temperature != 1 and evidence.predictions is not None:
        before = uncalibrated(evidence.predictions.student, found.temperature)
    panels = []
    for position, scores in enumerate(levels):
        series = dict(scores.probabilities)
        if before is not None:
            table = before
            if scores.level == "subject":
                _, table, _ = metrics.aggregate_by_subject(
                    before, evidence.predictions.labels, evidence.predictions.subjects
                )
            series["uncalibrated"] = table
        panels += [
            _reliability(f"cal{position}", scores, series),
            _spread(f"conf{position}", scores),
        ]
    return tuple(panels)


def _reliability(key: str, scores: Scores, series: Mapping[str, np.ndarray]) -> Panel:
    found = {name: metrics.reliability(table, scores.labels) for name, table in series.items()}
    errors = ", ".join(
        f"{name}\u00a0{metrics.expected_calibration_error(table, scores.labels):.3f}"
        for name, table in series.items()
    )
    lines = [_reliability_line(name, bins) for name, bins in found.items()]
    weights = [bins.counts[bins.counts > 0] / bins.counts.sum() for bins in found.values()]
    title = f"Reliability, per {scores.unit}"
    svg = figures.reliability(
        key, f"{title}; calibration error: {errors}", lines[::-1], weights[::-1]
    )
    return Panel(title, f"Calibration error: {errors}", svg)


def _reliability_line(name: str, bins: Reliability) -> Line:
    filled = bins.counts > 0
    width, dash = LOOKS[name]
    return Line(bins.confidence[filled], bins.accuracy[filled], style.ACCENT, width, dash)


def _spread(key: str, scores: Scores) -> Panel:
    bins = metrics.reliability(scores.probabilities["student"], scores.labels)
    title = f"Confidence, per {scores.unit}"
    mean = scores.probabilities["student"].max(axis=1).mean()
    note = f"mean {mean:.2f}"
    svg = figures.confidence(
        key, f"{title}; {note}", bins.edges, bins.counts, scores.units.capitalize()
    )
    return Panel(title, note, svg)
