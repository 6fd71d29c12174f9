"""The command `cortexflow`: what it offers, and what becomes of an error."""

import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from cli import (
    card,
    checkpoint,
    compile,
    control,
    drift,
    ingest,
    leakage,
    override,
    phantom,
    registry,
    run,
    schedule,
    schema,
    serve,
    study,
    submit,
)
from schema.errors import CortexflowError

DATA, PIPELINE, MODELS = "Data", "Pipeline", "Models"


class CortexflowGroup(TyperGroup):
    """Turns a deliberate error into one red line and its exit code; others keep their traceback."""

    def invoke(self, ctx: typer.Context) -> object:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except CortexflowError as error:
            if ctx.params["debug"]:
                raise
            # One line, so that the reason is the last line of any log.
            message = " ".join(str(error).split())
            typer.secho(f"Error: {message}", fg=typer.colors.RED, err=True)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    cls=CortexflowGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Research use only, not for diagnosis.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cortexflow {version('cortexflow')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="CORTEXFLOW_DEBUG", help="Show the traceback of an error."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Brain-MRI slices in; a gated, versioned model that can be rolled back out.

    Start here: cortexflow run quickstart
    """


def _mount(commands: typer.Typer, panel: str, *, apart: dict[str, str] | None = None) -> None:
    """Puts a module's commands at the top level, under one heading of the help.

    Args:
        commands: the module's app.
        panel: the heading.
        apart: commands that stand under another heading, as name: heading.
    """
    for command in commands.registered_commands:
        name = command.name or command.callback.__name__
        command.rich_help_panel = (apart or {}).get(name, panel)
    app.add_typer(commands)


app.add_typer(ingest.app, name="ingest", rich_help_panel=DATA)
app.add_typer(phantom.app, name="phantom", rich_help_panel=DATA)
app.add_typer(schema.app, name="schema", rich_help_panel=DATA)
_mount(leakage.app, DATA)
_mount(drift.app, DATA)
_mount(run.app, PIPELINE, apart={"predict": MODELS})
_mount(compile.app, PIPELINE)
_mount(submit.app, PIPELINE)
app.add_typer(schedule.app, name="schedule", rich_help_panel=PIPELINE)
_mount(card.app, PIPELINE)
app.add_typer(study.app, name="study", rich_help_panel=PIPELINE)
app.add_typer(control.app, name="control", rich_help_panel=PIPELINE)
_mount(registry.app, MODELS)
_mount(override.app, MODELS)
_mount(serve.app, MODELS)
app.add_typer(checkpoint.app, name="checkpoint", rich_help_panel=MODELS)


def main() -> None:
    """Entry point: exits 0 passed, 1 error, 2 refused or misused, 3 insufficient evidence.

    143: stopped by SIGTERM, and fit to be resumed.
    """
    app(prog_name="cortexflow")


if __name__ == "__main__":
    sys.exit(main())
