"""The commands around versions: which is live, which is tried out, what changed and why."""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import registry_output as output
from cli.run import WorkspaceOption

if TYPE_CHECKING:
    from registry.interface import Registry, Traffic, Version

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
audit = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(
    audit,
    name="audit",
    help="Prove that the history of versions is whole.",
    rich_help_panel="Models",
)

RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        envvar="CORTEXFLOW_REGISTRY",
        metavar="URI",
        show_default="the workspace's",
        help="Folder, gs://BUCKET/PATH, or vertex://PROJECT/LOCATION/MODEL.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of the model.", show_default="the only one there is"),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Verify and say what would happen; change nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]
VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")]


def _examples(*lines: str) -> str:
    return "\n\n".join(["\n[bold]Examples[/]", *(f"  cortexflow {line}" for line in lines)])


@app.command(
    epilog=_examples("versions", "versions 3", "versions --json --registry /srv/cortexflow/models")
)
def versions(
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", help="Show this one in full.", show_default="all"),
    ] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """List the versions of a model: which is live, the canary, and what a rollback goes to."""
    opened = _open(workspace, registry, name)
    found = opened.versions() if version is None else [opened.show(version)]
    previous = opened.previous()
    states = output.states(opened.traffic(), previous.number if previous else None)
    if as_json:
        documents = [output.document(entry, states) for entry in found]
        typer.echo(json.dumps(documents if version is None else documents[0], indent=2))
    elif version is None:
        output.show_versions(found, states)
        typer.echo(f"{opened.name} in {_place(workspace, registry)}")
    else:
        output.show_version(found[0], states)


@app.command(
    epilog=_examples(
        'push exported/ --name student --reason "trained elsewhere"',
        "push exported/ --live --dry-run",
    )
)
def push(
    folder: Annotated[Path, typer.Argument(help="Exported model: a SavedModel's folder.")],
    live: Annotated[
        bool, typer.Option("--live/--no-live", help="Make it live at once, or only keep it.")
    ] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(help="JSON file with the numbers it was judged by.", exists=True),
    ] = None,
    reason: ReasonOption = "pushed by hand",
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Add an exported model as a version, past the gate; the same content again adds nothing.

    A run pushes by itself what its gate passed. What is pushed by hand was judged by nobody here,
    so it stays out of traffic unless --live is given. It is tried out first in a process of its
    own, and refused (exit code 2) where it holds what a model must not, or answers otherwise than
    at export.
    """
    from registry.interface import VerificationError
    from serving import probe

    opened = _open(workspace, registry, name, create=True)
    judged = output.read_object(metrics) if metrics else {}
    before, tried_out = opened.traffic(), probe.require(folder)
    version = opened.push(
        folder,
        metrics=judged,
        lineage={"pushed_from": folder.name, "gate": "none: pushed by hand"},
        reason=reason,
        who=_who(),
        make_live=False,
        dry_run=dry_run,
    )
    if version.digest != tried_out.digest:
        raise VerificationError(f"{folder} changed while it was pushed. Push it again.")
    if live and not dry_run:
        opened.promote(version.number, reason=reason, who=_who())
    what = f"{len(version.files)} files, {version.size / 2**20:.1f} MiB"
    if version.already_present:
        typer.echo(f"{opened.name}: this content is version {version.number} already.")
    elif dry_run:
        typer.echo(f"{opened.name}: would become version {version.number} ({what}).")
    else:
        typer.echo(f"{opened.name}: version {version.number} is stored ({what}).")
    if live:
        _say(opened.name, before, version, dry_run)
    elif dry_run:
        typer.echo("Nothing was changed (--dry-run).")


@app.command(
    epilog=_examples('promote 3 --reason "better on site 2"', "promote 3 --dry-run"),
)
def promote(
    version: VersionArgument,
    reason: ReasonOption = "promoted by hand",
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Make a version live, after reading every byte of it; a canary ends."""
    opened = _open(workspace, registry, name)
    before = opened.traffic()
    target = opened.promote(version, reason=reason, who=_who(), dry_run=dry_run)
    _say(opened.name, before, target, dry_run)


@app.command(
    epilog=_examples(
        'rollback --reason "errors on site 2"', "rollback --to 1", "rollback --dry-run"
    )
)
def rollback(
    to: Annotated[
        int | None, typer.Option(help="Version to go back to.", show_default="the previous one")
    ] = None,
    reason: ReasonOption = "rolled back by hand",
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Make the previously live version live again, after reading every byte of it; a canary ends.

    A second rollback goes further back: it never returns to what was rolled back from. To end a
    canary and keep what is live: cortexflow set-traffic --none.
    """
    opened = _open(workspace, registry, name)
    before = opened.traffic()
    target = opened.rollback(to, reason=reason, who=_who(), dry_run=dry_run)
    ended = before.canary is not None and before.live == target.number
    _say(opened.name, before, target, dry_run, ended)


@app.command(
    "set-traffic",
    epilog=_examples(
        "set-traffic --canary 4 --percent 5",
        'set-traffic --none --reason "errors on site 2"',
        "set-traffic --canary 4 --percent 50 --dry-run",
    ),
)
def set_traffic(
    canary: Annotated[
        int | None, typer.Option(help="Version to try out beside the live one.")
    ] = None,
    percent: Annotated[
        int | None, typer.Option(help="Its share of the requests, 0 to 100.", min=0, max=100)
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="End the canary.")] = False,
    reason: ReasonOption = "set by hand",
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Give a canary a share of the requests, or end it; what is live stays live."""
    if none == (canary is not None) or (canary is None) != (percent is None):
        raise typer.BadParameter("Give --canary VERSION with --percent SHARE, or --none.")
    opened = _open(workspace, registry, name)
    before = opened.traffic()
    after = opened.set_traffic(canary, percent or 0, reason=reason, who=_who(), dry_run=dry_run)
    if after == before:
        typer.echo(f"{opened.name}: {output.told(after)} already.")
    elif dry_run:
        typer.echo(
            f"{opened.name}: {output.told(after)}, in place of: {output.told(before)}. "
            "Nothing was changed (--dry-run)."
        )
    else:
        typer.echo(f"{opened.name}: {output.told(after)} (before: {output.told(before)}).")


@app.command(
    epilog=_examples("history", "history --at 2026-01-31T12:00Z", "history --json --name student")
)
def history(
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Who answered at this moment, ISO 8601; UTC if no zone."),
    ] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """List every change: what was live when, who changed it, and why."""
    moment = output.moment(at) if at is not None else None
    opened = _open(workspace, registry, name)
    if moment is not None:
        traffic = opened.served_at(moment)
        if as_json:
            typer.echo(json.dumps({"at": moment.isoformat(), **vars(traffic)}))
        else:
            when = moment.isoformat(sep=" ", timespec="seconds")
            typer.echo(f"{opened.name} at {when}: {output.told(traffic)}.")
    elif as_json:
        typer.echo(json.dumps([vars(event) for event in opened.history()], indent=2))
    else:
        output.show_history(opened.history())


@app.command(epilog=_examples("diff 2 3", "diff 2 3 --json"))
def diff(
    a: Annotated[int, typer.Argument(metavar="A", help="A version.")],
    b: Annotated[int, typer.Argument(metavar="B", help="The version to compare with it.")],
    as_json: JsonOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Tell two versions apart: files, metrics and where they come from."""
    opened = _open(workspace, registry, name)
    difference = opened.diff(a, b)
    if as_json:
        typer.echo(json.dumps({"a": a, "b": b, **vars(difference)}, indent=2))
    else:
        output.show_difference(difference, a, b)


@app.command(epilog=_examples("verify", "verify 3"))
def verify(
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", help="Number of the version.", show_default="all"),
    ] = None,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Compare every byte of a version with what was pushed; exit code 1 names the first damage."""
    opened = _open(workspace, registry, name)
    numbers = [found.number for found in opened.versions()] if version is None else [version]
    for number in numbers:
        found = opened.verify(number)
        typer.echo(f"{opened.name} {number}: {len(found.files)} files are as pushed.")


@app.command(epilog=_examples("gc --dry-run", "gc --keep 3"))
def gc(
    keep: Annotated[int, typer.Option(help="How many of the newest versions to keep.", min=0)] = 5,
    reason: ReasonOption = "collected by hand",
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Remove old versions; never the live one, the canary, or what a rollback goes to."""
    opened = _open(workspace, registry, name)
    removed = opened.gc(keep, reason=reason, who=_who(), dry_run=dry_run)
    numbers = ", ".join(map(str, removed))
    if not removed:
        typer.echo(f"{opened.name}: nothing to remove.")
    elif dry_run:
        typer.echo(f"{opened.name}: would remove {numbers}. Nothing was changed (--dry-run).")
    else:
        typer.echo(f"{opened.name}: removed {numbers}.")


@app.command(epilog=_examples("sign 3", "sign 3 --dry-run"))
def sign(
    version: VersionArgument,
    reason: ReasonOption = "signed by hand",
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Sign a version of before there was a key, after reading every byte of it.

    The key's file is named by CORTEXFLOW_SIGNING_KEY_FILE.
    """
    opened = _open(workspace, registry, name)
    found = opened.sign(version, reason=reason, who=_who(), dry_run=dry_run)
    files = f"its {len(found.files)} files are as pushed"
    if dry_run:
        typer.echo(f"{opened.name}: version {version} would be signed; {files}.")
    else:
        typer.echo(f"{opened.name}: version {version} is signed; {files}.")


@audit.command("verify", epilog=_examples("audit verify", "audit verify --head 5f2c81…"))
def audit_verify(
    head: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A head that an earlier audit gave, kept elsewhere."),
    ] = None,
    as_json: JsonOption = False,
    registry: RegistryOption = None,
    workspace: WorkspaceOption = None,
    name: NameOption = None,
) -> None:
    """Look for edits, deletions, truncation and reordering in the history; exit code 1 if any.

    The last line gives the head: keep it elsewhere, and a later audit with --head proves that
    nothing before it was cut off or rewritten.
    """
    opened = _open(workspace, registry, name)
    found = opened.audit(head)
    if as_json:
        typer.echo(json.dumps(vars(found)))
    else:
        output.show_audit(found)
    if found.faults:
        raise typer.Exit(1)


def _open(
    workspace: Path | None, registry: str | None, name: str | None, create: bool = False
) -> "Registry":
    """The registry of the named model, or of the only one there is."""
    from registry.opening import open_registry

    return open_registry(_place(workspace, registry), name, create=create)


def _place(workspace: Path | None, registry: str | None) -> str | Path:
    from pipeline.workspace import Workspace

    return registry or Workspace.at(workspace).registry


def _say(
    name: str, before: "Traffic", target: "Version", dry_run: bool, ended: bool = False
) -> None:
    was = f"version {before.live}" if before.live else "nothing"
    canary = f" The canary {before.canary} ends." if before.canary is not None else ""
    if before.live == target.number and not ended:
        typer.echo(f"{name}: version {target.number} is live already.")
    elif dry_run:
        typer.echo(
            f"{name}: version {target.number} would go live in place of {was}; its "
            f"{len(target.files)} files are as pushed.{canary} Nothing was changed (--dry-run)."
        )
    elif before.live == target.number:
        typer.echo(f"{name}: version {target.number} stays live.{canary}")
    else:
        typer.echo(f"{name}: version {target.number} is live (before: {was}).{canary}")


def _who() -> str:
    """The account that types; containers may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
