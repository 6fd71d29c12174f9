"""`cortexflow versions`, `promote`, `rollback`, `history`, `verify`: which version is live."""

import getpass
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.run import WorkspaceOption

if TYPE_CHECKING:
    from registry.interface import Version
    from registry.local import LocalRegistry

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of the model.", show_default="the only one there is"),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Verify and say what would happen; change nothing.")
]

VERSIONS_EXAMPLES = """
[bold]Examples[/]

  cortexflow versions

  cortexflow versions --workspace /srv/cortexflow --name severity
"""
PROMOTE_EXAMPLES = """
[bold]Examples[/]

  cortexflow promote 3 --reason "better on site 2"

  cortexflow promote 3 --dry-run
"""
ROLLBACK_EXAMPLES = """
[bold]Examples[/]

  cortexflow rollback --reason "errors on site 2"

  cortexflow rollback --to 1

  cortexflow rollback --dry-run
"""
HISTORY_EXAMPLES = """
[bold]Examples[/]

  cortexflow history

  cortexflow history --name severity
"""
VERIFY_EXAMPLES = """
[bold]Examples[/]

  cortexflow verify

  cortexflow verify 3
"""


@app.command(epilog=VERSIONS_EXAMPLES)
def versions(workspace: WorkspaceOption = None, name: NameOption = None) -> None:
    """List the versions of a model and show which one is live."""
    registry = _open(workspace, name)
    live, previous = registry.live(), registry.previous()
    states = {previous.number: "previous"} if previous else {}
    states |= {live.number: "live"} if live else {}
    rows = [
        (
            str(version.number),
            states.get(version.number, ""),
            _time(version.created),
            f"{version.size / 2**20:.1f}",
            _macro_auc(version),
            version.digest[:8],
            version.who,
            version.reason,
        )
        for version in registry.versions()
    ]
    _table(("version", "", "created", "MiB", "AUC", "digest", "by", "why"), rows)
    typer.echo(f"{registry.name} in {registry.root}")


@app.command(epilog=PROMOTE_EXAMPLES)
def promote(
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    reason: ReasonOption = "promoted by hand",
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Make a version live, after reading every byte of it."""
    registry = _open(workspace, name)
    before = registry.live()
    target = registry.promote(version, reason=reason, who=_who(), dry_run=dry_run)
    _say(registry, before, target, dry_run)


@app.command(epilog=ROLLBACK_EXAMPLES)
def rollback(
    to: Annotated[
        int | None, typer.Option(help="Version to go back to.", show_default="the previous one")
    ] = None,
    reason: ReasonOption = "rolled back by hand",
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Make the previously live version live again, after reading every byte of it.

    A second rollback goes further back: it never returns to what was rolled back from.
    """
    registry = _open(workspace, name)
    before = registry.live()
    target = registry.rollback(to, reason=reason, who=_who(), dry_run=dry_run)
    _say(registry, before, target, dry_run)


@app.command(epilog=HISTORY_EXAMPLES)
def history(workspace: WorkspaceOption = None, name: NameOption = None) -> None:
    """List every change: what was live when, who changed it, and why."""
    rows = [
        (
            str(event.sequence),
            _time(event.time),
            event.action if event.state == "done" else f"{event.action} ({event.state})",
            str(event.version),
            f"{event.previous or '–'} → {event.live or '–'}",
            event.who,
            event.reason,
        )
        for event in _open(workspace, name).history()
    ]
    _table(("#", "time (UTC)", "change", "version", "live", "by", "why"), rows)


@app.command(epilog=VERIFY_EXAMPLES)
def verify(
    version: Annotated[
        int | None, typer.Argument(help="Number of the version.", show_default="all")
    ] = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Compare every byte of a version with what was pushed; exit code 1 names the first damage."""
    registry = _open(workspace, name)
    numbers = [found.number for found in registry.versions()] if version is None else [version]
    for number in numbers:
        found = registry.verify(number)
        typer.echo(f"{registry.name} {number}: {len(found.files)} files are as pushed.")


def _open(workspace: Path | None, name: str | None) -> "LocalRegistry":
    """The registry of the named model, or of the only one there is."""
    from pipeline.workspace import Workspace
    from registry.opening import find

    return find(Workspace.at(workspace).registry, name)


def _say(
    registry: "LocalRegistry", before: "Version | None", target: "Version", dry_run: bool
) -> None:
    was = f"version {before.number}" if before else "nothing"
    if before and before.number == target.number:
        typer.echo(f"{registry.name}: version {target.number} is live already.")
    elif dry_run:
        typer.echo(
            f"{registry.name}: version {target.number} would go live in place of {was}; its "
            f"{len(target.files)} files are as pushed. Nothing was changed (--dry-run)."
        )
    else:
        typer.echo(f"{registry.name}: version {target.number} is live (before: {was}).")


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table whose last column alone may wrap."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=header != headers[-1])
    for row in rows:
        style = "bold green" if "live" in row else ""
        table.add_row(*map(Text, row), style=style)  # as text: a reason is no markup
    Console().print(table)


def _who() -> str:
    """The account that types; containers may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _time(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _macro_auc(version: "Version") -> str:
    """The student's macro AUC as the gate measured it, per subject where it could."""
    student = version.metrics.get("student", {})
    for level in ("subject", "slice"):
        value = student.get(level, {}).get("macro_auc") if isinstance(student, dict) else None
        if isinstance(value, int | float):
            return f"{value:.3f}"
    return "–"
