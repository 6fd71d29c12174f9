"""`cortexflow run`, `runs`, `show`, `report`, `predict`: the pipeline from the command line."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.backend_options import OnOption, complete_preset

app = typer.Typer(no_args_is_help=True)

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        envvar="CORTEXFLOW_WORKSPACE",
        show_default="./workspace",
        help="Folder for data, runs, metadata and the registry.",
    ),
]


def complete_run(incomplete: str) -> list[str]:
    """Run ids for tab completion."""
    from pipeline import runs
    from pipeline.workspace import Workspace

    ids = [record.id for record in runs.listed(Workspace.at())]
    return [run_id for run_id in ["latest", *ids] if run_id.startswith(incomplete)]


RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id, or `latest`.", autocompletion=complete_run)
]


@app.command()
def run(
    preset: Annotated[
        str, typer.Argument(help="`quickstart` or `mri`.", autocompletion=complete_preset)
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Folder of images, of TFRecords, or an imported dataset; or `phantom`."),
    ] = None,
    subject_regex: Annotated[
        str | None, typer.Option(help="First group in a file's path is its subject.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting; VALUE is JSON, else text; repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last unfinished run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the settings and the plan; do nothing.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a preset end to end: ingest, validate, train, judge, push, report.

    Exit code 0: the model passed and is live. 2: refused. 3: insufficient evidence. 1: an error.
    143: stopped by SIGTERM; --resume goes on.

        cortexflow run quickstart
        cortexflow run mri --data slices/ --subject-regex '(subj\\d+)'
        cortexflow run quickstart --set teacher.epochs=5 --dry-run
    """
    from cli import progress, tables
    from pipeline import presets, runs
    from pipeline.config import with_overrides
    from pipeline.workspace import Workspace

    place = Workspace.at(workspace)
    assignments = [*(settings or [])]
    if data is not None:
        # Absolute, so that --resume finds it from any folder; as JSON, so that 2024 stays a name.
        source = data if data == "phantom" else str(Path(data).expanduser().resolve())
        assignments.append(f"data.source={json.dumps(source)}")
    if subject_regex is not None:
        assignments.append(f"data.subject_regex={json.dumps(subject_regex)}")
    if resume:
        if assignments:
            raise typer.BadParameter("--resume goes on with the settings the run was started with.")
        folder = runs.last_unfinished(place, preset)
        config = folder.read_config()
    else:
        config = with_overrides(presets.load(preset), assignments)
    if dry_run:
        tables.show_plan(config, presets.describe(preset), place)
        return
    from pipeline.execution import check_local, execute, locked

    check_local(config)
    with locked(place, config.name):
        if resume:
            record = runs.reopen(folder)
        else:
            command = shlex.join(["cortexflow", *sys.argv[1:]])
            folder, record = runs.create(place, config, preset, command)
        with progress.running(folder) as on_node:
            record = execute(config, place, folder, record, on_node)
    tables.show_outcome(folder, record, place, config)
    raise typer.Exit(record.exit_code)


@app.command("runs")
def list_runs(on: OnOption = "local", workspace: WorkspaceOption = None) -> None:
    """List all runs with their outcome; of a cluster the newest.

    cortexflow runs
    cortexflow runs --on vertex://my-project/europe-west4
    """
    if on != "local":
        from cli import backend_tables
        from pipeline.backends.opening import open_cluster

        backend_tables.show_runs(open_cluster(on).runs(), on)
        return
    from cli import tables
    from pipeline import runs
    from pipeline.workspace import Workspace

    tables.show_runs(runs.listed(Workspace.at(workspace)))


@app.command()
def show(
    run_id: RunArgument = "latest", on: OnOption = "local", workspace: WorkspaceOption = None
) -> None:
    """Show a run: its nodes, artifacts and metrics.

    cortexflow show
    cortexflow show quickstart-20260101-120000
    cortexflow show latest --on kubeflow://kfp.example.org/team
    """
    if on != "local":
        from cli import backend_tables
        from pipeline.backends.opening import named_run, open_cluster

        backend = open_cluster(on)
        backend_tables.show_run(backend.get(named_run(backend, run_id)))
        return
    from cli import tables
    from pipeline import runs
    from pipeline.workspace import Workspace

    place = Workspace.at(workspace)
    tables.show_run(runs.find(place, run_id), place)


@app.command()
def report(
    run_id: RunArgument = "latest",
    out: Annotated[
        Path | None, typer.Option(help="Write here instead of into the run's folder.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a run's report again from its evidence: one HTML file.

    cortexflow report
    cortexflow report latest --out report.html
    """
    from components.report import html
    from pipeline import documents, runs
    from pipeline.workspace import Workspace

    place = Workspace.at(workspace)
    folder = runs.find(place, run_id)
    target = out or folder.report
    html.write(documents.saved(folder, place), target)
    typer.echo(target)


@app.command()
def predict(
    images: Annotated[
        list[Path], typer.Argument(help="PNG or JPEG slices.", exists=True, dir_okay=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="the only one there is")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Version; default: the live one.")] = None,
    input_gate: Annotated[
        bool, typer.Option(help="Refuse images unlike those the model was trained on.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Predict images with the live version. Research use only, not for diagnosis.

    cortexflow predict slice.png
    cortexflow predict *.png --json
    """
    from cli import progress, tables
    from pipeline.prediction import predict_files
    from pipeline.workspace import Workspace

    with progress.quiet_tensorflow():
        registry = Workspace.at(workspace).registry
        answer = predict_files(registry, images, name, version, input_gate=input_gate)
    if as_json:
        tables.print_json_lines(answer)
    else:
        tables.show_predictions(answer)
