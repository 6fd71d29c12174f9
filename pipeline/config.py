"""The one config object from which every runner builds the same pipeline.

Frozen and validated; read from presets and `--set key=value`. Data only: no expression is ever
evaluated.
"""

import difflib
import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from evaluation.config import ControlSettings, DriftSettings, GateSettings, LeakageSettings
from pipeline.cluster import ClusterSettings
from schema.errors import CortexflowError
from serving.config import ProbeSettings
from trainer.config import (
    SMALLEST_IMAGE,
    DistilSettings,
    FinetuneSettings,
    PretrainSettings,
    Settings,
    StageSettings,
)

STAGES = ("pretrain", "teacher", "student")
# The third flag makes Beam's DirectRunner decline Prism, which it would first try to download.
BEAM_IN_PROCESS = (
    "--runner=DirectRunner",
    "--direct_running_mode=in_memory",
    "--allow_unsafe_triggers",
)


class PhantomSettings(Settings):
    """The built-in phantom: people per class in order of severity, slices each, pixels."""

    preset: Literal["realistic", "moderate", "standard", "easy", "null"] = "standard"
    subjects: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (60, 60, 60, 60)
    slices: PositiveInt = Field(8, le=32)
    size: int = Field(64, ge=64, le=224)
    site: int = Field(0, ge=0, le=2)
    seed: int = 7

    @field_validator("preset", mode="before")
    @classmethod
    def _null_is_a_name(cls, value: Any) -> Any:
        """`--set data.phantom.preset=null` means the phantom of this name, not JSON's null."""
        return "null" if value is None else value


class DataSettings(Settings):
    """Where the images come from and how people are divided between the splits."""

    # "phantom", or a folder of images, of TFRecords, or an imported dataset; null: to be given
    source: str | None = "phantom"
    spans: Literal["all", "latest"] = "all"  # what is trained on of a dataset that has grown
    phantom: PhantomSettings = PhantomSettings()
    layout: str = "auto"
    subject_regex: str | None = None
    unlabelled: str | None = None
    val_fraction: float = Field(0.15, gt=0.0, lt=1.0)
    test_fraction: float = Field(0.35, gt=0.0, lt=1.0)
    seed: int = 0
    max_quarantined: float = Field(0.05, ge=0.0, le=1.0)
    reproduce_shipped_split: bool = False


class PipelineConfig(Settings):
    """Everything that decides what a run does."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    model_name: str = Field("severity", pattern=r"^[a-z][a-z0-9_-]*$")
    data: DataSettings = DataSettings()
    schema_file: str | None = "curated"  # "curated", a path, or null: infer it from this data
    pretrain: PretrainSettings | None = PretrainSettings()  # null: from `checkpoint`, or scratch
    # In the Pretrainer's place: a folder that one exported, or a checkpoint of the public SimCLR
    # code by path, address or alias (`cortexflow checkpoint list`).
    checkpoint: str | None = None
    teacher: FinetuneSettings = FinetuneSettings()
    student: DistilSettings = DistilSettings()
    leakage: LeakageSettings = LeakageSettings()
    drift: DriftSettings = DriftSettings()
    control: ControlSettings = ControlSettings()
    gate: GateSettings = GateSettings()
    serving: ProbeSettings = ProbeSettings()  # limits of the trial before a push
    # Folder, gs://BUCKET/PATH or vertex://PROJECT/LOCATION/MODEL; null: the workspace's.
    registry: str | None = None
    # Of a local run. Where artifacts go: a folder, gs://… or s3://…; null: the workspace's.
    pipeline_root: str | None = None
    # ML Metadata: mysql://USER@HOST:PORT/DATABASE or postgresql://…, the password in
    # CORTEXFLOW_METADATA_PASSWORD; null: a SQLite file of the workspace.
    metadata: str | None = None
    cluster: ClusterSettings = ClusterSettings()
    beam_args: tuple[str, ...] = BEAM_IN_PROCESS

    @field_validator("metadata")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        """A password typed by mistake is refused here, where it is not repeated."""
        if value is not None:
            from pipeline import metadata

            metadata.parsed(value)
        return value

    @property
    def stages(self) -> dict[str, StageSettings]:
        """The stages that there are, by the names of their settings, in order."""
        named = {name: getattr(self, name) for name in STAGES}
        return {name: stage for name, stage in named.items() if stage is not None}

    @model_validator(mode="after")
    def _one_input(self) -> "PipelineConfig":
        if len({stage.input for stage in self.stages.values()}) > 1:
            raise ValueError(
                "pretrain.input, teacher.input and student.input must be equal (received "
                + ", ".join(f"{name}: {stage.input}" for name, stage in self.stages.items())
                + "). Set all of them, for example with --set input.image_size=96"
            )
        return self

    @model_validator(mode="after")
    def _one_strategy(self) -> "PipelineConfig":
        given = {
            name: f"{stage.execution.strategy}, replicas={stage.execution.replicas}"
            for name, stage in self.stages.items()
        }
        if len(set(given.values())) > 1:
            raise ValueError(
                "execution.strategy and execution.replicas must be equal for all stages, because "
                "TensorFlow divides the devices of a run once (received "
                + ", ".join(f"{name}: {text}" for name, text in given.items())
                + "). Set them for all, for example with --set execution.strategy=mirrored"
            )
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> "PipelineConfig":
        if self.pretrain is not None and self.checkpoint is not None:
            raise ValueError(
                f"both pretrain and checkpoint are set (received checkpoint={self.checkpoint!r}). "
                "Set pretrain=null to start from the checkpoint"
            )
        if self.pretrain is self.checkpoint is self.teacher.backbone is None:
            raise ValueError(
                "nothing to fine-tune: pretrain, checkpoint and teacher.backbone are null. Set "
                "teacher.backbone to train the teacher from scratch"
            )
        if self.checkpoint is not None and self.teacher.input.image_size < SMALLEST_IMAGE:
            raise ValueError(
                f"a checkpoint needs images of {SMALLEST_IMAGE} pixels or more (received "
                f"input.image_size={self.teacher.input.image_size}). Set "
                f"input.image_size={SMALLEST_IMAGE} or more"
            )
        return self

    @model_validator(mode="after")
    def _teacher_fits(self) -> "PipelineConfig":
        block, selector = self.teacher.fine_tune_after_block, self.teacher.ft_proj_selector
        if self.pretrain is self.checkpoint is None and block >= 0:
            raise ValueError(
                f"teacher.fine_tune_after_block={block} keeps a base model's lower layers, but "
                "pretrain and checkpoint are null, so they would stay random. Set "
                "teacher.fine_tune_after_block=-1 to train from scratch, or name a checkpoint"
            )
        if self.pretrain is None:
            return self
        if selector > self.pretrain.projection.layers:
            raise ValueError(
                f"teacher.ft_proj_selector={selector}, but pretrain.projection.layers="
                f"{self.pretrain.projection.layers}: there is no such layer to classify from. "
                "Lower the one or raise the other"
            )
        if self.pretrain is not None and self.teacher.backbone not in (
            None,
            self.pretrain.backbone,
        ):
            raise ValueError(
                f"teacher.backbone ({self.teacher.backbone}) is not pretrain.backbone "
                f"({self.pretrain.backbone}). Set teacher.backbone=null to go on from what was "
                "pretrained, or pretrain=null to train from scratch"
            )
        return self

    @model_validator(mode="after")
    def _views_differ(self) -> "PipelineConfig":
        if self.pretrain is not None and self.pretrain.augmentation == "none":
            raise ValueError(
                "pretraining needs two different views of an image (received "
                "pretrain.augmentation='none'). Set it to mri or simclr"
            )
        return self


class ConfigError(CortexflowError):
    """A setting is unknown or out of range."""


# --set input.image_size=96 sets all three stages, which must agree; execution.… likewise, of which
# strategy and replicas must agree, and the rest may differ.
SHARED = ("input.", "execution.")


def with_overrides(config: PipelineConfig, assignments: Iterable[str]) -> PipelineConfig:
    """Applies `key=value` assignments, such as `teacher.epochs=5`.

    Values are JSON (`5`, `0.1`, `true`, `null`, `[1,2]`); anything else is taken as text.

    Raises:
        ConfigError: no `=`, an unknown key, or a value out of range.
    """
    document = config.model_dump()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(
                f"A setting needs the form key=value (received {assignment!r}), "
                "for example --set teacher.epochs=5"
            )
        value = _value(text)
        if key.startswith(SHARED):
            for stage in STAGES:
                if document[stage] is not None:
                    _assign(document[stage], key, value)
        else:
            _assign(document, key, value)
    return validated(document)


def validated(document: dict[str, Any]) -> PipelineConfig:
    """Builds the config from a nested dict; every mistake is named, one of several stages once.

    Raises:
        ConfigError: with the path, the rule and the received value of each mistake.
    """
    try:
        return PipelineConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"Settings are not valid: {_told(error, document)}.") from None


def _told(error: ValidationError, document: dict[str, Any]) -> str:
    """Every mistake with its place; what several stages have in common is told once."""
    places: dict[tuple[str, str], list[str]] = {}
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not isinstance(problem["input"], dict):
            message += f" (received {problem['input']!r})"
        head, *rest = map(str, problem["loc"] or ("config",))
        below = ".".join(rest)
        if head in STAGES:
            places.setdefault((below, message), []).append(head)
        else:
            places[".".join([head, *rest]), message] = []
    stages = [stage for stage in STAGES if document.get(stage) is not None]
    return "; ".join(
        f"{_place(below, heads, stages)}: {message}" for (below, message), heads in places.items()
    )


def _place(below: str, heads: list[str], stages: list[str]) -> str:
    if not heads or (below and heads == stages):
        return below
    return ", ".join(f"{head}.{below}".rstrip(".") for head in heads)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(document: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    node = document
    for depth, name in enumerate([*parents, leaf]):
        if not isinstance(node, dict) or name not in node:
            known = sorted(node) if isinstance(node, dict) else []
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {'.'.join([*parents[:depth], near[0]])!r}?" if near else ""
            raise ConfigError(
                f"No setting {key!r}.{hint} Known here: {', '.join(known) or 'nothing'}."
            )
        if depth < len(parents):
            node = node[name]
    node[leaf] = value
