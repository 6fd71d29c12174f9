"""`cortexflow control`: what a run's data teach where there is nothing to learn."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.run import RunArgument, WorkspaceOption

if TYPE_CHECKING:
    from evaluation.outcome import Decision
    from pipeline.controls import Plan

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

SHUFFLE_EXAMPLES = """
[bold]Examples[/]

  cortexflow control shuffle

  cortexflow control shuffle quickstart-20260101-120000 --seed 1

  cortexflow control shuffle --epochs 20 --dry-run
"""
STAGES = {"finetune": "teacher", "distil": "student"}


@app.callback()
def control() -> None:
    """Ask a run for what it must not know."""


@app.command(epilog=SHUFFLE_EXAMPLES)
def shuffle(
    run_id: RunArgument = "latest",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of teacher and student, at most.", show_default="control.max_epochs"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Deals the labels out anew.", show_default="control.seed"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained; do nothing.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Train a run's tail once more on labels that mean nothing, and see whether it predicts them.

    Labels are permuted between people. A model that predicts them for test people has met these
    people before: slices of one person stand on both sides of the split. The nearest training image
    is asked too, which knows a person again sooner than a network.

    Exit code 0: the AUCs are what chance gives. 2: something leaks. 3: too few people to tell. The
    numbers and a picture are kept in the run's folder, under controls/.
    """
    from cli import progress

    with progress.quiet_tensorflow():
        from pipeline import controls
        from pipeline.workspace import Workspace

        found = controls.plan(Workspace.at(workspace), run_id, epochs=epochs, seed=seed)
    _say_plan(found)
    if dry_run:
        typer.echo("Nothing was trained (--dry-run).")
        return
    with progress.quiet_tensorflow(), _epochs() as on_epoch:
        decision = controls.rerun(found, on_epoch)
        files = controls.save(found, decision)
    _say_outcome(decision, files)
    raise typer.Exit(decision.outcome.exit_code)


@contextmanager
def _epochs() -> Iterator[Callable[..., None]]:
    """Shows the epoch that was finished last; nothing where output is no terminal."""
    from rich.console import Console

    console = Console()
    with console.status("reading images") as status:

        def told(stage: str, epoch: int, epochs: int, metrics: dict[str, Any]) -> None:
            status.update(f"{STAGES[stage]} {epoch}/{epochs} [dim]loss {metrics['loss']:.3f}[/dim]")

        yield told


def _say_plan(found: "Plan") -> None:
    settings = found.settings
    start = "the run's encoder" if found.encoder else "nothing"
    epochs = [min(stage.epochs, settings.max_epochs) for stage in (found.teacher, found.student)]
    rows = {
        "run": found.run,
        "examples": _short(found.examples),
        "labels": f"of {len(found.classes)} classes, dealt out anew to people (seed "
        f"{settings.seed})",
        "teacher": f"{epochs[0]} epochs from {start}",
        "student": f"{epochs[1]} epochs",
        "null": f"{settings.permutations} permutations, level {settings.level}",
        "time": f"about {max(1, round(found.seconds))} s of training",
    }
    for name, text in rows.items():
        typer.echo(f"  {name:<12}{text}")


def _say_outcome(decision: "Decision", files: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cli.tables import COLOURS

    console = Console()
    banded = [check for check in decision.checks if check.low is not None]
    if banded:
        table = Table(box=None, padding=(0, 2))
        table.add_column("shuffled labels")
        for title in ("macro AUC", "chance gives"):
            table.add_column(title, justify="right")
        for check in banded:
            name = check.name.removeprefix("shuffled labels, ")
            table.add_row(name, f"{check.value:.3f}", f"{check.low:.3f} to {check.high:.3f}")
        console.print(table)
    for file in files:
        console.print(f"  [dim]{_short(file)}[/]", soft_wrap=True)
    if "seconds" in decision.details:
        console.print(f"  [dim]{decision.details['seconds']:.0f} s[/]")
    outcome = decision.outcome.value
    reasons = "; ".join(decision.reasons)
    told = Text(f": {reasons}" if reasons else "")
    console.print(f"[bold {COLOURS[outcome]}]{outcome}[/]", told, sep="", soft_wrap=True)


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
