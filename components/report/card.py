"""The model card of a run: what its student is, for what, on what evidence, and what is not known.

Sections follow Mitchell et al. 2019 (Model Cards for Model Reporting), with the checks on the data,
and two reporting checklists. Markdown and HTML say the same, from the same evidence as the report.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.report import card_model, checklist, document, forests, refusals, scores, verdict
from components.report.document import Block, Document, Section, Table, Text, bullets, table
from components.report.evidence import Evidence
from components.report.html import environment
from components.report.judgement import Interval, Judgement, judgement, model_name
from components.report.scores import Scores
from components.report.storage import replace
from components.report.tables import counts
from components.report.words import bound, interval, measure, moment
from evaluation.outcome import Decision, Outcome

MARKDOWN, HTML = "model_card.md", "model_card.html"
LEAD = "Research use only, not for diagnosis."
NAMES = {
    "decision": "Decision",
    "model": "Model details",
    "use": "Intended use",
    "data": "Data and split",
    "metrics": "Metrics",
    "results": "Results",
    "calibration": "Calibration",
    "refusals": "Which images get no answer",
    "checks": "Checks on data and model",
    "limits": "Limits",
    "ethics": "Ethical considerations",
    "lineage": "Lineage",
    "checklists": "Checklists",
}
OUTCOMES = {
    Outcome.PASSED: "passed",
    Outcome.REFUSED: "REFUSED",
    Outcome.INSUFFICIENT: "insufficient evidence",
}
ID_SOURCES = {
    "names": "People are told apart by the names of the files.",
    "records": "People are told apart by ids in the records.",
    "order": "People were recovered from the order of the files.",
    "clusters": "People were recovered from the images themselves, by their likeness.",
}


def card(evidence: Evidence) -> Document:
    """Lays the card out; what the run did not get to is said to be missing."""
    judged = judgement(evidence.decision, evidence.config.get("gate", {}).get("confidence"))
    try:
        levels = scores.levels(evidence)
    except ValueError:
        levels = ()
    build: dict[str, Callable[[], Iterator[Block]]] = {
        "decision": lambda: _decision(evidence, judged),
        "model": lambda: card_model.details(evidence),
        "use": card_model.use,
        "data": lambda: _data(evidence),
        "metrics": lambda: _metrics(evidence, judged),
        "results": lambda: _results(levels, judged),
        "calibration": lambda: _calibration(evidence, judged),
        "refusals": lambda: refusals.blocks(evidence),
        "checks": lambda: _checks(evidence),
        "limits": lambda: card_model.limits(evidence, judged),
        "ethics": lambda: card_model.ethics(evidence),
        "lineage": lambda: _lineage(evidence),
        "checklists": lambda: _checklists(evidence),
    }
    name = evidence.config.get("model_name") or evidence.run.pipeline or "model"
    number = f", version {evidence.pushed.version}" if evidence.pushed else ""
    return Document(
        f"Model card: {name}{number}",
        LEAD,
        tuple(Section(key, NAMES[key], tuple(blocks())) for key, blocks in build.items()),
        tuple((stamp.word, stamp.text) for stamp in verdict.stamps(evidence)),
    )


def markdown(evidence: Evidence) -> str:
    """The card as Markdown."""
    return document.markdown(card(evidence))


def html(evidence: Evidence) -> str:
    """The card as one HTML file that needs nothing else."""
    return environment().get_template("card.html").render(card=card(evidence))


def write(evidence: Evidence, folder: str | os.PathLike) -> tuple[Path, Path]:
    """Writes `model_card.md` and `model_card.html` into a folder; readers never see half of one."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((MARKDOWN, markdown(evidence)), (HTML, html(evidence))):
        replace(folder / name, text.encode())
    return folder / MARKDOWN, folder / HTML


def _decision(evidence: Evidence, judged: Judgement) -> Iterator[Block]:
    told, pushed = verdict.verdict(evidence), evidence.pushed
    yield Text(f"{told.title}. {told.lead}", strong=True)
    headline = judged.headline("student")
    if headline is not None:
        people = sum(judged.people.values())
        yield Text(f"Macro AUC {interval(headline)} on {people} test people.", strong=True)
    if noted := (*told.reasons, *verdict.caveats(evidence, judged)):
        yield bullets(noted)
    if pushed is not None:
        live = "was live" if pushed.live else "was not live"
        yield Text(f"In the registry as version {pushed.version}, which {live} at this writing.")
    elif evidence.run.under_way:
        yield Text("This card was written before the push: the registry knows what became of it.")
    elif evidence.decision is not None:
        yield Text("Nothing was put into the registry.")
    if evidence.decision is not None and evidence.decision.checks:
        yield _asked("What the gate checked", evidence.decision)


def _asked(what: str, decision: Decision) -> Table:
    passed = sum(check.passed for check in decision.checks)
    rows = [
        (
            check.name,
            OUTCOMES[check.outcome],
            interval(Interval(check.value, check.low, check.high))
            if check.low is not None
            else measure(check.value),
            bound(check.bound),
            verdict.told(check),
        )
        for check in decision.checks
    ]
    caption = f"{what}: {passed} of {len(rows)} passed"
    columns = ("Check", "Answer", "Value", "Bound", "In words")
    return table(columns, rows, caption, folded=passed == len(rows))


def _data(evidence: Evidence) -> Iterator[Block]:
    dataset = evidence.dataset
    if dataset is None:
        yield Text("No data were imported.")
        return
    split = (
        "The split is by person: nobody stands on two sides of it. What trains, what chooses "
        "(epochs, temperature, threshold) and what is tested are different people."
        if dataset.level == "subject" and not dataset.leaked
        else "The split is known to leak: the same people train and are tested."
        if dataset.leaked
        else "The split is by image, for people are not known: it may leak."
    )
    names, kind = dataset.severity or dataset.classes, ""
    if dataset.severity:
        kind = ", from least to most severe"
    yield bullets(
        [
            f"Data: {dataset.name}; classes{kind}: {', '.join(names)}.",
            f"Layout recognised at import: {dataset.importer}." if dataset.importer else None,
            ID_SOURCES.get(dataset.id_source or ""),
            split,
            "Reference standard: the severity that each phantom was drawn with."
            if card_model.drawn(evidence)
            else "Reference standard: the class that the source gives each person or image. The "
            "pipeline cannot check it; how it was made, and by whom: fill in.",
            _set_aside(dataset.quarantined, dataset.quarantine_reasons),
        ]
    )
    found = counts(dataset)
    if found is not None:
        unit = "Images (people)" if found.people else "Images"
        yield table(
            ("Split", *found.names, "All"),
            [(row.split, *map(_count, row.cells), _count(row.total)) for row in found.rows],
            f"{unit} per split and class",
        )


def _set_aside(files: int | None, reasons: dict[str, int]) -> str | None:
    if files is None:
        return None
    if not files:
        return "No file was set aside at import."
    told = ", ".join(f"{reason} {number}" for reason, number in sorted(reasons.items()))
    return f"Files set aside at import: {files}" + (f" ({told})." if told else ".")


def _count(of) -> str:
    return f"{of.images:,}" + (f" ({of.subjects:,})" if of.subjects is not None else "")


def _metrics(evidence: Evidence, judged: Judgement) -> Iterator[Block]:
    gate: dict[str, Any] = evidence.config.get("gate", {})
    per = "per person (mean of the probabilities of a person's slices)"
    yield bullets(
        [
            f"Headline: macro one-vs-rest AUC, {per if judged.level != 'slice' else 'per slice'}: "
            "the mean of the classes' AUC over the evaluable ones.",
            f"A class is evaluable with {gate['min_people_per_class']} test people or more."
            if "min_people_per_class" in gate
            else None,
            f"Intervals: {judged.interval_name}, stratified bootstrap of people with all their "
            f"slices, {gate['resamples']:,} resamples."
            if "resamples" in gate and judged.intervals
            else None,
            "Baselines: the training split's class frequencies (constant prior), and one hand-made "
            "number, the share of fluid in the brain, in a logistic regression (total CSF).",
            "Never decided by micro AUC or accuracy, which reward knowing the common class.",
            f"Candidates that this workspace has judged on these test people: {judged.touches}."
            if judged.touches
            else None,
        ]
    )


def _results(levels: Sequence[Scores], judged: Judgement) -> Iterator[Block]:
    if not levels:
        yield Text("No model was judged.")
        return
    measured = f"measured per {levels[0].unit} ({levels[0].size} {levels[0].units})"
    yield _scored(levels[0], f"Test split, {measured}", headline=True)
    if told := forests.operating_point(judged):
        yield Text(f"Operating point: {told}")
    if judged.differences:
        yield table(
            ("Student less", "Macro AUC, same people"),
            [
                (model_name(name.split(" - ")[-1]), interval(of))
                for name, of in judged.differences.items()
            ],
            "Paired differences",
        )
    yield _each_class(levels[0], judged)
    for dimension, groups in judged.subgroups.items():
        yield table(
            ("Group", "People", "Images", "Macro AUC"),
            [
                (of.name, measure(of.people), measure(of.images), interval(of.macro_auc))
                for of in groups
            ],
            f"Subgroups by {dimension}; described, not tested",
            folded=True,
        )
    yield _scored(levels[0], f"More metrics, {measured}; no intervals", headline=False)
    for level in levels[1:]:
        yield _scored(level, f"Per {level.unit} ({level.size} {level.units})", headline=None)
    if len(judged.resampled) > 1:
        drawn = {"cluster": "people drawn", "row": "slices drawn: too narrow, for comparison only"}
        told = "; ".join(
            f"{interval(of)} ({drawn.get(name, name)})" for name, of in judged.resampled.items()
        )
        yield Text(f"Slice-level macro AUC of the student: {told}.")


def _scored(level: Scores, caption: str, *, headline: bool | None) -> Table:
    """Models and baselines by metrics: those of the headline, the others, or (None) all."""
    kept = [
        place
        for place, column in enumerate(level.columns)
        if headline is None or column.headline == headline
    ]
    rows = [
        (
            row.name,
            *(
                interval((row.intervals and row.intervals[place]) or Interval(row.values[place]))
                for place in kept
            ),
        )
        for row in level.rows
    ]
    columns = ("Model", *(level.columns[place].label for place in kept))
    return table(columns, rows, caption, folded=headline is not True)


def _each_class(level: Scores, judged: Judgement) -> Table:
    measured = judged.intervals.get("student", {})
    rows = []
    for row in level.classes:
        of = measured.get(f"auc/{row.name}") or Interval(row.auc)
        told = interval(of if row.name not in judged.not_evaluable else None)
        rows.append((row.name, str(row.support), told, measure(row.recall), measure(row.precision)))
    return table(
        ("Class", level.units.capitalize(), "AUC", "Recall", "Precision"),
        rows,
        "The student, each class against the rest",
    )


def _calibration(evidence: Evidence, judged: Judgement) -> Iterator[Block]:
    if not evidence.calibrations and not evidence.predictions:
        yield Text("Nothing was calibrated.")
        return
    if evidence.calibrations:
        yield table(
            ("Model", "Temperature", "Calibration error before", "After"),
            [
                (model_name(stage), f"{of.temperature:.2f}", f"{of.before:.3f}", f"{of.after:.3f}")
                for stage, of in evidence.calibrations.items()
            ],
            "Temperature scaling, fitted and measured on validation people",
        )
    yield Text("On test people: the columns “Brier score” and “Calibration error” under Results.")


def _checks(evidence: Evidence) -> Iterator[Block]:
    gates = (
        ("Leak check", evidence.leakage and evidence.leakage.decision),
        ("Drift", evidence.drift and evidence.drift.decision),
        ("Label-shuffle control", evidence.control),
        ("Serving check", evidence.serving),
    )
    yield table(
        ("Check", "Answer", "Why"),
        [
            (name, OUTCOMES[of.outcome], _why(of)) if of else (name, "not run", "")
            for name, of in gates
        ],
    )
    for name, of in gates:
        if of and of.checks:
            yield dataclasses.replace(_asked(name, of), folded=True)
    broken = [f"{each.feature}: {each.description}" for each in evidence.anomalies]
    yield (
        bullets(broken)
        if broken
        else Text(
            "No anomaly was found against the data's contract."
            if evidence.statistics
            else "The data were not held against their contract."
        )
    )


def _why(decision: Decision) -> str:
    """Why a gate did not pass the data; of one that did, what it says of its own reach."""
    if decision.reasons:
        return "; ".join(decision.reasons)
    return "; ".join(told for check in decision.checks if (told := verdict.told(check)))


def _lineage(evidence: Evidence) -> Iterator[Block]:
    run = evidence.run
    rows = [
        ("run", run.id),
        ("started", moment(run.started)),
        ("command", run.command or "not recorded"),
        *evidence.lineage.items(),
        ("packages", ", ".join(f"{name} {of}" for name, of in sorted(run.versions.items()))),
    ]
    yield table(("What", "Which"), [row for row in rows if row[1]])
    yield Text("All settings and every number: report.html and evidence/ beside this card.")


def _checklists(evidence: Evidence) -> Iterator[Block]:
    yield Text(
        "Where the topics of two reporting guidelines are answered, in our own words; the "
        "guidelines themselves decide. “Fill in” marks what no pipeline can know."
    )
    for caption, items in (
        ("CLAIM, 2024 update, topics in its order", checklist.CLAIM),
        ("TRIPOD+AI (2024), by its items", checklist.TRIPOD),
    ):
        rows = checklist.answered(items, evidence, NAMES)
        yield table(("Topic", "Answered in"), rows, caption, folded=True)
