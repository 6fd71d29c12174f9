"""`cortexflow schema`: draft a data contract from data, and compare two."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The data contract: draft one from data, compare two.",
)

INFER_EXAMPLES = """
[bold]Examples[/]

  cortexflow schema infer workspace/data/oasis

  cortexflow schema infer workspace/data/oasis --out draft.pbtxt
"""
DIFF_EXAMPLES = """
[bold]Examples[/]

  cortexflow schema diff draft.pbtxt

  cortexflow schema diff old.pbtxt new.pbtxt
"""


@app.command(epilog=INFER_EXAMPLES)
def infer(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET_OR_STATS",
            help="Dataset folder, TFRecords, or StatisticsGen or ExampleGen output.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write the draft here instead of printing it.")
    ] = None,
) -> None:
    """Draft a schema from data: types, presence, and bounds half the observed range wider.

    A draft is for reading: commit it only after asking of each bound why it stands.
    """
    from schema import contract

    text = contract.render(contract.infer(source))
    if out is None:
        typer.echo(text, nl=False)
        return
    out.write_text(text)
    typer.echo(f"Wrote {out}. Compare it with: cortexflow schema diff {out}")


@app.command(epilog=DIFF_EXAMPLES)
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A schema (.pbtxt).")],
    b: Annotated[
        Path | None,
        typer.Argument(metavar="[B]", help="Another; the curated one when left out."),
    ] = None,
) -> None:
    """Show what changes from A to B. Exit code 0: nothing; 1: an error; 2: they differ."""
    from rich.console import Console
    from rich.text import Text

    from schema import contract

    changes = contract.diff(contract.load(a), contract.load(b or contract.CURATED))
    console = Console(soft_wrap=True)
    styles = {"+": "green", "-": "red", "~": "yellow"}
    for change in changes:
        line = str(change)
        console.print(Text(line, style=styles[line[0]]))
    if changes:
        raise typer.Exit(2)
    console.print("The schemas are equal.")
