"""`cortexflow checkpoint`: the public SimCLR checkpoints, to start fine-tuning from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.run import WorkspaceOption

if TYPE_CHECKING:
    from trainer.checkpoints.aliases import Published

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Published and other encoders to start fine-tuning from.",
)

SHORT = ("linear", "1%", "10%", "100%", "superv.")  # of the stages, in their order

LIST_EXAMPLES = """
[bold]Examples[/]

  cortexflow checkpoint list

  cortexflow checkpoint list --names
"""
SHOW_EXAMPLES = """
[bold]Examples[/]

  cortexflow checkpoint show simclrv2/pretrained/r50_1x_sk0

  cortexflow checkpoint show downloads/saved_model --every

  cortexflow checkpoint show model.ckpt-250228 --json
"""
FETCH_EXAMPLES = """
[bold]Examples[/]

  cortexflow checkpoint fetch simclrv2/pretrained/r50_1x_sk0 --image-size 96

  cortexflow checkpoint fetch simclrv2/pretrained/r50_1x_sk0/hub

  cortexflow checkpoint fetch exported/saved_model --classes mild,moderate,normal,very_mild
"""


def complete_checkpoint(incomplete: str) -> list[str]:
    """Aliases for tab completion; paths are the shell's own."""
    from trainer.checkpoints import aliases

    return [name for name in aliases.names() if name.startswith(incomplete)]


CheckpointArgument = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Alias, path, gs:// folder, or https:// archive.",
        autocompletion=complete_checkpoint,
    ),
]


@app.command("list", epilog=LIST_EXAMPLES)
def list_published(
    names: Annotated[bool, typer.Option("--names", help="Every alias, one per line.")] = False,
) -> None:
    """List the published networks with their ImageNet accuracy, and how to name one."""
    from trainer.checkpoints import aliases

    if names:
        typer.echo("\n".join(aliases.names()))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="SimCLRv2: ImageNet top-1 in percent, as published",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for header in ("architecture", "depth", "width", "SK", "params", *SHORT):
        left = header == "architecture"
        table.add_column(header, justify="left" if left else "right", no_wrap=True)
    for row in aliases.TABLE:
        table.add_row(
            row.architecture,
            str(row.depth),
            f"{row.width}×",
            "yes" if row.selective else "no",
            f"{row.parameters} M",
            *(f"{accuracy:.1f}" for accuracy in row.accuracies),
        )
    Console(soft_wrap=True).print(table)
    stages = ", ".join(
        f"{stage} ({short})" for stage, short in zip(aliases.STAGES, SHORT, strict=True)
    )
    typer.echo(
        f"An alias is simclrv2/STAGE/ARCHITECTURE, STAGE one of {stages}.\n"
        "/hub after it takes the TensorFlow 1 module, which holds the projection head too.\n"
        "Distilled networks and version 1: cortexflow checkpoint list --names"
    )


@app.command(epilog=SHOW_EXAMPLES)
def show(
    checkpoint: CheckpointArgument,
    every: Annotated[
        bool, typer.Option("--every", help="Also list each variable that is used.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show what a checkpoint holds: each variable used, unused, missing; whether answers agree.

    Of one that was not fetched yet, what is published about it. Fetches nothing; what was fetched
    once is kept as it was then.
    """
    from cli import progress
    from pipeline.workspace import Workspace
    from trainer.checkpoints import aliases, places

    published = aliases.known(checkpoint)
    url = published.url if published else checkpoint
    place = Path(checkpoint).expanduser()
    if "://" in url:
        place = places.kept_at(url, Workspace.at(workspace).pretrained)
        if not places.is_kept(place):
            _show_unfetched(url, published, as_json)
            return
        typer.echo(f"Kept as it was fetched; to fetch it anew, remove {place}", err=True)
    with progress.quiet_tensorflow():
        from trainer.checkpoints import conversion

        if conversion.is_model_folder(place):
            report = place / conversion.REPORT
            text = conversion.describe(place).model_dump_json(indent=2)
            text = report.read_text() if report.is_file() else text
        else:
            expected = published.backbone if published else None
            found = conversion.inspect(place, expected)
            text = found.json() if as_json else found.text(every=every)
    typer.echo(text.rstrip())


@app.command(epilog=FETCH_EXAMPLES)
def fetch(
    checkpoint: CheckpointArgument,
    image_size: Annotated[
        int, typer.Option(help="Pixels of the side of the images it will see.", min=32)
    ] = 64,
    channels: Annotated[int, typer.Option(help="1: grey images; 3: colour.", min=1, max=3)] = 1,
    classes: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME…",
            help="What the outputs of its supervised head mean, in order; keeps the head.",
        ),
    ] = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Download a checkpoint, verify it, and convert it; print the folder to start from.

    A download that was cut off goes on where it stopped. A run does all this by itself: name the
    checkpoint with --set pretrain=null --set checkpoint=CHECKPOINT.
    """
    from cli import progress
    from pipeline.workspace import Workspace
    from trainer.checkpoints import aliases

    if channels == 2:
        raise typer.BadParameter("must be 1 or 3 (received 2).", param_hint="--channels")
    aliases.known(checkpoint)  # a typo is told before TensorFlow is loaded
    cache = Workspace.at(workspace).pretrained
    names = tuple(name.strip() for name in classes.split(",") if name.strip())
    with _progress_bar() as told, progress.quiet_tensorflow():
        from trainer.checkpoints import conversion, fetching
        from trainer.config import InputSettings

        settings = InputSettings.model_validate({"image_size": image_size, "channels": channels})
        made = fetching.fetch(checkpoint, cache, settings, classes=names, progress=told)
        folder = made.folder
        layers = conversion.projection_layers(folder)
        doubt = conversion.unverified(folder)
    typer.echo(folder)
    if doubt:
        typer.echo(f"Warning: {doubt}. Nothing shows that it answers as the original.", err=True)
    selector = "" if layers else " --set teacher.ft_proj_selector=0"
    typer.echo(
        f"Use it: --set pretrain=null --set checkpoint={folder} --set input.image_size={image_size}"
        f" --set input.channels={channels}{selector}",
        err=True,
    )


def _show_unfetched(url: str, published: "Published | None", as_json: bool) -> None:
    import json

    if published is not None:
        _show_published(published, as_json)
    elif as_json:
        typer.echo(json.dumps({"url": url, "fetched": False}, indent=1))
    else:
        typer.echo(f"Not fetched yet: {url}\nTo fetch it: cortexflow checkpoint fetch {url}")


def _show_published(published: "Published", as_json: bool) -> None:
    import json

    from trainer.checkpoints.aliases import FIGURES, architecture_of

    architecture = architecture_of(published.backbone)
    figures = FIGURES.get(architecture)
    facts = {
        "alias": published.alias,
        "url": published.url,
        "architecture": architecture,
        "backbone": published.backbone.model_dump(),
        "parameters_millions": figures.parameters if figures else None,
        "imagenet_top1_percent": published.accuracy,
        "fetched": False,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    backbone, accuracy = published.backbone, published.accuracy
    rows = {
        "alias": published.alias,
        "address": published.url,
        "architecture": architecture,
        "depth": backbone.depth,
        "width": f"{backbone.width:g}×",
        "SK": "yes" if backbone.sk_ratio else "no",
        "params": f"{figures.parameters} M" if figures else "–",
        "ImageNet top-1": "–" if accuracy is None else f"{accuracy:.1f} %",
        "fetched": "no",
    }
    for name, value in rows.items():
        typer.echo(f"{name:<16}{value}")
    typer.echo(f"To fetch it: cortexflow checkpoint fetch {published.alias}")


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr with bytes per second and the time left; stdout carries the folder only."""
    import os

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    # A copy of stderr: TensorFlow's chatter on the original is sent away meanwhile.
    with os.fdopen(os.dup(2), "w") as terminal:
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=terminal),
            transient=True,
        )
        task = bar.add_task("")

        def told(name: str, done: int, total: int) -> None:
            if not bar.live.is_started:
                bar.start()
            bar.update(task, description=name, completed=done, total=total)

        try:
            yield told
        finally:
            if bar.live.is_started:
                bar.stop()
