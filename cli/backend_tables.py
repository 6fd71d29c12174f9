"""Tables and lines for runs on any backend: runs, one run, schedules, a plan, a run going on."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pipeline.backends.interface import Run, Schedule, Task
from pipeline.backends.submission import Submission

COLOURS = {
    "passed": "green",
    "refused": "red",
    "insufficient evidence": "yellow",
    "failed": "red",
    "stopped": "yellow",
}
MARKS = {
    "running": ("…", "cyan"),
    "ran": ("✓", "green"),
    "cached": ("=", "blue"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
    "stopped": ("■", "yellow"),
    "pending": (" ", "dim"),
}
DONE = ("ran", "cached", "failed", "skipped", "stopped")


def _table(*columns: str, right: Sequence[str] = ("seconds",)) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        side: Literal["left", "right"] = "right" if column in right else "left"
        fixed = column not in ("reason", "name", "error", "value")
        table.add_column(column, justify=side, no_wrap=fixed, overflow="fold")
    return table


def show_runs(runs: Sequence[Run], uri: str) -> None:
    """A line per run, newest first."""
    console = Console()
    if not runs:
        console.print(f"No runs at {uri} yet. Start one: cortexflow submit PRESET --on {uri}")
        return
    table = _table("run", "outcome", "started (UTC)", "seconds", "name", "reason")
    for run in runs:
        table.add_row(
            run.id,
            Text(run.status, style=COLOURS.get(run.status, "")),
            _time(run.started),
            _seconds(run.seconds),
            run.name,
            Text(run.reason),
        )
    console.print(table)


def show_run(run: Run) -> None:
    """A run's nodes, and how it stands."""
    console = Console()
    console.print(f"[bold]{run.id}[/]  {run.name}  [dim]{_time(run.started)}[/]", soft_wrap=True)
    if run.url:
        console.print(Text(run.url, style="dim"), soft_wrap=True)
    if run.labels:
        labels = ", ".join(f"{key}={value}" for key, value in run.labels.items())
        console.print(Text(f"labels: {labels}"), soft_wrap=True)
    table = _table("node", "state", "seconds", "error")
    for task in run.tasks:
        mark, style = MARKS[task.state]
        state = Text(f"{mark} {task.state}", style=style)
        table.add_row(task.name, state, _seconds(task.seconds), Text(task.error))
    console.print(table)
    show_status(run, console)


def show_status(run: Run, console: Console | None = None) -> None:
    """How a run stands, with the reason: the last line."""
    reason = f": {' '.join(run.reason.split())}" if run.reason else ""
    style = f"bold {COLOURS.get(run.status, '')}".strip()
    (console or Console()).print(
        Text(run.status, style=style), Text(reason), sep="", soft_wrap=True
    )


def show_schedules(schedules: Sequence[Schedule], uri: str) -> None:
    """A line per schedule, newest first."""
    console = Console()
    if not schedules:
        console.print(f"No schedules at {uri}. Make one: cortexflow schedule add PRESET --on {uri}")
        return
    table = _table("schedule", "cron (UTC)", "state", "catch-up", "at once", "name")
    for entry in schedules:
        table.add_row(
            entry.id,
            entry.cron,
            Text("on", style="green") if entry.enabled else Text("paused", style="yellow"),
            "yes" if entry.catch_up else "no",
            str(entry.max_concurrent),
            entry.name,
        )
    console.print(table)


def show_plan(plan: Submission, uri: str, given: Mapping[str, str]) -> None:
    """The dry run: what would be sent, and what each node would get."""
    from pipeline.backends import packages

    console = Console()
    console.print(f"[bold]{plan.package.name}[/] would be sent to {uri}", soft_wrap=True)
    root = plan.pipeline_root or "the cluster's own"
    for name, value in {"pipeline root": root, **given}.items():
        console.print(Text(f"  {name:<14} {value}"), soft_wrap=True)
    table = _table("parameter", "value", "")
    for name, declared in sorted(plan.package.parameters.items()):
        value = plan.parameters.get(name, declared.get("defaultValue", ""))
        table.add_row(name, Text(str(value)), "given" if name in plan.parameters else "")
    console.print(table)
    columns = ("node", "cpu", "memory", "accelerator", "image")
    table = _table(*columns, right=("cpu", "memory"))
    for name, row in packages.resources(plan.package.spec).items():
        cells = [row[column] for column in columns[1:]]
        table.add_row(name, *cells)
    console.print(table)
    console.print("Nothing was sent (--dry-run).")


class Followed:
    """A run that one waits for: a line per node that changes, and a bar on a terminal."""

    def __init__(self) -> None:
        self._console = Console()
        self._bar = Progress(
            TextColumn("  [cyan]…[/] {task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._line = self._bar.add_task("waiting", total=None)

    def __enter__(self) -> "Followed":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_task(self, task: Task) -> None:
        """A line for a node whose state has changed."""
        mark, style = MARKS[task.state]
        line = Text(f"  {mark} {task.name:<28} {task.state:<8}", style=style)
        if task.seconds is not None and task.state in DONE:
            line.append(f"{task.seconds:8.1f} s", style="dim")
        if task.error:
            line.append(f"  {' '.join(task.error.split())}")
        self._console.print(line, soft_wrap=True)

    def on_run(self, run: Run) -> None:
        """Moves the bar."""
        done = sum(task.state in DONE for task in run.tasks)
        running = ", ".join(task.name for task in run.tasks if task.state == "running")
        self._bar.update(
            self._line,
            completed=done,
            total=len(run.tasks) or None,
            description=running or "waiting",
        )


def _time(moment: datetime.datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M}"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"
