"""`cortexflow drift`: do two groups of a dataset's people look alike?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from evaluation.drift import Comparison, FeatureDrift
    from ingest.datasets import Dataset

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

BARS = " ▁▂▃▄▅▆▇█"
EXAMPLES = """
[bold]Examples[/]

  cortexflow drift workspace/data/mri

  cortexflow drift workspace/data/mri --reference train --current val

  cortexflow drift workspace/data/mri --reference span-1 --current span-3

  cortexflow drift workspace/data/mri --current span-2/train --json
"""
WHERE = "SPAN, SPLIT or SPAN/SPLIT"


@app.command(epilog=EXAMPLES)
def drift(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset's folder.")],
    *,
    reference: Annotated[
        str | None,
        typer.Option(metavar=WHERE, help="How it was. Default: all earlier spans, or train."),
    ] = None,
    current: Annotated[
        str | None,
        typer.Option(metavar=WHERE, help="How it is. Default: the newest span, or test."),
    ] = None,
    level: Annotated[
        float, typer.Option(help="Chance of any false alarm.", min=1e-4, max=0.49)
    ] = 0.01,
    permutations: Annotated[
        int, typer.Option(help="How often people are dealt anew.", min=1)
    ] = 9999,
    min_people: Annotated[
        int, typer.Option(help="Least number of people in each group.", min=2)
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say whether the images of two groups of people differ by more than chance.

    Descriptors, labels and sites are compared by person, as the pipeline's DriftGate does.

    Exit code 0: no drift; 1: an error; 2: drift; 3: insufficient data.
    """
    from components.drift_columns import read_dataset
    from evaluation.columns import grouped
    from evaluation.config import DriftSettings
    from evaluation.drift import compare
    from ingest.datasets import read_dataset as opened

    source = opened(dataset)
    names, parts = _chosen(source, reference, current)
    settings = DriftSettings(level=level, permutations=permutations, min_people=min_people)
    with _counting() as count:
        sides = [read_dataset(source, part, count) for part in parts]
    answer = compare(*grouped(*sides, names, source.info.classes), settings)
    if as_json:
        _print_json(answer)
    else:
        _show(answer, leaked=source.info.leaked)
    raise typer.Exit(answer.outcome.exit_code)


def _chosen(
    dataset: "Dataset", reference: str | None, current: str | None
) -> tuple[tuple[str, str], list[list[tuple[str, str]]]]:
    """Names of both groups, and the (span, split) pairs that each is made of."""
    from schema.errors import CortexflowError

    spans = dataset.info.spans
    if current is None:
        by_span = reference.split("/")[0] in spans if reference else len(spans) > 1
        current = dataset.latest_span if by_span else "test"
    if reference is None:
        span, _, split = current.partition("/")
        before = spans[: spans.index(span)] if span in spans else None
        if before is not None and not before:
            raise CortexflowError(
                f"{span} is the first span: there is none before it. Give --reference."
            )
        tail = f"/{split}" if split else ""
        reference = "train" if before is None else ",".join(name + tail for name in before)
    parts = [_parts(dataset, reference), _parts(dataset, current)]
    if both := sorted(set(parts[0]) & set(parts[1])):
        held = ", ".join("/".join(part) for part in both)
        raise CortexflowError(
            f"Reference {reference} and current {current} share images ({held}). Give two groups "
            "that are apart."
        )
    return (reference.replace(",", ", "), current), parts


def _parts(dataset: "Dataset", wanted: str) -> list[tuple[str, str]]:
    """The (span, split) pairs that a name stands for."""
    from schema.errors import CortexflowError
    from schema.features import SPLITS, UNLABELLED_SPLIT

    spans, splits = dataset.info.spans, (*SPLITS, UNLABELLED_SPLIT)
    parts = []
    for name in wanted.split(","):
        span, _, split = name.partition("/")
        if name in splits:
            parts += [(each, name) for each in spans]
        elif span in spans and (split in splits or not split):
            parts += [(span, each) for each in ([split] if split else SPLITS)]
        else:
            raise CortexflowError(
                f"{dataset.path} has no {name!r}{_meant(name, [*spans, *splits])} Spans: "
                f"{', '.join(spans)}. Splits: {', '.join(splits)}. Or both: {spans[0]}/train."
            )
    return parts


def _meant(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else "."


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    """A line that counts images while they are described, gone afterwards; silent in a pipe."""
    from rich.console import Console

    console = Console(stderr=True)
    done = 0
    with console.status("Describing images") as status:

        def count(images: int) -> None:
            nonlocal done
            done += images
            status.update(f"Describing images: {done:,}")

        yield count


def _print_json(answer: "Comparison") -> None:
    import dataclasses
    import json

    typer.echo(json.dumps(dataclasses.asdict(answer), indent=2, allow_nan=False))


def _show(answer: "Comparison", *, leaked: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from evaluation.outcome import Outcome

    console = Console()
    if leaked:
        console.print(
            Text("LEAKED: this split is the release's own and shares people.", style="bold red")
        )
    if answer.outcome is Outcome.INSUFFICIENT:
        _say(console, answer)
        return
    console.print(_table(answer))
    _say(console, answer)


def _say(console: "Console", answer: "Comparison") -> None:
    """The last line, as every command ends that judges: the outcome, then why."""
    from rich.text import Text

    from cli.tables import COLOURS

    outcome = answer.outcome.value
    told = Text(f": {answer.reason}.")
    console.print(Text(outcome, style=f"bold {COLOURS[outcome]}"), told, sep="", soft_wrap=True)


def _table(answer: "Comparison"):
    from rich.table import Table

    counts = [
        f"{name}: {people} people, {images:,} images"
        for name, people, images in zip(
            (answer.reference, answer.current), answer.people, answer.images, strict=True
        )
    ]
    table = Table(title="  ·  ".join(counts), box=None, title_justify="left", padding=(0, 1, 0, 0))
    bins = max(len(feature.reference) for feature in answer.features)
    widest = max(len(feature.name) for feature in answer.features)
    for name, width in (("", 1), ("feature", widest), ("before", bins), ("now", bins)):
        table.add_column(name, no_wrap=True, min_width=width)
    for name in ("JSD", "chance", "adj. p"):
        table.add_column(name, no_wrap=True, justify="right", min_width=max(len(name), 4))
    table.add_column("from → to", overflow="fold")
    for feature in sorted(answer.features, key=lambda feature: (feature.p, -feature.divergence)):
        table.add_row(
            "●" if feature.drifted else "",
            feature.name,
            *_bars(feature),
            _short(feature.divergence),
            f"<{_short(feature.threshold)}",
            _short(feature.adjusted_p, 4),
            feature.movement,
            style="red" if feature.drifted else None,
        )
    return table


def _bars(feature: "FeatureDrift") -> tuple[str, str]:
    """Both histograms on one scale, a character a bin."""
    top = max(*feature.reference, *feature.current)
    steps = len(BARS) - 1
    one, other = (
        "".join(BARS[round(share / top * steps)] for share in side)
        for side in (feature.reference, feature.current)
    )
    return one, other


def _short(value: float, digits: int = 3) -> str:
    """.123 of 0.123: the table fits 80 columns."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if value < 1 else text[: digits + 1]
