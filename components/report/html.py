"""The run report: one self-contained HTML file from one `Evidence`.

No script, no external request, no dependence on the clock: equal evidence gives equal bytes.
"""

import dataclasses
import datetime
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from components.report import curves, panels, samples, scores, tables
from components.report.evidence import Evidence
from components.report.storage import plain, replace
from components.report.tables import duration
from evaluation.outcome import Outcome

FILE = "report.html"
MAX_REASONS = 8
CONTENTS = (
    ("data", "Data"),
    ("statistics", "Statistics"),
    ("training", "Training"),
    ("curves", "Curves"),
    ("confusion", "Confusion"),
    ("calibration", "Calibration"),
    ("samples", "Samples"),
    ("pipeline", "Pipeline"),
    ("reading", "How to read"),
    ("reproduce", "Reproduce"),
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The decision in words; `kind` sets its colour."""

    kind: str
    icon: str
    title: str
    lead: str
    reasons: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stamp:
    """A warning in huge letters."""

    kind: str
    word: str
    text: str


def render(evidence: Evidence) -> str:
    """Renders the report.

    Args:
        evidence: what is known of the run; whatever is missing is said to be missing.

    Returns:
        A complete HTML document.
    """
    levels, unjudged = _levels(evidence)
    template = _environment().get_template("template.html")
    return template.render(
        run=evidence.run,
        title=" ".join(filter(None, ["Run", evidence.run.id])),
        facts=_facts(evidence),
        verdict=_verdict(evidence),
        stamps=_stamps(evidence),
        stopped_at=_stopped_at(evidence),
        unjudged=unjudged,
        contents=CONTENTS,
        pushed=evidence.pushed,
        decision=evidence.decision,
        ladder=scores.ladder(levels, evidence.decision),
        levels=levels,
        dataset=evidence.dataset,
        counts=tables.counts(evidence.dataset) if evidence.dataset else None,
        anomalies=evidence.anomalies,
        descriptors=panels.descriptors(evidence),
        stages=panels.stages(evidence),
        curves=curves.curves(evidence, levels),
        calibration=curves.calibration(levels),
        samples=sorted(samples.cards(evidence), key=lambda card: (card.truth.rank, card.right)),
        nodes=tables.lanes(evidence.nodes),
        litert=evidence.litert,
        tfma=tables.flat(evidence.tfma),
        config=json.dumps(plain(evidence.config), indent=2) if evidence.config else "",
    )


def write(evidence: Evidence, path: str | os.PathLike) -> None:
    """Writes the report to `path`, making its folder; a reader never sees half a page."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, render(evidence).encode())


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimals": lambda number, digits: f"{number:.{digits}f}",
        "percent": lambda share, digits=0: f"{100 * share:.{digits}f}%",
        "thousands": lambda number: f"{number:,}",
        "duration": duration,
        "measure": _measure,
        "size": _size,
        "breakable": _breakable,
    }
    return environment


def _verdict(evidence: Evidence) -> Verdict:
    decision, stopped_at = evidence.decision, _stopped_at(evidence)
    if decision is None:
        reasons = tuple(f"{found.feature}: {found.description}" for found in evidence.anomalies)
        message = (evidence.run.message,) if evidence.run.message else ()
        if stopped_at is None and not reasons:
            lead = "This run holds no decision of a gate."
            return Verdict("unknown", "…", "No decision", lead, message)
        where = f"The run stopped at {stopped_at}." if stopped_at else "The run stopped."
        return Verdict(
            "stopped", "■", "Stopped", f"{where} No model was judged.", reasons or message
        )
    judged = evidence.predictions is not None
    words = {
        Outcome.PASSED: ("passed", "✓", "Passed", "This student met every check of the gate."),
        Outcome.REFUSED: (
            "refused",
            "✕",
            "Refused",
            "This student does not go live."
            if judged
            else f"The run stopped at {stopped_at or 'a gate'}, before any model was judged.",
        ),
        Outcome.INSUFFICIENT: (
            "insufficient",
            "?",
            "Insufficient evidence",
            "There is too little data to tell, so nothing goes live.",
        ),
    }
    return Verdict(*words[decision.outcome], _few(decision.reasons))


def _few(reasons: Sequence[str]) -> tuple[str, ...]:
    """The first reasons, and how many more there are."""
    more = len(reasons) - MAX_REASONS
    return (*reasons[:MAX_REASONS], *([f"… and {more} more"] if more > 0 else []))


def _stamps(evidence: Evidence) -> tuple[Stamp, ...]:
    dataset, stamps = evidence.dataset, []
    if dataset is not None and dataset.leaked:
        text = (
            "The same people stand in training and in test. These numbers say how well the model "
            "recognises people, not how well it will do on someone new. It can never go live."
        )
        stamps.append(Stamp("leaked", "LEAKED", text))
    if dataset is not None and dataset.level == "slice":
        text = (
            "There are no subject ids, so slices of one person may stand on both sides of the "
            "split, and all numbers are per slice. Read them as an upper bound."
        )
        stamps.append(Stamp("slice", "SLICE-LEVEL", text))
    return tuple(stamps)


def _stopped_at(evidence: Evidence) -> str | None:
    return next((node.id for node in evidence.nodes if node.state == "failed"), None)


def _levels(evidence: Evidence) -> tuple[tuple[scores.Scores, ...], str]:
    """The scores, and why there are none where there are none."""
    try:
        return scores.levels(evidence), "No model was judged."
    except ValueError as error:
        return (), f"The student’s answers cannot be measured. {error}"


def _facts(evidence: Evidence) -> list[str]:
    run, dataset = evidence.run, evidence.dataset
    facts = [
        f"preset {run.preset}" if run.preset else "",
        f"pipeline {run.pipeline}" if run.pipeline else "",
        f"data {dataset.name}" if dataset else "",
        f"started {_moment(run.started)}" if run.started else "",
        f"took {duration(run.seconds)}" if run.seconds is not None else "",
        run.status,
    ]
    return [fact for fact in facts if fact]


def _measure(value: Any) -> str:
    """A value short enough for a table: integers whole, others to three decimals or four digits."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        if math.isnan(value):
            return "not evaluable"
        if float(value).is_integer():
            return f"{value:,.0f}"
        return f"{value:.3f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"
    return json.dumps(plain(value))


def _breakable(name: str) -> Markup:
    """A name that a narrow column may break between its words: Moderate|Demented, brain_|q05."""
    return Markup("<wbr>").join(re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_/-])", name))


def _moment(text: str) -> str:
    """An ISO 8601 time as people write it; any other text as it is."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = moment.tzname() or ""
    return f"{moment.day} {moment:%B %Y, %H:%M} {zone}".rstrip()


def _size(octets: int) -> str:
    """Bytes in decimal units."""
    if octets < 1_000:
        return f"{octets} B"
    return f"{octets / 1e3:.0f} kB" if octets < 1_000_000 else f"{octets / 1e6:.1f} MB"
