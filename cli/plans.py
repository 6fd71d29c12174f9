"""What `submit` and `schedule add` have in common: from their options to what is sent."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pipeline.backends.submission import Submission
    from pipeline.config import PipelineConfig


def config_of(preset: str, settings: list[str] | None, image: str | None) -> "PipelineConfig":
    """A preset's settings with what was overridden."""
    from pipeline import presets
    from pipeline.config import with_overrides

    assignments = [*(settings or [])]
    if image is not None:
        assignments.append(f"cluster.image={json.dumps(image)}")
    return with_overrides(presets.load(preset), assignments)


def planned(
    config: "PipelineConfig",
    on: str,
    data: str | None,
    parameters: list[str] | None,
    root: str,
    spec: Path | None,
    workspace: Path | None,
    *,
    dry_run: bool,
) -> "Submission":
    """Data made ready, pipeline compiled, parameters settled; nothing sent."""
    from cli import progress
    from pipeline.backends import submission
    from pipeline.backends.opening import target_of
    from schema.places import is_remote

    target = target_of(on)
    assert target is not None
    known = list(parameters or [])
    with progress.quiet_tensorflow():
        found: str | Path | None = data
        if data is not None and not is_remote(data):
            found = _dataset(config, data, workspace, dry_run=dry_run)
        if data is not None and found is None:  # of a dry run: not imported yet
            known.append(f"{submission.DATASET}=(below the pipeline root, once it is imported)")
        return submission.prepare(
            config, target, data=found, assignments=known, root=root, file=spec
        )


def _dataset(
    config: "PipelineConfig", data: str, workspace: Path | None, *, dry_run: bool
) -> Path | None:
    """The imported dataset; None in a dry run where it would have to be imported first."""
    from pipeline.inputs import prepare_dataset
    from pipeline.workspace import Workspace

    source = data if data == "phantom" else str(Path(data).expanduser().resolve())
    if dry_run and not (Path(source) / "dataset.json").is_file():
        return None
    wanted = config.data.model_copy(update={"source": source})
    return prepare_dataset(wanted, Workspace.at(workspace), lambda state: None)


def place(plan: "Submission") -> None:
    """Copies the dataset, and says so."""
    from cli import progress

    if plan.dataset is None:
        return
    with progress.quiet_tensorflow():
        copied = plan.place_dataset()
    typer.echo(f"dataset {plan.parameters['dataset']} {'copied' if copied else '(there already)'}")


def show(
    plan: "Submission",
    on: str,
    config: "PipelineConfig",
    *,
    name: str,
    experiment: str,
    labels: dict[str, str],
    **more: str,
) -> None:
    """Prints what would be sent."""
    from cli import backend_tables

    told = {
        "name": name,
        "experiment": experiment,
        "service account": config.cluster.service_account,
    }
    told |= {"labels": ", ".join(f"{key}={value}" for key, value in labels.items()), **more}
    backend_tables.show_plan(plan, on, {key: value for key, value in told.items() if value})


def labels_of(assignments: list[str] | None) -> dict[str, str]:
    """Labels of `KEY=VALUE` texts."""
    found = {}
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE.", param_hint="--label")
        found[key] = value
    return found
