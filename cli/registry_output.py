"""How versions, their history and their differences look in a terminal."""

import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from registry.interface import Audit, Difference, Event, Traffic, Version


FEW = 20  # named values that fit a screen
CHIEF = ("macro_auc", "balanced_accuracy", "log_loss")


def states(traffic: "Traffic", previous: int | None) -> dict[int, str]:
    """What each version is now: `live`, `canary 5 %`, `previous`; the others are left out."""
    found = {} if previous is None else {previous: "previous"}
    if traffic.canary is not None:
        found[traffic.canary] = f"canary {traffic.percent} %"
    if traffic.live is not None:
        found[traffic.live] = "live"
    return found


def told(traffic: "Traffic") -> str:
    """Who answers, in words."""
    if traffic.live is None:
        return "nothing is live"
    if traffic.canary is None:
        return f"version {traffic.live} answers all requests"
    return (
        f"canary {traffic.canary} answers {traffic.percent} % of the requests, "
        f"version {traffic.live} the others"
    )


def document(version: "Version", known: Mapping[int, str]) -> dict[str, Any]:
    """A version for programs: its manifest, and what it is now."""
    fields = dataclasses.asdict(version)
    del fields["already_present"]
    return fields | {"state": known.get(version.number, ""), "size": version.size}


def show_versions(versions: Iterable["Version"], known: Mapping[int, str]) -> None:
    """Prints one row per version."""
    rows = [
        (
            str(version.number),
            known.get(version.number, ""),
            _time(version.created),
            f"{version.size / 2**20:.1f}",
            _macro_auc(version),
            version.who,
            version.reason,
        )
        for version in versions
    ]
    _table(("version", "", "created", "MiB", "AUC", "by", "why"), rows)


def show_version(version: "Version", known: Mapping[int, str]) -> None:
    """Prints all that is known of one version."""
    state = known.get(version.number, "")
    facts = [
        ("version", f"{version.name} {version.number}" + (f", {state}" if state else "")),
        ("created", f"{_time(version.created)} UTC by {version.who}"),
        ("why", version.reason),
        ("digest", version.digest),
        *_chief(_flat("", version.metrics)),
        *_chief(_flat("", version.lineage)),
    ]
    _table(("", "value"), [(name, _value(value)) for name, value in facts])
    _table(
        ("file", "bytes", "SHA-256"),
        [(file.path, f"{file.size}", file.sha256) for file in version.files],
    )
    typer.echo("Everything, with all metrics: --json.")


def show_history(events: Iterable["Event"]) -> None:
    """Prints one row per change."""
    rows = [
        (
            str(event.sequence),
            _time(event.time),
            _change(event),
            f"{event.previous or '–'} → {event.live or '–'}",
            event.who,
            event.reason,
        )
        for event in events
    ]
    _table(("#", "time (UTC)", "change", "live", "by", "why"), rows)


def _change(event: "Event") -> str:
    share = f" {event.percent} %" if event.canary == event.version else ""
    done = "" if event.state == "done" else f" ({event.state})"
    return f"{event.action} {event.version}{share}{done}"


def show_difference(difference: "Difference", a: int, b: int) -> None:
    """Prints what differs, or that nothing does."""
    metrics = [(name, pair) for name, pair in difference.metrics.items()]
    lineage = [(name, pair) for name, pair in difference.lineage.items()]
    rows = [
        *(("file", path, "–", "added") for path in difference.added),
        *(("file", path, "there", "–") for path in difference.removed),
        *(("file", path, "there", "other bytes") for path in difference.changed),
        *(("metric", name, *map(_value, pair)) for name, pair in _chief(metrics)),
        *(("lineage", name, *map(_value, pair)) for name, pair in _chief(lineage)),
    ]
    if not rows:
        typer.echo(f"Versions {a} and {b} do not differ.")
        return
    _table(("what", "name", f"version {a}", f"version {b}"), rows, wraps="name")
    if len(_chief(metrics)) < len(metrics):
        typer.echo(f"Of {len(metrics)} metrics that differ, the chief ones; all of them: --json.")


def show_audit(audit: "Audit") -> None:
    """Prints what is wrong, what is not covered, and last the head."""
    for fault in audit.faults:
        typer.secho(fault, fg=typer.colors.RED)
    kind = "with a key" if audit.keyed else "without a key"
    verdict = f"{len(audit.faults)} fault(s)" if audit.faults else "nothing was changed"
    typer.echo(f"{audit.entries} entries, {kind}: {verdict}.")
    if audit.unchained:
        typer.echo(
            f"The first {audit.unchained} have no hash: an earlier release wrote them. The first "
            "entry with one covers them from then on."
        )
    if audit.head:
        typer.echo(f"head: {audit.head}")


def moment(text: str) -> datetime.datetime:
    """Reads a time; without a zone it is UTC, as the tables show it.

    Raises:
        typer.BadParameter: it is no time.
    """
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time. Write it as 2026-01-31T12:00Z or 2026-01-31 12:00.",
            param_hint="--at",
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise typer.BadParameter(f"{path} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} holds a {type(found).__name__}; an object is needed.")
    return found


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], wraps: str = "") -> None:
    """Prints a table of which one column alone, the last unless another is named, may wrap."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header="" not in headers[:1])
    for header in headers:
        table.add_column(header, no_wrap=header != (wraps or headers[-1]), overflow="fold")
    for row in rows:
        style = "bold green" if "live" in row else ""
        table.add_row(*map(Text, row), style=style)  # as text: a reason is no markup
    Console().print(table)


def _flat(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(f"{prefix}{name}.", value)
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _chief(rows: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """What a person wants to see of many named values: all when they are few, else the chief."""
    if len(rows) <= FEW:
        return list(rows)
    return [row for row in rows if row[0].rpartition(".")[2] in CHIEF]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


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
