"""`cortexflow study`: comparisons on people that no training saw, each with a report."""

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Where 99 % goes, and what methods are worth on new people."
)

WorkspaceOption = Annotated[
    Path | None, typer.Option(envvar="CORTEXFLOW_WORKSPACE", show_default="./workspace")
]


@app.command()
def leak(
    *,
    people: Annotated[
        int, typer.Option(min=20, help="Of the phantom, mixed as in the public set.")
    ] = 60,
    data: Annotated[
        Path | None,
        typer.Option(help="A folder of images or a dataset.", show_default="the phantom"),
    ] = None,
    subject_regex: Annotated[
        str | None, typer.Option(help="First group in a file's path is its person.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of the splits that have several.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of phantom and splits.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder.", show_default="WORKSPACE/studies/leak")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show where 99 % goes: one classifier, three splits, on the phantom or on your images.

    Writes report.md, leak.json, leak.png and leak.svg. Half a minute on the phantom.

        cortexflow study leak
        cortexflow study leak --data slices/ --subject-regex '(subj\\d+)' --out leak
    """
    from pipeline.workspace import Workspace
    from studies import leak as study
    from studies import leak_report
    from studies.phantom import public_mix
    from studies.slices import read_slices

    place = Workspace.at(workspace)
    if data is None:
        if subject_regex is not None:
            raise typer.BadParameter(
                "--subject-regex goes with --data; the phantom knows its people."
            )
        _say(f"phantom of {people} people")
        slices = public_mix(people, seed, place.phantoms)
    else:
        slices = read_slices(data, subject_regex)
    found = study.study(slices, count=folds, seed=seed, progress=_say)
    folder = out or place.root / "studies" / "leak"
    leak_report.write(found, slices, folder, _command())
    _print_table(leak_report.HEADINGS, leak_report.rows(found), leak_report.WORDS)
    for line in leak_report.verdicts(found, reasons=1):
        print(f"leak check: {line}")
    print(f"\n{leak_report.sentence(found)}")
    print(f"{folder}: {leak_report.REPORT}, {leak_report.NUMBERS}, leak.png, leak.svg")


@app.command()
def cv(
    *,
    data: Annotated[Path, typer.Option(help="A folder of images, or a dataset.")],
    subject_regex: Annotated[
        str | None, typer.Option(help="First group in a file's path is its person; of a folder.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2)] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Repeats, with folds of their own each.")] = 1,
    first_seed: Annotated[
        int, typer.Option(min=0, help="Of the folds. Try settings on 100 and up, report 0.")
    ] = 0,
    positive: Annotated[
        list[str] | None,
        typer.Option(
            help="Class to tell from the others; repeatable.",
            show_default="all but the least severe",
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels of a side that the networks see.")] = 64,
    out: Annotated[
        Path | None, typer.Option(help="Folder.", show_default="WORKSPACE/studies/cv-NAME")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Folds at once; they share the cores.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the folds and what is done; do nothing.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Cross-validate by person: SimCLR, teacher and student beside total CSF and PCA + LR.

    Each fold pretrains, fine-tunes and distils on its training people alone. Finished folds are
    kept and stopped trainings go on: run the command again. Writes report.md, cv.json, cv.png and
    cv.svg.

        cortexflow study cv --data slices/ --subject-regex '(subj\\d+)'
        cortexflow study cv --data slices/ --subject-regex '(subj\\d+)' --size 96 --dry-run
    """
    from pipeline.workspace import Workspace
    from studies import crossval, crossval_report

    plan, slices = crossval.planned(data, subject_regex, tuple(positive or ()) or None, folds, size)
    people = crossval.everybody(slices, plan.positive)
    folder = out or Workspace.at(workspace).root / "studies" / f"cv-{slices.name}"
    repeats = range(first_seed, first_seed + seeds)
    left = crossval.missing(plan, repeats, folder)
    print(
        f"{len(people.ids)} people, {len(slices)} slices: {people.truth.sum()} with "
        f"{', '.join(plan.positive)}, {(1 - people.truth).sum()} without; "
        f"{len(left)} of {seeds * folds} folds to do, in {folder}"
    )
    if dry_run:
        print("Nothing was run (--dry-run).")
        return
    crossval.agree(plan, folder)
    with _told_by_the_trainer():
        crossval.run(plan, repeats, folder, jobs, _say)
    found = crossval_report.summary(plan, people, crossval.collected(plan, repeats, folder))
    crossval_report.write(found, folder, _command())
    _print_table(crossval_report.HEADINGS, crossval_report.rows(found), crossval_report.WORDS)
    print(f"\n{crossval_report.sentence(found)}")
    print(f"{folder}: {crossval_report.REPORT}, {crossval_report.NUMBERS}, cv.png, cv.svg")


@contextmanager
def _told_by_the_trainer() -> Iterator[None]:
    """Shows what trainings log, while there are some in this process."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _say(record.getMessage())

    logger, lines = logging.getLogger("trainer"), Lines(logging.INFO)
    level, logger.propagate = logger.level, False
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
        logger.propagate = True


def _say(what: str) -> None:
    """Progress, on stderr, so that stdout holds the result alone."""
    typer.secho(f"  … {what}", err=True, dim=True)


def _print_table(headings: tuple[str, ...], rows: list[tuple[str, ...]], text: int) -> None:
    """A table whose first `text` columns are words, the others numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="left" if column < text else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _command() -> str:
    return shlex.join(["cortexflow", *sys.argv[1:]])
