"""The label-shuffle control of a run that is over: artifacts found, the answer kept and drawn."""

import dataclasses
import io
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.config import ControlSettings
from evaluation.outcome import Decision, to_json
from ingest.atomic import sync_folder, write_text
from pipeline import lineage, metadata, runs
from pipeline.lineage import ArtifactRef
from pipeline.workspace import Workspace
from schema import places
from schema.errors import CortexflowError
from schema.features import SPLITS
from trainer.config import DistilSettings, FinetuneSettings
from trainer.pace import Progress, log_progress

ENCODERS = {"Pretrainer": "model", "Checkpoint": "result"}  # node → output key
TITLES = {"student": "Student", "teacher": "Teacher", "neighbour": "Nearest training image"}
INK, MUTED, BAND, ALARM = "#1d2733", "#66717f", "#dfe4ea", "#b3261e"
DPI = 144


class ArtifactsGone(CortexflowError):
    """A run has not, or no longer, what a control of it needs."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a control of one run needs.

    Attributes:
        run: its id.
        folder: where the answer goes.
        examples: place of the Examples artifact.
        encoder: place of the model that the run's teacher started from; None from scratch.
        classes: names by label.
        teacher, student: the run's settings.
        settings: the control's.
        seconds: about how long it will take, by how long the run's own epochs took.
    """

    run: str
    folder: Path
    examples: str
    encoder: str | None
    classes: tuple[str, ...]
    teacher: FinetuneSettings
    student: DistilSettings
    settings: ControlSettings
    seconds: float


def plan(
    workspace: Workspace, run_id: str, *, epochs: int | None = None, seed: int | None = None
) -> Plan:
    """Finds a run's examples and encoder, through ML Metadata.

    Args:
        workspace: where the run kept its things.
        run_id: its id, or `latest`.
        epochs: in place of the run's `control.max_epochs`.
        seed: in place of its `control.seed`.

    Raises:
        UnknownRun: there is no such run.
        ArtifactsGone: it ended before its student was trained, or its files were removed.
        pydantic.ValidationError: a setting is out of its range.
    """
    folder = runs.find(workspace, run_id)
    record, config = folder.read(), folder.read_config()
    nodes = lineage.outputs_of_nodes(metadata.database(config, workspace), record.nodes)

    def found(node: str, key: str) -> str:
        artifacts = [each for each in nodes.get(node, ()) if each.key == key]
        return _present(artifacts, node, record.id)

    examples = found("ImageExampleGen", "examples")
    for split in SPLITS:
        if not places.listed(places.below(examples, f"Split-{split}")):
            raise ArtifactsGone(
                f"The examples of {record.id} have no files of the split {split!r} any more "
                f"(looked in {examples}). Run the preset again."
            )
    encoders = [found(node, key) for node, key in ENCODERS.items() if node in nodes]
    if not encoders and (config.pretrain or config.checkpoint):
        _present([], "Pretrainer", record.id)
    teacher, student = found("Teacher", "model"), found("Student", "model")
    changes = {"max_epochs": epochs, "seed": seed}
    given = {name: value for name, value in changes.items() if value is not None}
    settings = ControlSettings.model_validate({**config.control.model_dump(), **given})
    stages = ((teacher, config.teacher.epochs), (student, config.student.epochs))
    return Plan(
        run=record.id,
        folder=folder.path / "controls",
        examples=examples,
        encoder=encoders[0] if encoders else None,
        classes=tuple(_read(places.below(teacher, "bundle", "model.json"))["classes"]),
        teacher=config.teacher,
        student=config.student,
        settings=settings,
        seconds=sum(_seconds(path, min(most, settings.max_epochs)) for path, most in stages),
    )


def rerun(found: Plan, progress: Progress = log_progress) -> Decision:
    """Trains and judges, as the node `ShuffleControl` does in a run."""
    from components import shuffle_control
    from trainer import bundle

    base = None
    if found.encoder is not None:
        with places.fetched(places.below(found.encoder, "bundle")) as folder:
            base = bundle.load(folder)
    return shuffle_control.rerun(
        shuffle_control.read_splits(found.examples, found.teacher, found.classes),
        base,
        found.teacher,
        found.student,
        classes=found.classes,
        settings=found.settings,
        progress=progress,
    )


def save(found: Plan, decision: Decision) -> list[Path]:
    """Keeps the answer in the run's folder: JSON, and where an AUC was measured a picture.

    Returns:
        The files, named after the control's seed and epochs.
    """
    name = f"shuffle-seed{found.settings.seed}-epochs{found.settings.max_epochs}"
    document, picture = (found.folder / f"{name}{suffix}" for suffix in (".json", ".png"))
    write_text(document, to_json(decision) + "\n")
    if "auc" not in decision.details:
        picture.unlink(missing_ok=True)  # of an earlier answer
        return [document]
    draft = picture.with_name(f".{picture.name}")
    draft.write_bytes(draw(decision, found.run))
    draft.replace(picture)
    sync_folder(found.folder)
    return [document, picture]


def draw(decision: Decision, run: str) -> bytes:
    """Draws what chance gives, its band, and what was found, for each that was asked.

    Args:
        decision: of `evaluation.control.decide`.
        run: the run's id, for the title.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    details = decision.details
    shown = {name: details if name == "student" else details[name] for name in TITLES}
    figure = Figure((9.6, 3.2), dpi=DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(
        f"Label-shuffle control of {run}: {decision.outcome.value}",
        x=0.01, ha="left", fontsize=11, color=INK, weight="bold", parse_math=False,
    )  # fmt: skip
    panels = figure.subplots(1, len(shown), sharex=True)
    for axes, (name, measured) in zip(panels, shown.items(), strict=True):
        _panel(axes, TITLES[name], measured)
    people = details["people"]["test"]
    figure.supxlabel(
        f"macro AUC of {people} test people; grey: labels dealt at random, and their band",
        fontsize=9, color=MUTED,
    )  # fmt: skip
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Any, title: str, measured: Mapping[str, Any]) -> None:
    auc, low, high = (measured[key] for key in ("auc", "low", "high"))
    null = measured["null"]
    colour = INK if low <= auc <= high else ALARM
    axes.axvspan(low, high, color=BAND, linewidth=0)
    axes.stairs(null["counts"], null["edges"], fill=True, color=MUTED, alpha=0.7, linewidth=0)
    axes.axvline(auc, color=colour, linewidth=2.2)
    axes.set_title(f"{title}: {auc:.3f}", loc="left", fontsize=10, color=colour)
    axes.set(yticks=[], xlim=(-0.02, 1.02), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.tick_params(colors=MUTED, labelsize=8.5)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)


def _present(artifacts: list[ArtifactRef], node: str, run: str) -> str:
    if not artifacts:
        raise ArtifactsGone(
            f"{run} has no output of its node {node}: the run ended before it, or the metadata "
            "are gone. A control needs a run that has trained its student."
        )
    place = artifacts[0].uri
    if not places.exists(place):
        raise ArtifactsGone(
            f"What {node} of {run} wrote is gone (looked for {place}). Run the preset again: nodes "
            "whose files are there come from the cache."
        )
    return place


def _read(place: str) -> Any:
    try:
        return json.loads(places.read_bytes(place))
    except OSError as error:
        raise ArtifactsGone(
            f"{place} cannot be read ({error.strerror or error}). Run the preset again."
        ) from error


def _seconds(model: str, epochs: int) -> float:
    """What so many epochs cost by a model's history; the first step compiles."""
    history = _read(places.below(model, "bundle", "history.json"))
    first = sum(epoch.get("first_step_seconds", 0.0) for epoch in history)
    usual = statistics.median(
        epoch["seconds"] - epoch.get("first_step_seconds", 0.0) + epoch["validation_seconds"]
        for epoch in history
    )
    return first + epochs * usual
