"""`cortexflow schedule`: runs that recur, on Kubeflow and Vertex AI."""

import datetime
from typing import Annotated

import typer

from cli import backend_options as options
from cli import plans
from cli.run import WorkspaceOption

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Run a preset again and again: add, list, pause, resume, delete.",
)

ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Schedule id.")]


@app.command(
    "add",
    epilog=options.examples(
        'schedule add mri --cron "0 3 * * *" --on kubeflow://kfp.example.org/team',
    ),
)
def add(
    preset: options.PresetArgument,
    cron: Annotated[str, typer.Option(metavar='"M H D M W"', help="Five fields of cron, in UTC.")],
    on: options.TargetOption,
    data: options.DataOption = None,
    settings: options.SettingsOption = None,
    parameters: options.ParametersOption = None,
    experiment: options.ExperimentOption = "",
    name: options.NameOption = None,
    labels: options.LabelsOption = None,
    catch_up: Annotated[
        bool, typer.Option(help="Make up for runs that were missed while it was paused.")
    ] = False,
    max_concurrent: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
    start: options.StartOption = None,
    end: options.EndOption = None,
    no_cache: options.CacheOption = False,
    dry_run: options.DryRunOption = False,
    image: options.ImageOption = None,
    pipeline_root: options.RootOption = "",
    spec: options.SpecOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a preset again and again, on Kubeflow or Vertex AI."""
    from pipeline.backends.cron import checked
    from pipeline.backends.interface import Recurrence
    from pipeline.backends.opening import open_cluster

    backend, expression = open_cluster(on), checked(cron)
    config = plans.config_of(preset, settings, image)
    plan = plans.planned(
        config, on, data, parameters, pipeline_root, spec, workspace, dry_run=dry_run
    )
    tags, called = plans.labels_of(labels), name or preset
    if dry_run:
        told = {"cron": expression, "catch-up": "yes" if catch_up else "no"}
        plans.show(plan, on, config, name=called, experiment=experiment, labels=tags, **told)
        return
    plans.place(plan)
    request = plan.request(called, config, experiment, tags, cache=not no_cache)
    recurrence = Recurrence(
        cron=expression,
        catch_up=catch_up,
        max_concurrent=max_concurrent,
        start=start and start.replace(tzinfo=datetime.UTC),
        end=end and end.replace(tzinfo=datetime.UTC),
    )
    made = backend.schedule(plan.text, request, recurrence)
    typer.echo(f"schedule {made.id}")
    typer.echo(made.url)


@app.command("list", epilog=options.examples("schedule list --on vertex://my-project/europe-west4"))
def list_schedules(on: options.TargetOption) -> None:
    """List schedules."""
    from cli import backend_tables
    from pipeline.backends.opening import open_cluster

    backend_tables.show_schedules(open_cluster(on).schedules(), on)


@app.command(epilog=options.examples("schedule pause 5c1d… --on kubeflow://kfp.example.org/team"))
def pause(schedule_id: ScheduleArgument, on: options.TargetOption) -> None:
    """Start nothing more until `resume`."""
    from pipeline.backends.opening import open_cluster

    open_cluster(on).set_enabled(schedule_id, False)
    typer.echo(f"{schedule_id} is paused.")


@app.command(epilog=options.examples("schedule resume 5c1d… --on kubeflow://kfp.example.org/team"))
def resume(schedule_id: ScheduleArgument, on: options.TargetOption) -> None:
    """Go on."""
    from pipeline.backends.opening import open_cluster

    open_cluster(on).set_enabled(schedule_id, True)
    typer.echo(f"{schedule_id} goes on.")


@app.command(epilog=options.examples("schedule delete 5c1d… --on kubeflow://kfp.example.org/team"))
def delete(schedule_id: ScheduleArgument, on: options.TargetOption) -> None:
    """Remove a schedule; runs that it started go on."""
    from pipeline.backends.opening import open_cluster

    open_cluster(on).unschedule(schedule_id)
    typer.echo(f"{schedule_id} is removed.")
