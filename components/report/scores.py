"""The scores of the page, every one of them measured by `trainer.metrics`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from components.report.evidence import Dataset, Evidence, Level, Predictions
from components.report.judgement import Interval, finite, judgement, model_name
from components.report.samples import short_names
from trainer import metrics


@dataclasses.dataclass(frozen=True)
class Column:
    """One metric of the score table.

    Attributes:
        key: in `metrics.summary`.
        label: its heading.
        lower: lower is better.
        headline: the gate measures its interval; the others are described, and stand below.
    """

    key: str
    label: str
    lower: bool = False
    headline: bool = False


COLUMNS = (
    Column("macro_auc", "Macro AUC", headline=True),
    Column("balanced_accuracy", "Balanced accuracy", headline=True),
    Column("brier", "Brier score", lower=True, headline=True),
    Column("macro_average_precision", "Macro PR-AUC"),
    Column("macro_f1", "Macro F1"),
    Column("expected_calibration_error", "Calibration error", lower=True),
    Column("accuracy", "Accuracy"),
    Column("micro_auc", "Micro AUC"),
)
KINDS = ("student", "teacher", "live", None)  # the order of rows; None: baselines
ORDINAL = (  # only where classes have an order
    Column("quadratic_kappa", "Quadratic kappa"),
    Column("mean_stage_error", "Mean stage error", lower=True),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One model's scores, one per column; None where not evaluable.

    Attributes:
        kind: "student", "teacher", "live" or "baseline".
        intervals: of the values, None where the gate gives none; empty without any.
    """

    name: str
    kind: str
    values: tuple[float | None, ...]
    intervals: tuple[Interval | None, ...] = ()


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """The student's scores for one class against the rest."""

    name: str
    rank: int
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    auc: float | None
    teacher_auc: float | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix; `share` of its row, None where the row is empty."""

    count: int
    share: float | None
    diagonal: bool


@dataclasses.dataclass(frozen=True)
class GridRow:
    """All answers given to one true class."""

    name: str
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """A confusion matrix in order of severity, its columns named in short."""

    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]


@dataclasses.dataclass(frozen=True)
class Scores:
    """Everything measured at one level.

    Attributes:
        unit: "person" or "slice"; `units` is its plural.
        labels: int[N].
        probabilities: model → float[N, C].
    """

    level: Level
    labels: np.ndarray
    probabilities: Mapping[str, np.ndarray]
    rows: tuple[Row, ...]
    classes: tuple[ClassRow, ...]
    confusion: Grid
    columns: tuple[Column, ...]

    @property
    def unit(self) -> str:
        """What is counted, in words."""
        return "person" if self.level == "subject" else "slice"

    @property
    def units(self) -> str:
        """Plural of `unit`."""
        return "people" if self.level == "subject" else "slices"

    @property
    def size(self) -> int:
        """How many of them there are."""
        return len(self.labels)


def levels(evidence: Evidence) -> tuple[Scores, ...]:
    """Measures the predictions per subject where there are subjects, and per slice.

    Returns:
        The headline level first; empty where no model was judged. A teacher whose answers are
        not finite keeps its row, without numbers.

    Raises:
        ValueError: from `trainer.metrics`, where the student's answers cannot be measured (they
            are not finite, or a subject has two labels); says why.
    """
    predictions = evidence.predictions
    if predictions is None or not len(predictions.labels):
        return ()
    probabilities = {"student": predictions.student}
    if predictions.teacher is not None and np.isfinite(predictions.teacher).all():
        probabilities["teacher"] = predictions.teacher
    found = []
    if predictions.subjects is not None:
        labels, means = _by_subject(predictions, probabilities)
        found.append(_scores(evidence, "subject", labels, means))
    found.append(_scores(evidence, "slice", predictions.labels, probabilities))
    return tuple(found)


def _by_subject(
    predictions: Predictions, probabilities: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    means = {}
    labels = predictions.labels
    for name, table in probabilities.items():
        _, means[name], labels = metrics.aggregate_by_subject(
            table, predictions.labels, predictions.subjects
        )
    return labels, means


def least_people(evidence: Evidence) -> int:
    """How many test people make a class evaluable, by the gate's settings; 1 before it had any."""
    return evidence.config.get("gate", {}).get("min_people_per_class", 1)


def _scores(
    evidence: Evidence, level: Level, labels: np.ndarray, probabilities: Mapping[str, np.ndarray]
) -> Scores:
    dataset = evidence.dataset
    severity = dataset.order if dataset.severity else None
    columns = COLUMNS if severity is None else (*COLUMNS, *ORDINAL)
    counted = {
        "min_per_class": least_people(evidence),
        "subjects": evidence.predictions.subjects if level == "slice" else None,
    }
    measured: dict[str, Mapping[str, Any]] = {
        name: metrics.summary(table, labels, severity, **counted)
        for name, table in probabilities.items()
    }
    if evidence.predictions.teacher is not None:
        measured.setdefault("teacher", {})
    kinds = {name: name for name in measured} | {"live": "live"}
    measured |= {
        name: by_level[level] for name, by_level in evidence.baselines.items() if level in by_level
    }
    judged = judgement(evidence.decision)
    told = judged.intervals if level == (judged.level or "subject") else {}
    rows = tuple(
        Row(
            model_name(name),
            kinds.get(name, "baseline"),
            tuple(finite(found.get(column.key)) for column in columns),
            tuple(told[name].get(column.key) for column in columns) if name in told else (),
        )
        for name, found in sorted(measured.items(), key=lambda of: KINDS.index(kinds.get(of[0])))
    )
    return Scores(
        level,
        labels,
        probabilities,
        rows,
        _class_rows(dataset, measured),
        _grid(dataset, np.array(measured["student"]["confusion_matrix"])),
        columns,
    )


def _class_rows(
    dataset: Dataset, measured: Mapping[str, Mapping[str, Any]]
) -> tuple[ClassRow, ...]:
    student, teacher = measured["student"], measured.get("teacher") or {}
    nothing = [None] * len(dataset.classes)
    return tuple(
        ClassRow(
            dataset.classes[label],
            rank,
            student["support"][label],
            *(finite(student[key][label]) for key in ("precision", "recall", "f1")),
            *(
                finite(student[key][label]) if student["evaluable"][label] else None
                for key in ("average_precision", "auc")
            ),
            finite(teacher.get("auc", nothing)[label]) if student["evaluable"][label] else None,
        )
        for rank, label in enumerate(dataset.order)
    )


def _grid(dataset: Dataset, matrix: np.ndarray) -> Grid:
    order = list(dataset.order)
    ordered = matrix[np.ix_(order, order)]
    names = tuple(dataset.classes[label] for label in order)
    rows = []
    for rank, counts in enumerate(ordered):
        total = int(counts.sum())
        cells = tuple(
            Cell(int(count), int(count) / total if total else None, rank == column)
            for column, count in enumerate(counts)
        )
        rows.append(GridRow(names[rank], cells))
    short = short_names(dataset.classes)
    return Grid(tuple(short[label] for label in order), tuple(rows))
