"""What the gate measures before it judges: metrics, intervals, operating point, subgroups."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation import baselines
from evaluation.config import GateSettings
from evaluation.intervals import Interval, Target, average, bootstrap, row_bootstrap
from evaluation.predictions import SplitTable
from evaluation.weighted import Auc, Floats, Integers, Mean, People
from trainer import metrics
from trainer.operating_points import threshold_for_sensitivity, union_probability

CANDIDATE, TEACHER, LIVE = "student", "teacher", "live"
PRIOR, CSF = "constant prior", "total CSF"
MACRO = "macro_auc"
BANDS = ("lower third", "middle third", "upper third")


@dataclasses.dataclass(frozen=True)
class Measured:
    """Everything that is known of the models on people that they have never seen.

    Attributes:
        people: int64[C], how many of each class are judged.
        evaluable: labels of the classes with enough people.
        metrics: model or baseline → level → metric → value.
        intervals: model → metric → interval, per subject.
        differences: "student - OTHER" → interval of the difference in macro AUC, per subject.
    """

    people: Integers
    evaluable: tuple[int, ...]
    metrics: dict[str, dict[str, Any]]
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, Interval]


def with_baselines(train: SplitTable, test: SplitTable, classes: int) -> dict[str, Floats]:
    """The models' probabilities and those of the baselines that there are, float64[N, C] each."""
    tables = dict(test.probabilities)
    tables[PRIOR] = baselines.constant_prior(train, len(test.labels), classes)
    csf = baselines.total_csf(train, test, classes)
    if csf is not None:
        tables[CSF] = csf
    return tables


def sound(probabilities: Floats, classes: int) -> bool:
    """Whether these are probabilities of `classes` classes: finite, and in [0, 1]."""
    table = np.asarray(probabilities)
    return (
        table.ndim == 2
        and table.shape[1] == classes
        and bool(np.isfinite(table).all())
        and bool(((table >= -1e-6) & (table <= 1 + 1e-6)).all())
    )


def count_people(test: SplitTable, classes: int) -> Integers:
    """How many people of each class a table holds, int64[C]; slices where it has no subjects."""
    return np.bincount(People.of(test.labels, test.subjects).labels, minlength=classes)


def measure(
    tables: Mapping[str, Floats],
    test: SplitTable,
    classes: Sequence[str],
    severity: Sequence[str] | None,
    settings: GateSettings,
) -> Measured:
    """Measures every model and baseline, and gives intervals where there are subjects.

    Args:
        tables: model or baseline → float64[N, C].
        test: the evaluated split.
        classes: class names by label.
        severity: class names from least to most severe, or None.
        settings: who is evaluable, and the bootstrap.
    """
    people = count_people(test, len(classes))
    evaluable, each = _enough(people, settings), settings.min_people_per_class
    order = [classes.index(name) for name in severity] if severity else None
    usable = {name: table for name, table in tables.items() if sound(table, len(classes))}
    found: dict[str, dict[str, Any]] = {name: {} for name in tables}
    by_subject: dict[str, Floats] = {}
    labels = test.labels
    for name, table in usable.items():
        found[name]["slice"] = metrics.summary(
            table, test.labels, order, min_per_class=each, subjects=test.subjects
        )
        if test.subjects is not None:
            _, by_subject[name], labels = metrics.aggregate_by_subject(
                table, test.labels, test.subjects
            )
            found[name]["subject"] = metrics.summary(
                by_subject[name], labels, order, min_per_class=each
            )
    if len(evaluable) < 2 or not by_subject:
        return Measured(people, evaluable, found, {}, {})
    intervals, differences = _intervals(by_subject, labels, classes, evaluable, settings)
    return Measured(people, evaluable, found, intervals, differences)


def slice_intervals(
    probabilities: Floats, test: SplitTable, evaluable: Sequence[int], settings: GateSettings
) -> dict[str, list[float]]:
    """Slice-level macro AUC with people resampled ("cluster") and, wrongly, with slices ("row").

    Returns:
        [value, low, high] of either; empty where there are no subjects or too few classes.
    """
    if test.subjects is None or len(evaluable) < 2:
        return {}
    people = People.of(test.labels, test.subjects)
    target = average([Auc.of(probabilities[:, label], people, label) for label in evaluable])
    draws = _draws(settings)
    return {
        "cluster": list(bootstrap({MACRO: target}, people, **draws)[MACRO]),
        "row": list(row_bootstrap(probabilities, test.labels, evaluable, **draws)),
    }


def operating_point(
    val: SplitTable | None,
    test: SplitTable,
    classes: Sequence[str],
    severity: Sequence[str] | None,
    settings: GateSettings,
) -> tuple[dict[str, Any] | None, str]:
    """Sensitivity and specificity for any disease, at a threshold that validation people chose.

    A person's score is the mean probability of all classes but the least severe. The threshold is
    the highest that may be expected to find the declared share of ill people
    (`trainer.operating_points`).

    Returns:
        The operating point (see `evaluation.gate.decide`) and "", or None and why there is none.
    """
    if not severity:
        return None, "no operating point: the classes have no order of severity"
    least = classes.index(severity[0])
    scored = []
    for table, told in ((val, "validation"), (test, "test")):
        answers = None if table is None else table.probabilities.get(CANDIDATE)
        if table is None or answers is None or not sound(answers, len(classes)):
            return None, f"no operating point: the student did not answer the {told} split"
        if table.subjects is None:
            return None, f"no operating point: the {told} split has no subject ids"
        _, means, labels = metrics.aggregate_by_subject(answers, table.labels, table.subjects)
        ill = labels != least
        if ill.all() or not ill.any():
            return None, f"no operating point: everyone in the {told} split is ill, or nobody is"
        asked = [label for label in range(len(classes)) if label != least]
        scored.append((union_probability(means, asked), ill, labels))
    (chosen_on, ill, _), (scores, truth, labels) = scored
    threshold = threshold_for_sensitivity(chosen_on, ill, settings.sensitivity)
    if math.isnan(threshold):
        few = f"{ill.sum()} ill people in the validation split"
        return None, f"no operating point: {few} promise no sensitivity of {settings.sensitivity}"
    people = People.of(labels)
    called = scores >= threshold
    rates = {
        "sensitivity": average([Mean.of(called, people, truth)]),
        "specificity": average([Mean.of(~called, people, ~truth)]),
    }
    return {
        "positive": list(severity[1:]),
        "target_sensitivity": settings.sensitivity,
        "threshold": threshold,
        "validation_people": len(ill),
        **{name: list(it) for name, it in bootstrap(rates, people, **_draws(settings)).items()},
    }, ""


def subgroups(
    probabilities: Floats, test: SplitTable, classes: int, settings: GateSettings
) -> dict[str, dict[str, dict[str, Any]]]:
    """The student's macro AUC in parts of the test split, per subject within each part.

    Returns:
        "slice band" and "site", where known → group → `people`, `images`, `macro_auc`
        ([value, low, high], or None where fewer than two classes have enough people there).
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for dimension, groups in (("slice band", _bands(test)), ("site", _sites(test))):
        for group, rows in groups.items():
            found.setdefault(dimension, {})[group] = _within(
                probabilities, test, rows, classes, settings
            )
    return found


def _draws(settings: GateSettings) -> dict[str, Any]:
    return {
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "seed": settings.seed,
    }


def _enough(people: Integers, settings: GateSettings) -> tuple[int, ...]:
    return tuple(int(label) for label in np.flatnonzero(people >= settings.min_people_per_class))


def _intervals(
    tables: Mapping[str, Floats],
    labels: Integers,
    classes: Sequence[str],
    evaluable: Sequence[int],
    settings: GateSettings,
) -> tuple[dict[str, dict[str, Interval]], dict[str, Interval]]:
    """Intervals of all models, and differences to the student, on the same resamples."""
    people = People.of(labels)
    targets: dict[str, dict[str, Target]] = {}
    for name, table in tables.items():
        twin = next((it for it in targets if np.array_equal(tables[it], table)), None)
        # One model under two names differs from itself by nothing, not by a rounding error.
        targets[name] = targets[twin] if twin else _targets(table, people, classes, evaluable)
    wanted = {
        f"{name}\n{metric}": target
        for name, of_model in targets.items()
        for metric, target in of_model.items()
    }
    others = [name for name in targets if name != CANDIDATE] if CANDIDATE in targets else []
    for name in others:
        wanted[f"{CANDIDATE} - {name}"] = targets[CANDIDATE][MACRO] - targets[name][MACRO]
    found = bootstrap(wanted, people, **_draws(settings))
    by_model = {
        name: {metric: found[f"{name}\n{metric}"] for metric in targets[name]} for name in targets
    }
    names = [f"{CANDIDATE} - {name}" for name in others]
    return by_model, {name: found[name] for name in names}


def _targets(
    table: Floats, people: People, classes: Sequence[str], evaluable: Sequence[int]
) -> dict[str, Target]:
    areas = {label: Auc.of(table[:, label], people, label) for label in evaluable}
    right = table.argmax(axis=1) == people.labels
    distance = np.square(table - np.eye(len(classes))[people.labels]).sum(axis=1)
    return {
        MACRO: average(list(areas.values())),
        **{f"auc/{classes[label]}": average([area]) for label, area in areas.items()},
        "balanced_accuracy": average(
            [Mean.of(right, people, people.labels == label) for label in evaluable]
        ),
        "brier": average([Mean.of(distance, people)], top=2.0),
    }


def _bands(test: SplitTable) -> dict[str, np.ndarray]:
    """Thirds of the positions that occur, from the lowest; empty where none is known."""
    known = test.slice_index >= 0
    positions = np.unique(test.slice_index[known])
    if len(positions) < len(BANDS):
        return {}
    rank = np.searchsorted(positions, test.slice_index) * len(BANDS) // len(positions)
    return {name: known & (rank == third) for third, name in enumerate(BANDS)}


def _sites(test: SplitTable) -> dict[str, np.ndarray]:
    return {str(site): test.sites == site for site in np.unique(test.sites) if site}


def _within(
    probabilities: Floats,
    test: SplitTable,
    rows: np.ndarray,
    classes: int,
    settings: GateSettings,
) -> dict[str, Any]:
    subjects = None if test.subjects is None else test.subjects[rows]
    area = None
    people = len(np.unique(subjects)) if subjects is not None else int(rows.sum())
    if subjects is not None and people:
        _, means, labels = metrics.aggregate_by_subject(
            probabilities[rows], test.labels[rows], subjects
        )
        evaluable = _enough(np.bincount(labels, minlength=classes), settings)
        if len(evaluable) > 1:
            who = People.of(labels)
            target = average([Auc.of(means[:, label], who, label) for label in evaluable])
            area = list(bootstrap({MACRO: target}, who, **_draws(settings))[MACRO])
    return {"people": people, "images": int(rows.sum()), MACRO: area}
