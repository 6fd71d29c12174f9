"""Tables for the terminal: plan, outcome, runs, nodes, predictions. Parsing is in cli/run.py."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.config import PipelineConfig
from pipeline.runs import RunFolder, RunRecord
from pipeline.workspace import Workspace
from schema.places import is_remote

if TYPE_CHECKING:
    from components.report.evidence import Evidence
    from components.report.judgement import Interval, Judgement
    from evaluation.outcome import Check, Decision

DISCLAIMER = "Research use only, not for diagnosis."
COLOURS = {"passed": "green", "refused": "red", "insufficient evidence": "yellow"}
MARKS = {"passed": "✓", "refused": "✕", "insufficient evidence": "?"}
METRICS = {
    "macro_auc": "macro AUC",
    "balanced_accuracy": "balanced acc.",
    "quadratic_kappa": "kappa",
    "macro_f1": "macro F1",
    "micro_auc": "micro AUC",
    "accuracy": "accuracy",
}
NARROW = 3  # metrics that 80 columns hold with their intervals
WIDE = 110  # columns for all of them
CLASS_FLOOR = "AUC floor: "  # ModelGate's name for a class's check, before the class
SHOWN = 8  # checks that did not pass


def show_plan(config: PipelineConfig, description: str, workspace: Workspace) -> None:
    """The dry run: what would be done, with which settings, where."""
    console = Console()
    console.print(description.strip() + "\n", markup=False)
    console.print(f"workspace: {workspace.root}", markup=False)
    console.print_json(config.model_dump_json())
    console.print("Nothing was run (--dry-run).")


def show_outcome(
    folder: RunFolder, record: RunRecord, workspace: Workspace, config: PipelineConfig
) -> None:
    """The end of a run: numbers beside the baselines, checks, version, report; last the verdict."""
    from components.report import storage

    console = Console()
    kept = (folder.evidence / storage.FILE).is_file()
    found = storage.load(folder.evidence) if kept else None
    if found is not None:
        _show_judgement(console, found)
    if record.pushed_version is not None:
        name, pushed, live = config.model_name, record.pushed_version, record.live_version
        root = config.registry or _short(workspace.registry)
        place = f"{root}/{name}/{pushed}"
        console.print(f"  version       {name} v{pushed}  [dim]{place}[/]", soft_wrap=True)
        if live == pushed:
            console.print(f"  live          v{live}")
        else:
            console.print(
                f"  live          v{live}, not this one, which passed before: "
                f"cortexflow promote {pushed} --name {name}",
                soft_wrap=True,
            )
    if record.override is not None:
        made = record.override
        _line(console, "overridden", f"by {made.who}, on {made.time:%Y-%m-%d}: {made.reason}")
    if folder.report.is_file():
        console.print(f"  report        {_short(folder.report)}", soft_wrap=True)
    if found is not None and record.status == "passed" and found.samples:
        _show_sample_prediction(console, found)
    console.print(f"  [dim]{DISCLAIMER}[/]")
    colour = COLOURS.get(record.status, "red")
    reason = f": {record.reason}" if record.reason else ""
    console.print(f"[bold {colour}]{record.status}[/]", Text(reason), sep="", soft_wrap=True)


def _line(console: Console, name: str, told: str) -> None:
    """A name and what is said of it; a long text goes on under itself."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=12)
    table.add_column(overflow="fold")
    table.add_row(name, Text(told))
    console.print(Padding(table, (0, 0, 0, 2)))


def _show_judgement(console: Console, found: "Evidence") -> None:
    """The gates' numbers and answers, as far as the run came."""
    from components.report.judgement import judgement

    gates = {
        "leaks": found.leakage and found.leakage.decision,
        "drift": found.drift and found.drift.decision,
        "control": found.control,
    }
    if any(gates.values()):
        said = [f"{name} {of.outcome.value}" for name, of in gates.items() if of]
        _line(console, "data", " · ".join(said))
    if found.decision is None:
        return
    judged = judgement(found.decision)
    if found.decision.metrics:
        console.print(_metrics_table(found.decision.metrics, judged, console.width))
    _show_checks(console, found.decision)
    for note in judged.notes:
        _line(console, "note", note)


def _show_checks(console: Console, decision: "Decision") -> None:
    """Checks that did not pass, with their numbers; of the others the names."""
    failed = [check for check in decision.checks if not check.passed]
    passed = [check.name for check in decision.checks if check.passed]
    if not decision.checks:
        return
    _line(console, "checks", f"{len(passed)} of {len(decision.checks)} passed")
    if failed:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=12)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for check in failed[:SHOWN]:
            mark, style = MARKS[check.outcome.value], COLOURS[check.outcome.value]
            table.add_row("", Text(f"{mark} {check.name}", style=style), Text(_measured(check)))
        console.print(Padding(table, (0, 0, 0, 2)))
        if len(failed) > SHOWN:
            _line(console, "", f"… and {len(failed) - SHOWN} more: see the report")
    if passed:
        names = [name for name in passed if not name.startswith(CLASS_FLOOR)]
        floors = len(passed) - len(names)
        if floors:
            names.append(f"AUC floors of {floors} class{'es' if floors > 1 else ''}")
        _line(console, "", f"✓ {', '.join(names)}")


def _measured(check: "Check") -> str:
    """A check's number and what was asked; its words where it has none."""
    if check.value is None:
        return check.detail
    asked = f", asked: {check.bound:.3g}" if check.bound is not None else ""
    if check.low is None or check.high is None:
        return f"{check.value:.3g}{asked}"
    return f"{check.value:.3f} [{check.low:.2f}, {check.high:.2f}]{asked}"


def _show_sample_prediction(console: Console, found: "Evidence") -> None:
    sample = found.samples[-1]
    probabilities = found.predictions.student[sample.row]
    names = found.dataset.classes
    best = int(probabilities.argmax())
    truth = names[found.predictions.labels[sample.row]]
    console.print(
        f"  a prediction  {names[best]} {probabilities[best]:.2f} [dim](truth: {truth}; more: "
        "cortexflow predict IMAGE…)[/]"
    )


def _metrics_table(metrics: dict, judged: "Judgement", width: int) -> Table:
    """Models and baselines with intervals; as many metrics as the width holds, no name cut."""
    level = "subject" if any("subject" in levels for levels in metrics.values()) else "slice"
    people = sum(judged.people.values())
    title = f"Test split, per {level}"
    title += f" ({people} people)" if level == "subject" and people else ""
    title += f", with {judged.interval_name}s" if judged.intervals else ""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 2))
    table.add_column("", no_wrap=True)
    chosen = list(METRICS)[: None if width >= WIDE else NARROW]
    for key in chosen:
        table.add_column(METRICS[key], justify="left", no_wrap=True)
    for name in sorted(metrics, key=_rank):
        values = metrics[name].get(level, {})
        told = judged.intervals.get(name, {}) if level == (judged.level or level) else {}
        cells = [_number(values.get(key), told.get(key)) for key in chosen]
        table.add_row(name, *cells, style="bold" if name == "student" else None)
    return table


def _rank(name: str) -> tuple[int, str]:
    """The candidate first, then other models, then baselines."""
    models = ("student", "teacher", "live")
    return (models.index(name) if name in models else len(models), name)


def _number(value: float | None, of: "Interval | None") -> Text:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return Text("–")
    ends = f" [{of.low:.2f}, {of.high:.2f}]" if of is not None and of.known else ""
    return Text(f"{value:.3f}{ends}")


def show_runs(records: list[RunRecord]) -> None:
    """A line per run, oldest first."""
    console = Console()
    if not records:
        console.print("No runs yet. Start one: cortexflow run quickstart")
        return
    wide = console.width >= WIDE
    columns = ["run", "outcome", *(["started (UTC)", "seconds"] if wide else []), "version"]
    rows = [_run_row(record, wide=wide) for record in records]
    gap = 2
    table = Table(box=None, padding=(0, gap, 0, 0))
    left = console.width
    for place, column in enumerate(columns):
        width = max(len(column), *(len(row[place]) for row in rows))
        left -= width + gap
        side = "right" if column in ("seconds", "version") else "left"
        table.add_column(column, justify=side, no_wrap=True)
    table.add_column("reason", no_wrap=True)
    for record, row in zip(records, rows, strict=True):
        row[1].stylize(COLOURS.get(record.status, ""))
        reason = Text(record.reason)
        reason.truncate(max(left - gap, len("reason")), overflow="ellipsis")  # it alone is cut
        table.add_row(*row, reason)
    console.print(table)


def _run_row(record: RunRecord, *, wide: bool) -> list[Text]:
    version = str(record.pushed_version or "") + (" (overridden)" if record.override else "")
    when = [f"{record.started:%Y-%m-%d %H:%M}", f"{record.seconds:.0f}"] if wide else []
    return [Text(told) for told in (record.id, record.status, *when, version)]


def show_run(folder: RunFolder, workspace: Workspace) -> None:
    """A run's nodes with their artifacts, then how it ended."""
    from pipeline import lineage, metadata
    from pipeline.execution import artifacts_root

    record, config = folder.read(), folder.read_config()
    console = Console()
    console.print(f"[bold]{record.id}[/]  {record.status}")
    console.print(f"  [dim]{escape(record.command)}[/]", soft_wrap=True)
    root = artifacts_root(config, workspace, record)
    table = Table(box=None, padding=(0, 2))
    for column in ("node", "state", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left", no_wrap=True)
    table.add_column("artifacts", overflow="fold")
    found = lineage.outputs_of_nodes(metadata.database(config, workspace), record.nodes)
    for node in record.nodes:
        places = "\n".join(_below(item.uri, root) for item in found.get(node.node, ()))
        table.add_row(node.node, node.state, f"{node.seconds:.1f}", Text(places))
    console.print(table)
    shown = root if is_remote(root) else _short(root)
    console.print(f"  [dim]artifacts lie below {shown}[/]", soft_wrap=True)
    show_outcome(folder, record, workspace, config)


def _below(uri: str, root: str) -> str:
    """An artifact's place, from its pipeline's folder where it lies there."""
    if is_remote(uri):
        return uri.removeprefix(f"{root}/")
    path = Path(uri)
    return str(path.relative_to(root)) if path.is_relative_to(root) else _short(uri)


def show_predictions(answer) -> None:
    """A line per image with every class's probability."""
    console = Console()
    table = Table(title=f"{answer.model} v{answer.version}", title_justify="left", box=None)
    classes = list(answer.predictions[0].probabilities)
    table.add_column("image", overflow="fold")
    table.add_column("predicted")
    for column in classes:
        table.add_column(column, justify="right")
    for item in answer.predictions:
        cells = [f"{value:.3f}" for value in item.probabilities.values()]
        table.add_row(_short(item.image), item.predicted, *cells)
    console.print(table)
    console.print(f"[dim]{DISCLAIMER}[/]")


def print_json_lines(answer) -> None:
    """One JSON object per image, for programs."""
    for item in answer.predictions:
        fields = dataclasses.asdict(item) | {"predicted": item.predicted, "version": answer.version}
        print(json.dumps(fields, allow_nan=False))


def _short(path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
