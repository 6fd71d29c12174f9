"""`cortexflow override`: put a model live that the gate did not pass, on record for good."""

from typing import Annotated

import typer

from cli.run import RunArgument, WorkspaceOption

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

EXAMPLES = """
[bold]Examples[/]

  cortexflow override latest --who "R. Roe" --reason "reader study, not for use" --dry-run

  cortexflow override mri-20260101-120000 --who "R. Roe" --reason "reader study, not for use"
"""


@app.command(epilog=EXAMPLES)
def override(
    run_id: RunArgument,
    who: Annotated[str, typer.Option(help="The person who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why; stands on the model card for good.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be overridden; change nothing.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Put the model of a run live although the gate did not pass it.

    Name and reason are kept in the version's manifest, the registry's history, ML Metadata and the
    run, and stand on report and model card from then on. A leaking split and NaN stay refused.
    """
    from cli import progress

    with progress.quiet_tensorflow():
        from pipeline import documents, overrides, runs
        from pipeline.workspace import Workspace

    place = Workspace.at(workspace)
    folder = runs.find(place, run_id)
    config, record = folder.read_config(), folder.read()
    decision = overrides.check(config, place, record)
    typer.echo(f"Run {record.id} ended with: {decision.outcome}.")
    for said in decision.reasons:
        typer.echo(f"  – {said}")
    if dry_run:
        typer.echo(f"Would put its student live, on the word of {who!r}. Nothing was changed.")
        return
    with progress.quiet_tensorflow():
        record, version = overrides.override(config, place, folder, who=who, reason=reason)
        documents.publish(documents.saved(folder, place), folder)
    typer.secho(
        f"Version {version.number} of {version.name} is live by an override of {who}: {reason}",
        fg=typer.colors.YELLOW,
    )
