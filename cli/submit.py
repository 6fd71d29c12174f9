"""`cortexflow submit`, `logs`, `stop`: runs on Kubeflow, on Vertex AI and on this machine."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import backend_options as options
from cli import plans
from cli.run import WorkspaceOption, complete_run

if TYPE_CHECKING:
    from pipeline.backends.interface import Backend, Watched
    from pipeline.backends.local import LocalBackend

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
INTERRUPTED = 130  # as shells have it: 128 and the number of Ctrl-C's signal

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id.", autocompletion=complete_run)
]


@app.command(
    epilog=options.examples(
        "submit quickstart --on kubeflow://kfp.example.org/team --data phantom --wait",
        "submit mri --on vertex://my-project/europe-west4 --data slices/ --dry-run",
        "submit mri --on vertex://my-project/europe-west4 --spec mri-vertex.yaml --timeout 300",
        "submit quickstart --on local --wait",
    )
)
def submit(
    preset: options.PresetArgument,
    on: options.TargetOption,
    data: options.DataOption = None,
    settings: options.SettingsOption = None,
    parameters: options.ParametersOption = None,
    experiment: options.ExperimentOption = "",
    name: options.NameOption = None,
    labels: options.LabelsOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it; the exit code is the run's.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="MINUTES", min=0, help="How long to wait.")
    ] = None,
    no_cache: options.CacheOption = False,
    dry_run: options.DryRunOption = False,
    image: options.ImageOption = None,
    pipeline_root: options.RootOption = "",
    spec: options.SpecOption = None,
    keep: Annotated[
        str,
        typer.Option(
            metavar="VERSION",
            help="Also keep the compiled pipeline under this name, and run that version; Kubeflow.",
        ),
    ] = "",
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks of --wait.")
    ] = 10.0,
    workspace: WorkspaceOption = None,
) -> None:
    """Start a run of a preset on Kubeflow, on Vertex AI, or here in the background.

    It is compiled here, with `--data` imported here and copied below the pipeline root. With --wait
    the exit code is the run's: 0 passed, 2 refused, 3 insufficient evidence, 130 stopped, and 1
    where anything else failed.
    """
    from pipeline.backends.opening import open_backend, open_cluster, target_of

    if target_of(on) is None:
        foreign = {
            "--param": parameters,
            "--experiment": experiment,
            "--name": name,
            "--label": labels,
            "--no-cache": no_cache,
            "--image": image,
            "--pipeline-root": pipeline_root,
            "--spec": spec,
            "--keep": keep,
        }
        _refuse([option for option, value in foreign.items() if value])
        _submit_here(preset, data, settings or [], workspace, dry_run=dry_run)
        if dry_run:
            return
        here: LocalBackend = open_backend(on, workspace)  # type: ignore[assignment]
        started = here.start(_run_arguments(preset, data, settings or []))
        typer.echo(f"run {started.id}")
        if wait:
            raise typer.Exit(_follow(here, started.id, timeout, interval))
        return
    config = plans.config_of(preset, settings, image)
    plan = plans.planned(
        config, on, data, parameters, pipeline_root, spec, workspace, dry_run=dry_run
    )
    tags = plans.labels_of(labels)
    called = name or f"{preset}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
    if dry_run:
        plans.show(plan, on, config, name=called, experiment=experiment, labels=tags)
        return
    backend = open_cluster(on)
    plans.place(plan)
    if keep:
        typer.echo(
            f"version {keep}: {backend.upload(plan.text, name=plan.package.name, version=keep)}"
        )
    request = plan.request(called, config, experiment, tags, cache=not no_cache)
    run = backend.submit(plan.text, request, version=keep)
    typer.echo(f"run {run.id}")
    typer.echo(run.url)
    if wait:
        raise typer.Exit(_follow(backend, run.id, timeout, interval))


@app.command(
    epilog=options.examples(
        "logs latest --follow",
        "logs 6f1c0c1e-… Teacher --on kubeflow://kfp.example.org/team",
    )
)
def logs(
    run_id: RunArgument,
    node: Annotated[
        str | None,
        typer.Argument(help="One node; default: all.", autocompletion=options.complete_node),
    ] = None,
    on: options.OnOption = "local",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Print a run's log, or that of one of its nodes."""
    from pipeline.backends.opening import named_run, open_backend

    backend = open_backend(on, workspace)
    for line in backend.logs(named_run(backend, run_id), node, follow=follow):
        typer.echo(line)


@app.command(
    epilog=options.examples("stop latest", "stop mri-1 --on vertex://my-project/europe-west4")
)
def stop(
    run_id: RunArgument, on: options.OnOption = "local", workspace: WorkspaceOption = None
) -> None:
    """Stop a run. A training keeps its state, from which a later run goes on."""
    from pipeline.backends.opening import named_run, open_backend

    backend = open_backend(on, workspace)
    run_id = named_run(backend, run_id)
    backend.stop(run_id)
    typer.echo(f"{run_id} is being stopped: cortexflow show {run_id} --on {on}")


def _refuse(foreign: Sequence[str]) -> None:
    if foreign:
        raise typer.BadParameter(
            f"{', '.join(foreign)} is for clusters; a run on this machine takes --data and --set."
        )


def _run_arguments(preset: str, data: str | None, settings: Sequence[str]) -> list[str]:
    """The arguments of `cortexflow run`."""
    found = [preset, *(["--data", data] if data else [])]
    for assignment in settings:
        found += ["--set", assignment]
    return found


def _submit_here(
    preset: str, data: str | None, settings: Sequence[str], workspace: Path | None, *, dry_run: bool
) -> None:
    """Checks the settings before a process is started; of a dry run shows them."""
    from cli import tables
    from pipeline import presets
    from pipeline.config import with_overrides
    from pipeline.workspace import Workspace

    config = with_overrides(presets.load(preset), settings)
    if dry_run:
        tables.show_plan(config, presets.describe(preset), Workspace.at(workspace))


def _follow(
    backend: "Watched | Backend", run_id: str, minutes: float | None, interval: float
) -> int:
    """Waits for a run; returns its exit code."""
    from cli import backend_tables
    from pipeline.backends.following import follow
    from pipeline.backends.interface import EXIT_CODES

    try:
        with backend_tables.Followed() as followed:
            run = follow(
                backend,
                run_id,
                on_run=followed.on_run,
                on_task=followed.on_task,
                minutes=minutes,
                interval=interval,
            )
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; end it with: cortexflow stop {run_id} --on {backend.uri}")
        return INTERRUPTED
    backend_tables.show_status(run)
    return EXIT_CODES[run.status]
