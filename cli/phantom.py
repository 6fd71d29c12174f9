"""`cortexflow phantom`: synthetic subjects with known truth, in any public release's layout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Synthetic brain slices with exact ground truth; nobody's data."
)


@app.command()
def generate(
    *,
    preset: Annotated[
        str, typer.Option(help="realistic, moderate, standard, easy, or null: no class signal.")
    ] = "standard",
    subjects: Annotated[
        str,
        typer.Option(metavar="N,N,N,N", help="Normal, very mild, mild and moderate subjects."),
    ] = "45,45,45,45",
    slices: Annotated[int, typer.Option(help="Slices per subject.")] = 8,
    size: Annotated[int, typer.Option(help="Pixels of a slice's side, 64 to 224.")] = 64,
    site: Annotated[
        str,
        typer.Option(metavar="N[,N…]", help="Scanner 0, 1 (mild shift) or 2 (severe), or several."),
    ] = "0",
    seed: Annotated[int, typer.Option(help="Seed of the cohort.")] = 7,
    workers: Annotated[
        int | None, typer.Option(help="Processes; the bytes are the same.", show_default="by work")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "--cache", help="Folder of phantoms.", show_default="WORKSPACE/phantoms"
        ),
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(envvar="CORTEXFLOW_WORKSPACE", show_default="./workspace")
    ] = None,
) -> None:
    """Generate subjects, unless they are there already; print their folder.

    It holds images/CLASS/subj0001_slice00.jpg, truth.npz (latents, masks) and phantom.json.

        cortexflow phantom generate
        cortexflow phantom generate --preset realistic --subjects 100,70,28,2 --slices 32 --size 128
        cortexflow phantom generate --preset null --site 0,2 --seed 1
    """
    from ingest import phantom
    from pipeline.workspace import Workspace

    spec = phantom.PhantomSpec(
        preset=preset,
        subjects=_numbers("--subjects", subjects),
        slices=slices,
        size=size,
        site=_numbers("--site", site),
        seed=seed,
    )
    with _progress_bar() as update:
        folder = phantom.generate(spec, out or Workspace.at(workspace).phantoms, workers, update)
    print(folder)


@app.command()
def export(
    *,
    phantom: Annotated[Path, typer.Argument(help="Folder that `generate` printed.")],
    layout: Annotated[
        str,
        typer.Argument(
            help="folders, tourist55, sachinkumar413, reupload, uraninjo, tumour or tfrecords."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; absent or empty.")],
    truth: Annotated[
        Path | None,
        typer.Option(help="Also write each path's true subject and slice to this JSON file."),
    ] = None,
) -> None:
    """Write subjects in a public release's folders and names, to try importers on.

    cortexflow phantom export workspace/phantoms/0123456789abcdef tourist55 --out tourist
    cortexflow phantom export $(cortexflow phantom generate) tumour --out tumour --truth t.json
    """
    import json

    from ingest.phantom import export as export_layout

    sources = export_layout(phantom, layout, out)
    if truth is not None:
        truth.write_text(json.dumps(sources, indent=1) + "\n")
    print(f"{len(sources)} images in {out}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"must be whole numbers with commas between. Received: {text!r}.", param_hint=option
        ) from None


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, from the first subject on; stdout carries the folder only."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("subjects", start=True)

    def update(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        if bar.live.is_started:
            bar.stop()
