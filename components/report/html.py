"""The run report: one self-contained HTML file from one `Evidence`.

No script, no external request, no dependence on the clock: equal evidence gives equal bytes.
"""

import json
import os
from pathlib import Path

import jinja2

from components.report import (
    curves,
    forests,
    panels,
    refusals,
    safeguards,
    samples,
    scores,
    tables,
    verdict,
    words,
)
from components.report.evidence import Evidence
from components.report.judgement import judgement, model_name
from components.report.storage import plain, replace
from components.report.tables import duration

FILE = "report.html"
CONTENTS = (
    ("intervals", "Intervals"),
    ("data", "Data"),
    ("safeguards", "Leaks, drift, control"),
    ("statistics", "Statistics"),
    ("training", "Training"),
    ("curves", "Curves"),
    ("confusion", "Confusion"),
    ("calibration", "Calibration"),
    ("refusals", "Refused images"),
    ("samples", "Samples"),
    ("pipeline", "Pipeline"),
    ("reading", "How to read"),
    ("reproduce", "Reproduce"),
)


def render(evidence: Evidence, *, contents: bool = True) -> str:
    """Renders the report.

    Args:
        evidence: what is known of the run; whatever is missing is said to be missing.
        contents: with links to its sections. Not where another page shows it in a frame of its own
            (`srcdoc`): there such links lead to that other page.

    Returns:
        A complete HTML document.
    """
    levels, unjudged = _levels(evidence)
    gate = evidence.config.get("gate", {})
    judged = judgement(evidence.decision, gate.get("confidence"))
    dataset = evidence.dataset
    template = environment().get_template("template.html")
    return template.render(
        run=evidence.run,
        title=" ".join(filter(None, ["Run", evidence.run.id])),
        facts=facts(evidence),
        verdict=verdict.verdict(evidence),
        stamps=verdict.stamps(evidence),
        stopped_at=verdict.stopped_at(evidence),
        unjudged=unjudged,
        contents=CONTENTS if contents else (),
        pushed=evidence.pushed,
        checks=verdict.checks(evidence, judged),
        judged=judged,
        caveats=verdict.caveats(evidence, judged),
        operating_point=forests.operating_point(judged),
        models=forests.models(levels, evidence.decision),
        differences=forests.differences(judged, verdict.margins(evidence)),
        classes=forests.classes(dataset, levels, judged, gate.get("class_auc_floor"))
        if dataset
        else None,
        subgroups=forests.subgroups(judged),
        resampling=forests.resampling(judged),
        leakage=safeguards.leakage(evidence),
        drift=evidence.drift,
        comparisons=safeguards.drift(evidence),
        control=safeguards.control(evidence),
        levels=levels,
        dataset=dataset,
        counts=tables.counts(dataset) if dataset else None,
        anomalies=evidence.anomalies,
        descriptors=panels.descriptors(evidence),
        stages=panels.stages(evidence),
        curves=curves.curves(evidence, levels),
        calibration=curves.calibration(evidence, levels),
        temperatures=[(model_name(stage), of) for stage, of in evidence.calibrations.items()],
        refusals=refusals.panel(evidence),
        ungated=refusals.ungated(evidence),
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


def environment() -> jinja2.Environment:
    """Templates and filters of the report and of the model card."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "decimals": lambda number, digits: f"{number:.{digits}f}",
        "percent": lambda share, digits=0: f"{100 * share:.{digits}f}%",
        "thousands": lambda number: f"{number:,}",
        "duration": duration,
        "measure": words.measure,
        "interval": words.interval,
        "ends": words.ends,
        "bound": words.bound,
        "share": words.share,
        "sentence": words.sentence,
        "size": words.size,
        "breakable": words.breakable,
    }
    return found


def _levels(evidence: Evidence) -> tuple[tuple[scores.Scores, ...], str]:
    """The scores, and why there are none where there are none."""
    try:
        return scores.levels(evidence), "No model was judged."
    except ValueError as error:
        return (), f"The student’s answers cannot be measured. {error}"


def facts(evidence: Evidence) -> list[str]:
    """The run in a few words: what stands under a page's title."""
    run, dataset = evidence.run, evidence.dataset
    told = [
        f"preset {run.preset}" if run.preset else "",
        f"pipeline {run.pipeline}" if run.pipeline else "",
        f"data {dataset.name}" if dataset else "",
        f"started {words.moment(run.started)}" if run.started else "",
        f"took {duration(run.seconds)}" if run.seconds is not None else "",
        run.status,
    ]
    return [fact for fact in told if fact]
