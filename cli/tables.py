"""Tables for the terminal: plan, outcome, runs, nodes, predictions. Parsing is in cli/run.py."""

import dataclasses
import json
import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config import PipelineConfig
from pipeline.runs import RunFolder, RunRecord
from pipeline.workspace import Workspace

DISCLAIMER = "Research use only, not for diagnosis."
COLOURS = {"passed": "green", "refused": "red", "insufficient evidence": "yellow"}
METRICS = {
    "macro_auc": "macro AUC",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "quadratic_kappa": "quadratic κ",
    "micro_auc": "micro AUC",
    "accuracy": "accuracy",
}


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
    """The end of a run: metrics beside the baselines, decision, version, report, a prediction."""
    from components.report import storage

    console = Console()
    found = storage.load(folder.evidence)
    if found.decision is not None:
        console.print(_metrics_table(found.decision.metrics))
    if record.pushed_version is not None:
        name, pushed, live = config.model_name, record.pushed_version, record.live_version
        place = _short(workspace.registry / name / str(pushed))
        console.print(f"  version       {name} v{pushed}  [dim]{place}[/]")
        if live == pushed:
            console.print(f"  live          v{live}")
        else:
            console.print(
                f"  live          v{live}, not this one, which passed before: "
                f"cortexflow promote {pushed} --name {name}"
            )
    console.print(f"  report        {_short(folder.report)}", soft_wrap=True)
    if record.status == "passed" and found.samples:
        _show_sample_prediction(console, found)
    console.print(f"  [dim]{DISCLAIMER}[/]")
    colour = COLOURS.get(record.status, "red")
    reason = f": {record.reason}" if record.reason else ""
    console.print(f"[bold {colour}]{record.status}[/]", Text(reason), sep="", soft_wrap=True)


def _show_sample_prediction(console: Console, found) -> None:
    sample = found.samples[-1]
    probabilities = found.predictions.student[sample.row]
    names = found.dataset.classes
    best = int(probabilities.argmax())
    truth = names[found.predictions.labels[sample.row]]
    console.print(
        f"  a prediction  {names[best]} {probabilities[best]:.2f} [dim](truth: {truth}; more: "
        "cortexflow predict IMAGE…)[/]"
    )


def _metrics_table(metrics: dict) -> Table:
    level = "subject" if any("subject" in levels for levels in metrics.values()) else "slice"
    table = Table(title=f"Test split, per {level}", title_justify="left", box=None, padding=(0, 2))
    table.add_column("")
    for title in METRICS.values():
        table.add_column(title, justify="right")
    for name in sorted(metrics, key=_rank):
        values = metrics[name].get(level, {})
        cells = [_number(values.get(key)) for key in METRICS]
        table.add_row(name, *cells, style="bold" if name == "student" else None)
    return table


def _rank(name: str) -> tuple[int, str]:
    """The candidate first, then other models, then baselines."""
    models = ("student", "teacher", "live")
    return (models.index(name) if name in models else len(models), name)


def _number(value) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def show_runs(records: list[RunRecord]) -> None:
    """A line per run, oldest first."""
    console = Console()
    if not records:
        console.print("No runs yet. Start one: cortexflow run quickstart")
        return
    table = Table(box=None, padding=(0, 2))
    for column in ("run", "outcome", "started (UTC)", "seconds", "version", "reason"):
        table.add_column(column, justify="right" if column in ("seconds", "version") else "left")
    for record in records:
        table.add_row(
            record.id,
            Text(record.status, style=COLOURS.get(record.status, "")),
            f"{record.started:%Y-%m-%d %H:%M}",
            f"{record.seconds:.0f}",
            str(record.pushed_version or ""),
            Text(record.reason, overflow="ellipsis", no_wrap=True),
        )
    console.print(table)


def show_run(folder: RunFolder, workspace: Workspace) -> None:
    """A run's nodes with their artifacts, then its metrics and decision."""
    from components.report import storage
    from pipeline import lineage

    record = folder.read()
    console = Console()
    console.print(f"[bold]{record.id}[/]  {record.status}  {record.command}")
    table = Table(box=None, padding=(0, 2))
    for column in ("node", "state", "seconds", "artifacts"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    found = lineage.outputs_of_nodes(workspace.metadata(record.pipeline), record.nodes)
    for node in record.nodes:
        places = "\n".join(f"{item.key}: {_short(item.uri)}" for item in found.get(node.node, ()))
        table.add_row(node.node, node.state, f"{node.seconds:.1f}", places)
    console.print(table)
    if (folder.evidence / storage.FILE).is_file():
        found = storage.load(folder.evidence)
        if found.decision is not None:
            console.print(_metrics_table(found.decision.metrics))
    console.print(f"report: {_short(folder.report)}", soft_wrap=True)
    if record.reason:
        console.print(f"{record.status}: {record.reason}", markup=False, soft_wrap=True)


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
