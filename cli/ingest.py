"""`cortexflow ingest`: images and TFRecords in, spans of a dataset out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingest.datasets import Dataset, ImportReport, Tally
    from ingest.sources import SourceListing

app = typer.Typer(
    no_args_is_help=True,
    help="Import images or TFRecords as a dataset: people kept apart, damaged files quarantined.",
)

SourceArgument = Annotated[
    Path, typer.Argument(help="Folder of class folders, perhaps within train and test folders.")
]
OutArgument = Annotated[Path, typer.Argument(help="The dataset's folder; made when absent.")]
LayoutOption = Annotated[
    str, typer.Option(help="auto, folders, tourist55, sachinkumar413 or tumour.")
]
RegexOption = Annotated[
    str | None,
    typer.Option(help=r"First group is the subject id, searched in each path: '(subj\d+)'."),
]
SubjectsOption = Annotated[
    str,
    typer.Option(
        "--subjects",
        help="Where people come from: auto, names, order, clusters (look-alike slices) or none.",
    ),
]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option("--class", help="Read this class only; repeatable. Of records: all, in order."),
]
UnlabelledOption = Annotated[
    Path | None, typer.Option(help="Folder of further images without labels, for pretraining.")
]
SiteOption = Annotated[str | None, typer.Option(help="Scanner or site of all images.")]
NameOption = Annotated[str | None, typer.Option(help="Of the dataset; default: the folder's.")]
DeduplicateOption = Annotated[
    bool, typer.Option("--deduplicate", help="Accept a re-upload whose test set is its training.")
]
ChannelsOption = Annotated[int, typer.Option(help="1 greyscale, 3 colour.", min=1, max=3)]
ValOption = Annotated[float | None, typer.Option(help="Fraction of people who validate.")]
TestOption = Annotated[float | None, typer.Option(help="Fraction of people who test.")]
SeedOption = Annotated[int, typer.Option(help="Of the split.")]
ShardsOption = Annotated[
    int | None, typer.Option(help="Files per split; default: one per 1,024 images.", min=1)
]
QuarantineOption = Annotated[
    float, typer.Option(help="Largest share of unusable files.", min=0.0, max=1.0)
]
ReproduceOption = Annotated[
    bool,
    typer.Option(
        "--reproduce-shipped-split",
        help="Keep the release's own split; stamps the dataset LEAKED, it cannot be blessed.",
    ),
]
BeamOption = Annotated[
    list[str] | None,
    typer.Option("--beam-option", help="Flag for Apache Beam; repeatable."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what the source is; write nothing.")
]


@app.command()
def images(
    source: SourceArgument,
    out: OutArgument,
    *,
    layout: LayoutOption = "auto",
    subject_regex: RegexOption = None,
    subject_source: SubjectsOption = "auto",
    classes: ClassesOption = None,
    unlabelled: UnlabelledOption = None,
    site: SiteOption = None,
    name: NameOption = None,
    deduplicate: DeduplicateOption = False,
    channels: ChannelsOption = 1,
    val: ValOption = None,
    test: TestOption = None,
    seed: SeedOption = 0,
    shards: ShardsOption = None,
    max_quarantined: QuarantineOption = 0.05,
    reproduce_shipped_split: ReproduceOption = False,
    beam_option: BeamOption = None,
    dry_run: DryRunOption = False,
) -> None:
    r"""Import image folders or a public release as the next span of a dataset.

    Run twice, it writes once; killed, it continues; with new images, it adds a span of them.

        cortexflow ingest images slices/ data/mri --subject-regex '(subj\d+)'

        cortexflow ingest images Dataset/ data/kaggle --dry-run

        cortexflow ingest images slices/ data/mri --beam-option=--direct_num_workers=4
        --beam-option=--direct_running_mode=multi_processing
    """
    opening = {
        "layout": layout,
        "subject_regex": subject_regex,
        "subject_source": subject_source,
        "classes": classes,
        "unlabelled": unlabelled,
        "site": site,
        "name": name,
        "deduplicate": deduplicate,
    }
    writing = {
        "channels": channels,
        "val": val,
        "test": test,
        "seed": seed,
        "shards": shards,
        "max_quarantined": max_quarantined,
        "reproduce_shipped_split": reproduce_shipped_split,
        "beam_options": beam_option or [],
    }
    _import(source, out, opening, writing, dry_run)


@app.command()
def tfrecords(
    source: Annotated[Path, typer.Argument(help="TFRecord file, or folder of *.tfrecord* files.")],
    out: OutArgument,
    *,
    classes: ClassesOption = None,
    name: NameOption = None,
    val: ValOption = None,
    test: TestOption = None,
    seed: SeedOption = 0,
    shards: ShardsOption = None,
    max_quarantined: QuarantineOption = 0.05,
    beam_option: BeamOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Import existing TFRecords (image, label, height, width, depth) as the next span.

    Records with subject ids are split anew, by person. Without ids, train and test of the file
    names are kept, and validation is carved out of train unless there is one.

        cortexflow ingest tfrecords records/ data/seed

        cortexflow ingest tfrecords records/ data/tumours --class glioma --class none
    """
    opening = {"layout": "tfrecords", "classes": classes, "name": name}
    writing = {
        "val": val,
        "test": test,
        "seed": seed,
        "shards": shards,
        "max_quarantined": max_quarantined,
        "beam_options": beam_option or [],
    }
    _import(source, out, opening, writing, dry_run)


@app.command()
def show(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset.")],
    span: Annotated[str | None, typer.Option(help="span-1, span-2, …; default: newest.")] = None,
) -> None:
    """Show a dataset: its classes, people per split, and what was left out.

    cortexflow ingest show data/mri
    """
    from ingest.datasets import read_dataset

    found = read_dataset(dataset)
    _show_dataset(found, found.report(span))


def _import(
    source: Path, out: Path, opening: dict[str, Any], writing: dict[str, Any], dry_run: bool
) -> None:
    if dry_run:
        from ingest.releases import open_source

        _show_listing(open_source(source, **opening))
        return
    import ingest

    with _progress() as progress:
        dataset = ingest.import_dataset(source, out, **opening, **writing, progress=progress)
    _show_dataset(dataset, dataset.report())


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr, one per stage; library chatter stays out of them."""
    import logging
    import warnings

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    logging.disable(logging.WARNING)
    columns = (TextColumn("{task.description:<11}"), BarColumn(), MofNCompleteColumn())
    try:
        with (
            warnings.catch_warnings(),
            Progress(*columns, console=Console(stderr=True), transient=True) as bars,
        ):
            warnings.simplefilter("ignore")
            tasks: dict[str, Any] = {}

            def update(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done)

            yield update
    finally:
        logging.disable(logging.NOTSET)


def _show_listing(listing: "SourceListing") -> None:
    from rich.console import Console

    console = Console()
    console.print(f"[bold]{listing.name}[/]: layout {listing.layout}, {listing.level}-level")
    for sentence in listing.evidence:
        console.print(f"  – {sentence}", markup=False, soft_wrap=True)
    for name, count in listing.counts().items():
        console.print(f"  {name:<20} {count:>8}", markup=False)
    console.print("Nothing was written (--dry-run).")


def _show_dataset(dataset: "Dataset", report: "ImportReport") -> None:
    from rich.console import Console
    from rich.table import Table

    from schema.features import SPLITS, UNLABELLED_SPLIT

    console, info = Console(), dataset.info
    stamp = "  [bold red]LEAKED[/]" if info.leaked else ""
    console.print(
        f"[bold]{info.name}[/] {report.span} ({info.level}-level, {info.importer}){stamp}"
    )
    for sentence in report.evidence:
        console.print(f"  – {sentence}", markup=False, soft_wrap=True)
    splits = [split for split in (*SPLITS, UNLABELLED_SPLIT) if split in report.counts]
    table = Table(box=None, padding=(0, 2))
    table.add_column("images (people)" if info.level == "subject" else "images")
    for split in splits:
        table.add_column(split, justify="right")
    for name in [*info.classes, UNLABELLED_SPLIT][: None if UNLABELLED_SPLIT in splits else -1]:
        table.add_row(name, *(_tally(report.counts[split].get(name)) for split in splits))
    console.print(table)
    _show_left_out(console, report)
    console.print(f"  {dataset.path / report.span}", markup=False, soft_wrap=True)


def _tally(tally: "Tally | None") -> str:
    if tally is None:
        return ""
    return f"{tally.images} ({tally.subjects})" if tally.subjects else str(tally.images)


def _show_left_out(console: Any, report: "ImportReport") -> None:
    from collections import Counter

    for title, findings in (
        ("quarantined", report.quarantined),
        ("set aside", report.set_aside),
    ):
        reasons = Counter(finding.reason for finding in findings).most_common()
        if reasons:
            shown = ", ".join(f"{count}× {reason}" for reason, count in reasons)
            console.print(f"  {title}: {shown} (report.json names each)", markup=False)
    if report.flags:
        shown = ", ".join(f"{count}× {flag}" for flag, count in sorted(report.flags.items()))
        console.print(f"  changed: {shown}", markup=False)
    for warning in report.warnings:
        console.print(f"  [yellow]![/] {warning}", soft_wrap=True)
