"""`cortexflow card`: the model card of a run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.run import RunArgument, WorkspaceOption

app = typer.Typer(no_args_is_help=True)


class Format(StrEnum):
    """What a model card is written in."""

    MD = "md"
    HTML = "html"


@app.command()
def card(
    run_id: RunArgument = "latest",
    form: Annotated[Format, typer.Option("--format", help="Markdown or HTML.")] = Format.MD,
    out: Annotated[
        Path | None, typer.Option(help="Write the card here instead of printing it.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Print a run's model card: use, data, numbers with intervals, limits, checklists.

    cortexflow card
    cortexflow card latest --format html --out card.html
    """
    from components.report import card as model_card
    from components.report.storage import replace
    from pipeline import runs
    from pipeline.documents import saved
    from pipeline.workspace import Workspace

    place = Workspace.at(workspace)
    evidence = saved(runs.find(place, run_id), place)
    text = model_card.html(evidence) if form is Format.HTML else model_card.markdown(evidence)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(out, text.encode())
    typer.echo(out)
