"""`cortexflow leakage`: does one person stand on both sides of a dataset's split?"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evaluation.leakage import Leaks
    from evaluation.leakage_pairs import SplitImages
    from ingest.datasets import Dataset

app = typer.Typer(rich_markup_mode="rich")

SHOWN = 10  # pairs in the table

EXAMPLES = """
[bold]Examples[/]

  cortexflow leakage workspace/data/oasis

  cortexflow leakage workspace/data/oasis --image-size 128 --picture pairs.png

  cortexflow leakage workspace/data/oasis --json | jq .reasons
"""


def _one_of_two(size: int) -> int:
    if size not in (64, 128):
        raise typer.BadParameter(f"it is 64 or 128. Received: {size}.")
    return size


@app.command(epilog=EXAMPLES)
def leakage(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset.")],
    image_size: Annotated[
        int,
        typer.Option(
            help="Pixels of a side at which images are correlated: 64 or 128.",
            callback=_one_of_two,
        ),
    ] = 64,
    min_correlation: Annotated[
        float | None,
        typer.Option(
            help="What counts as a look-alike; default: .98 at 64 pixels, .96 at 128.",
            min=0.5,
            max=1.0,
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the worst pairs, if any, as this PNG file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the decision as JSON, and nothing else.")
    ] = False,
) -> None:
    """Look for people on both sides of a split: by id, by equal pixels, by likeness.

    Every image that trains (labelled or not) is held against every one that validates or tests, and
    those against one another. Exit code 0: passed; 2: refused; 3: insufficient evidence.
    """
    from evaluation import leakage as leaking
    from evaluation import outcome
    from evaluation.config import LeakageSettings
    from ingest.datasets import read_dataset

    settings = LeakageSettings.model_validate(
        {"image_size": image_size, "min_correlation": min_correlation}
    )
    found = read_dataset(dataset)
    with _progress() as progress:
        splits = _decoded(found, settings.image_size, progress)
        leaks = leaking.check(
            splits, settings, lambda done, total: progress("correlate", done, total)
        )
    if picture is not None:
        _draw(leaks, splits, picture)
    if as_json:
        sys.stdout.write(outcome.to_json(leaks.decision) + "\n")
    else:
        _show(found.info.name, leaks, picture)
    raise typer.Exit(leaks.decision.outcome.exit_code)


def _decoded(
    dataset: "Dataset", size: int, progress: Callable[[str, int, int], None]
) -> "dict[str, SplitImages]":
    """All spans of every split, decoded once."""
    from components.records import decoded
    from schema.features import SPLITS, UNLABELLED_SPLIT

    reports = [dataset.report(span) for span in dataset.info.spans]
    tallies = [
        tally for report in reports for split in report.counts.values() for tally in split.values()
    ]
    total, before = sum(tally.images for tally in tallies), 0
    splits = {}
    for split in (*SPLITS, UNLABELLED_SPLIT):
        if files := dataset.files(split):

            def advance(done: int, before: int = before) -> None:
                progress("decode", before + done, total)

            splits[split] = decoded([str(file) for file in files], size, advance)
            before += len(splits[split]) + len(splits[split].unreadable)
    return splits


def _draw(leaks: "Leaks", splits: "dict[str, SplitImages]", place: Path) -> None:
    from evaluation import leakage_picture

    if leaks.pairs:
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        draft.write_bytes(leakage_picture.draw(leaks.pairs, splits, leaks.total))
        draft.replace(place)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr, one per stage, which vanish at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield update


def _show(name: str, leaks: "Leaks", picture: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cli.tables import COLOURS
    from evaluation.leakage_pairs import apart

    console, decision = Console(), leaks.decision
    table = Table(title=name, title_justify="left", box=None, padding=(0, 2))
    for column in ("split", "images", "people", "copies within"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, counts in decision.details["splits"].items():
        cells = (counts[key] for key in ("images", "people", "copies"))
        table.add_row(split, *(f"{cell:,}" if cell else "–" for cell in cells))
    console.print(table)
    for check in decision.checks:
        console.print(
            Text(f"  {check.outcome.value:<12}", style=COLOURS[check.outcome.value]),
            Text(check.name + (f": {check.detail}" if check.detail and check.passed else "")),
            sep=" ",
            soft_wrap=True,
        )
    if leaks.pairs:
        rows = Table(box=None, padding=(0, 2))
        for column in ("correlation", "one side", "the other", "found by"):
            rows.add_column(column)
        for pair in apart(leaks.pairs, SHOWN):
            likeness = "blank" if pair.correlation is None else f"{pair.correlation:.3f}"
            rows.add_row(likeness, Text(str(pair.a)), Text(str(pair.b)), ", ".join(pair.layers))
        console.print(rows)
        if picture is not None:
            console.print(f"  picture of the worst: {picture}", markup=False, soft_wrap=True)
    reasons = f": {'; '.join(decision.reasons)}" if decision.reasons else ""
    style = f"bold {COLOURS[decision.outcome.value]}"
    console.print(Text(decision.outcome.value, style=style), Text(reasons), sep="", soft_wrap=True)
