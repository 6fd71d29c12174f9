"""What the terminal shows of a run: live progress, outcome, tables. Parsing is in cli/run.py."""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.config import PipelineConfig
from pipeline.runs import NodeState, RunFolder, RunRecord
from pipeline.workspace import Workspace

DISCLAIMER = "Research use only, not for diagnosis."
MARKS = {
    "running": ("…", "cyan"),
    "ran": ("✓", "green"),
    "cached": ("=", "blue"),
    "failed": ("✗", "red"),
}
COLOURS = {"passed": "green", "refused": "red", "insufficient evidence": "yellow"}
METRICS = {
    "macro_auc": "macro AUC",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "quadratic_kappa": "quadratic κ",
    "micro_auc": "micro AUC",
    "accuracy": "accuracy",
}


@contextmanager
def running(folder: RunFolder, config: PipelineConfig) -> Iterator[Callable[[NodeState], None]]:
    """Shows one line per node while everything that libraries print goes to the run's log."""
    with _output_to(folder.log) as console:
        console.print(f"[bold]{folder.path.name}[/]  [dim]log: {_short(folder.log)}[/]")
        board = _Board(console)
        handler = _TrainingLine(board)
        logging.getLogger("trainer").addHandler(handler)
        logging.getLogger("trainer").setLevel(logging.INFO)
        try:
            with Live(board, console=console, refresh_per_second=4, transient=True):
                yield board.update
        finally:
            logging.getLogger("trainer").removeHandler(handler)


class _Board:
    """The running node's line, redrawn; nodes that ended are printed above it for good."""

    def __init__(self, console: Console):
        self.console = console
        self.node = ""
        self.detail = ""

    def update(self, state: NodeState) -> None:
        if state.state == "running":
            self.node, self.detail = state.node, ""
            return
        self.node = ""
        mark, colour = MARKS[state.state]
        self.console.print(
            f"  [{colour}]{mark}[/] {state.node:<16} [dim]{state.state:<7}{state.seconds:7.1f} s[/]"
        )

    def __rich__(self) -> Text:
        return Text(f"  … {self.node:<16} {self.detail}" if self.node else "", style="cyan")


class _TrainingLine(logging.Handler):
    """Puts the trainer's progress lines beside the running node."""

    def __init__(self, board: _Board):
        super().__init__(logging.INFO)
        self.board = board

    def emit(self, record: logging.LogRecord) -> None:
        self.board.detail = record.getMessage()


@contextmanager
def _output_to(path) -> Iterator[Console]:
    """Sends the process's own stdout and stderr to a file; the console keeps the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield Console(file=terminal)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
            terminal.close()


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's start-up chatter off the terminal; errors still show."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    err = os.dup(2)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(err, 2)
            os.close(err)


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
    from components.report import evidence as evidence_files

    console = Console()
    found = evidence_files.load(folder.evidence)
    if found.decision is not None:
        console.print(_metrics_table(found.decision.metrics))
    if record.pushed_version is not None:
        console.print(
            f"  live version  {config.model_name} v{record.pushed_version}  "
            f"[dim]{_short(workspace.registry / config.model_name / str(record.pushed_version))}[/]"
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
    for name, levels in metrics.items():
        values = levels.get(level, {})
        cells = [_number(values.get(key)) for key in METRICS]
        table.add_row(name, *cells, style="bold" if name == "student" else None)
    return table


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
    from components.report import evidence as evidence_files
    from pipeline import lineage

    record = folder.read()
    console = Console()
    console.print(f"[bold]{record.id}[/]  {record.status}  {record.command}")
    table = Table(box=None, padding=(0, 2))
    for column in ("node", "state", "seconds", "artifacts"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    database = workspace.metadata(record.pipeline)
    with lineage.opened(database) as store:
        for node in record.nodes:
            outputs = lineage.outputs(store, node.execution_id) if node.execution_id else []
            places = "\n".join(f"{item.key}: {_short(item.uri)}" for item in outputs)
            table.add_row(node.node, node.state, f"{node.seconds:.1f}", places)
    console.print(table)
    if (folder.evidence / evidence_files.FILE).is_file():
        found = evidence_files.load(folder.evidence)
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
    for column in ("image", "predicted", *classes):
        table.add_column(column, justify="left" if column in ("image", "predicted") else "right")
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
