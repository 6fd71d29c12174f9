"""The model gate: may this student go live? Decided on people it has never seen.

Headline numbers are per subject: the mean, over a person's slices, of the calibrated probabilities.
The gate asks for macro one-vs-rest AUC and never for micro AUC or accuracy, which reward predicting
the prior; and it asks for bounds of confidence intervals, since 84 people are few.

A model passes when it passes every check: an intersection–union test (Berger 1982). A model that
fails any one of them passes by mistake at most as often as that one check errs alone, so the level
of each stays as it is and needs no correction for their number.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation import gate_measures as measures
from evaluation.config import GateSettings
from evaluation.gate_measures import CANDIDATE, CSF, LIVE, MACRO, PRIOR, TEACHER, Measured
from evaluation.intervals import Interval
from evaluation.outcome import Check, Decision, Outcome, concluded
from evaluation.predictions import SplitTable

BY_SUBJECT = "evaluated by subject"
NO_LEAKS = "split without known leaks"
FINITE = "finite probabilities"
SERVABLE = "serving check"
FINAL = (NO_LEAKS, FINITE, SERVABLE)  # no name and no reason overrides these


def decide(
    tables: Mapping[str, SplitTable],
    classes: Sequence[str],
    settings: GateSettings,
    *,
    severity: Sequence[str] | None = None,
    leaked: bool = False,
    leakage: Decision | None = None,
    control: Decision | None = None,
    serving: Decision | None = None,
    touches: int | None = None,
) -> Decision:
    """Judges the student on the test split.

    Args:
        tables: "train" (baselines are fitted on it), "test" with the probabilities of `student`
            and, where there are, `teacher` and `live`; "val" with those of `student` for the
            operating point, which may be missing.
        classes: class names by label.
        settings: floors, margins and the bootstrap.
        severity: class names from least to most severe, or None.
        leaked: the split is known to share subjects; such a model can never pass.
        leakage: what the leak check found, where it ran; data that it did not pass may have been
            trained on (a layer was off, or nobody is known), and their model does not pass either.
        control: what the label-shuffle control found, where it ran.
        serving: what the serving check found, where it ran.
        touches: how many candidates these test people have judged, this one included.

    Returns:
        The decision. `metrics`: model or baseline → "subject", "slice" → `metrics.summary`, its
        macro AUC over the evaluable classes. `details`:

        - `level`: "subject", or "slice" where there are no subjects.
        - `final`: names of the checks that nobody can override.
        - `people`: class → people in the test split; `evaluable`: classes with enough of them;
          `not_evaluable`: the others → people.
        - `intervals`: model → metric → [value, low, high], per subject; `macro_auc`, `auc/CLASS`,
          `balanced_accuracy`, `brier`.
        - `differences`: "student - OTHER" → [value, low, high] of the paired difference in macro
          AUC.
        - `slice_intervals`: the student's slice-level macro AUC with people resampled, `cluster`,
          and with slices resampled, `row`, which is too narrow.
        - `operating_point`: `positive` classes, `target_sensitivity`, `threshold`,
          `validation_people`; on the test split `sensitivity` and `specificity`; or None.
        - `subgroups`: "slice band", "site" → group → `people`, `images`, `macro_auc` or None.
        - `calibration`: the student's `brier` and `expected_calibration_error` per subject.
        - `content`: digest of the files that the serving check tried out; None without one.
        - `confidence` of all intervals; `touches`: as given; `notes`: sentences for the reader.
    """
    test = tables["test"]
    classes = tuple(classes)
    candidate = test.probabilities[CANDIDATE]
    valid = measures.sound(candidate, len(classes))
    found = measures.measure(
        measures.with_baselines(tables["train"], test, len(classes)),
        test,
        classes,
        severity,
        settings,
    )
    details = _details(tables, classes, settings, severity, found, touches, valid)
    checks = [*_fundamental(tables, leaked, valid)]
    if leakage is not None:
        checks.append(_told("leak check", leakage))
    if serving is not None:
        checks.append(_told(SERVABLE, serving))
        details["content"] = serving.details.get("content")
    if valid:
        checks.append(_collapse(found, details["level"]))
        if control is not None:
            checks.append(_told("label-shuffle control", control))
        if test.subjects is not None:
            checks.append(_enough_people(found, settings))
            if checks[-1].passed:
                checks += _performance(found, classes, settings)
                checks += _comparisons(found, test, settings)
    return concluded(checks, metrics=found.metrics, details=details)


def three_way(
    name: str,
    interval: Interval,
    bound: float,
    people: int,
    what: str,
    short: str,
    *,
    strict: bool = False,
) -> Check:
    """Passed where the lower bound reaches `bound`, refused where the upper one does not.

    In between the evidence is insufficient; how many people would settle it follows from the
    interval's width, which shrinks as 1 / √people.

    Args:
        name: of the check.
        interval: what was measured.
        bound: what it is held against.
        people: how many people the interval rests on.
        what: the number in words.
        short: what it is when it falls short of `bound`, in words ("below the floor 0.700").
        strict: the lower bound must lie above `bound`: to touch it shows nothing.
    """
    value, low, high = interval
    told = f"{what} {value:.3f} [{low:.3f}, {high:.3f}]"
    if not all(map(math.isfinite, interval)):
        return Check(name, Outcome.INSUFFICIENT, detail=f"{what} cannot be told from these people")
    if low > bound or (low == bound and not strict):
        return Check(name, Outcome.PASSED, value, bound, low, high, told)
    if high < bound or (high == bound and strict):
        return Check(name, Outcome.REFUSED, value, bound, low, high, f"{told} is {short}")
    gap, width = abs(value - bound), (value - low if value > bound else high - value)
    advice = "no number of people would show on which side it is"
    if gap > 0.05 * width:
        needed = math.ceil(people * max(1.0, (width / gap) ** 2))
        advice = f"about {max(needed, people + 1)} test people would settle it, if it stays"
    detail = f"{told} is not shown to be on either side of {bound:.3f} by {people} people; {advice}"
    return Check(name, Outcome.INSUFFICIENT, value, bound, low, high, detail)


def _check(
    name: str,
    passed: bool,
    detail: str,
    value: float | None = None,
    bound: float | None = None,
) -> Check:
    """A check without an interval; `detail` is told where it did not pass."""
    if passed:
        return Check(name, Outcome.PASSED, value, bound)
    return Check(name, Outcome.REFUSED, value, bound, detail=detail)


def _fundamental(
    tables: Mapping[str, SplitTable], leaked: bool, valid: bool
) -> tuple[Check, Check, Check]:
    shared = _shared_people(tables)
    return (
        _check(
            BY_SUBJECT,
            tables["test"].subjects is not None,
            "no subject ids: slices of one person may stand on both sides of the split",
        ),
        _check(
            NO_LEAKS,
            not leaked and not shared,
            f"the split shares subjects: {shared} test people were also trained on or chosen with"
            if shared
            else "the split shares subjects",
            shared,
            0,
        ),
        _check(
            FINITE,
            valid,
            "the model returned NaN or infinite probabilities, or others that are none",
        ),
    )


def _shared_people(tables: Mapping[str, SplitTable]) -> int:
    """How many people of the test split are in another split too."""
    test = tables["test"].subjects
    others = [table.subjects for name, table in tables.items() if name != "test"]
    known = [subjects for subjects in others if subjects is not None]
    if test is None or not known:
        return 0
    return len(np.intersect1d(test, np.concatenate(known)))


def _collapse(found: Measured, level: str) -> Check:
    confusion = np.array(found.metrics[CANDIDATE][level]["confusion_matrix"])
    predicted = int((confusion.sum(axis=0) > 0).sum())
    return _check(
        "more than one class predicted",
        predicted > 1,
        "the model gives everyone the same class",
        predicted,
        2,
    )


def _told(name: str, earlier: Decision) -> Check:
    """Another gate's answer as a check of this one."""
    return Check(name, earlier.outcome, detail="; ".join(earlier.reasons))


def _enough_people(found: Measured, settings: GateSettings) -> Check:
    name, each = "enough people", settings.min_people_per_class
    people = int(found.people[list(found.evaluable)].sum())
    if len(found.evaluable) < 2:
        detail = f"fewer than two classes have {each} people in the test split"
    elif people < settings.min_people:
        detail = f"{people} people in the test split cannot decide; {settings.min_people} can"
    else:
        return Check(name, Outcome.PASSED, people, settings.min_people)
    return Check(name, Outcome.INSUFFICIENT, people, settings.min_people, detail=detail)


def _performance(found: Measured, classes: Sequence[str], settings: GateSettings) -> list[Check]:
    own = found.intervals[CANDIDATE]
    people = int(found.people.sum())
    floor, each = settings.macro_auc_floor, settings.class_auc_floor
    checks = [
        three_way(
            "macro AUC floor",
            own[MACRO],
            floor,
            people,
            "subject-level macro AUC",
            f"below the floor {floor:.3f}",
        )
    ]
    for label in found.evaluable:
        name = classes[label]
        checks.append(
            three_way(
                f"AUC floor: {name}",
                own[f"auc/{name}"],
                each,
                people,
                f"subject-level AUC of {name}",
                f"below the floor {each:.3f}",
            )
        )
    return checks


def _comparisons(found: Measured, test: SplitTable, settings: GateSettings) -> list[Check]:
    people = int(found.people.sum())
    prior = found.differences[f"{CANDIDATE} - {PRIOR}"]
    checks = [_beats("beats the constant prior", prior, people, PRIOR)]
    if settings.total_csf != "report":
        checks.append(_against_csf(found, settings, people))
    for other, margin, name in (
        (LIVE, settings.live_margin, "not worse than the live version"),
        (TEACHER, settings.teacher_margin, "keeps up with its teacher"),
    ):
        if other not in test.probabilities:
            continue
        difference = found.differences.get(f"{CANDIDATE} - {other}")
        if difference is None:
            told = f"{other}: its answers are no probabilities of these classes, so none compares"
            checks.append(Check(name, Outcome.INSUFFICIENT, bound=-margin, detail=told))
            continue
        what, short = _gap(other), f"below the margin {-margin:.3f}"
        checks.append(three_way(name, difference, -margin, people, what, short))
    return checks


def _against_csf(found: Measured, settings: GateSettings, people: int) -> Check:
    """Whether the student is worth more than one hand-made number ("beat"), or as much."""
    name = "beats total CSF" if settings.total_csf == "beat" else "matches total CSF"
    difference = found.differences.get(f"{CANDIDATE} - {CSF}")
    if difference is None:
        told = "total CSF was not measured in these images; to go without: gate.total_csf=report"
        return Check(name, Outcome.INSUFFICIENT, detail=told)
    if settings.total_csf == "beat":
        return _beats(name, difference, people, CSF)
    value, low, high = difference
    told = f"{_gap(CSF)} {value:+.3f} [{low:+.3f}, {high:+.3f}]"
    bound = -settings.total_csf_margin
    if high < 0:
        told, outcome = f"{told}: shown to be worse", Outcome.REFUSED
    elif value < bound:
        told = f"{told}: not shown to be worse, but more than {-bound:.3f} lower"
        outcome = Outcome.INSUFFICIENT
    else:
        outcome = Outcome.PASSED
    return Check(name, outcome, value, bound, low, high, told)


def _beats(name: str, difference: Interval, people: int, other: str) -> Check:
    return three_way(name, difference, 0.0, people, _gap(other), "not above 0", strict=True)


def _gap(other: str) -> str:
    names = {LIVE: "the live version", TEACHER: "the teacher", PRIOR: "the constant prior"}
    return f"macro AUC minus that of {names.get(other, other)}"


def _details(
    tables: Mapping[str, SplitTable],
    classes: Sequence[str],
    settings: GateSettings,
    severity: Sequence[str] | None,
    found: Measured,
    touches: int | None,
    valid: bool,
) -> dict[str, Any]:
    test = tables["test"]
    candidate = test.probabilities[CANDIDATE]
    level = "subject" if test.subjects is not None else "slice"
    people = {name: int(count) for name, count in zip(classes, found.people, strict=True)}
    evaluable = [classes[label] for label in found.evaluable]
    point, why = measures.operating_point(tables.get("val"), test, classes, severity, settings)
    notes = [why] if why else []
    few = {name: count for name, count in people.items() if name not in evaluable}
    notes += [
        f"{name} is not evaluable: {count} people, {settings.min_people_per_class} needed"
        for name, count in few.items()
        if level == "subject"
    ]
    if touches is not None and touches > 1:
        notes.append(
            f"these test people have now judged {touches} candidates; the best of several looks "
            "better than it is"
        )
    measured = found.metrics[CANDIDATE].get(level, {})
    return {
        "level": level,
        "final": list(FINAL),
        "people": people,
        "evaluable": evaluable,
        "not_evaluable": few,
        "intervals": {
            model: {metric: list(it) for metric, it in of_model.items()}
            for model, of_model in found.intervals.items()
        },
        "differences": {name: list(it) for name, it in found.differences.items()},
        "slice_intervals": (
            measures.slice_intervals(candidate, test, found.evaluable, settings) if valid else {}
        ),
        "operating_point": point,
        "subgroups": (measures.subgroups(candidate, test, len(classes), settings) if valid else {}),
        "calibration": {key: measured.get(key) for key in ("brier", "expected_calibration_error")},
        "content": None,
        "confidence": settings.confidence,
        "touches": touches,
        "notes": notes,
    }
