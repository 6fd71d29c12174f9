"""ShuffleControl: the pipeline's tail once more, with labels permuted between people.

The run's teacher and student are trained again for a few epochs, from the same encoder, which knows
no labels, and judged on the test split. `evaluation.control` says what that proves.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Examples, Model

from components.artifacts import ControlDecision
from components.decisions import write_decision
from evaluation import control
from evaluation.config import ControlSettings
from evaluation.outcome import Check, Decision, Outcome, concluded
from schema import places
from schema.features import SPLITS
from trainer import bundle, examples, validation
from trainer.bundle import Bundle
from trainer.config import (
    DistilSettings,
    ExecutionSettings,
    FinetuneSettings,
    OptimizerSettings,
)
from trainer.errors import TrainingDiverged
from trainer.knobs import KNOBS, turned
from trainer.loop import Workspace
from trainer.pace import Progress, log_progress
from trainer.stages.distil import distil
from trainer.stages.finetune import finetune
from trainer.stages.trained import Trained

TRAIN, VAL, TEST = SPLITS
STAGES = ("teacher", "student")

NOBODY_CHOOSES = 10**9  # validation people wanted to choose an epoch by
# Of the rates tried, those by which the default networks learn a thousand images by heart soonest.
LEARNING_RATE = {"finetune": 2e-3, "distil": 3e-3}

Stage = TypeVar("Stage", FinetuneSettings, DistilSettings)


def eased(stage: Stage, max_epochs: int) -> Stage:
    """A stage as the control trains it: short, on one device, with nothing that hinders memorising.

    The run's own settings would hide a leak: with views that change and a gentle optimizer the
    networks learn nobody in eight epochs (measured on the quickstart's people: macro AUC .51 of the
    very people trained on), and score as chance does on a split of slices. The last epoch is kept:
    the best over validation people, whose labels mean nothing either, is one drawn by lot, mostly
    an early one (.56 where the last has .94). Scaling the temperature and training for int8 are
    left out because they learn no label.
    """
    execution = stage.execution
    epochs = min(stage.epochs, max_epochs)
    changes: dict = {
        "epochs": epochs,
        "augmentation": "none",
        "color_jitter_strength": type(stage).model_fields["color_jitter_strength"].default,
        "use_blur": type(stage).model_fields["use_blur"].default,
        "optimizer": OptimizerSettings(
            name="adamw",
            learning_rate=LEARNING_RATE[stage.stage],
            weight_decay=0.0,
            warmup_epochs=0.5,
        ),
        "execution": ExecutionSettings(
            precision=execution.precision,
            xla=execution.xla,
            accumulate=execution.accumulate,
            deterministic=execution.deterministic,
        ),
        "min_people_to_choose": NOBODY_CHOOSES,
        "calibrate": False,
    }
    if isinstance(stage, FinetuneSettings):
        changes |= {"imbalance": "none", "label_smoothing": 0.0}
    else:
        changes |= {"quantization_epochs": 0}
    return type(stage).model_validate({**dict(stage), **changes})


def rerun(
    splits: Mapping[str, examples.Examples],
    base: Bundle | None,
    teacher: FinetuneSettings,
    student: DistilSettings,
    *,
    classes: Sequence[str],
    settings: ControlSettings,
    progress: Progress = log_progress,
) -> Decision:
    """Trains teacher and student on permuted labels, and judges them on test people.

    Images without a label are left out: they could only learn from the teacher what it knows.

    Args:
        splits: `train`, `val` and `test`.
        base: what the run's teacher started from; None for a teacher from scratch.
        teacher: the run's.
        student: the run's.
        classes: class names; labels index it.
        settings: the control's.
        progress: hears of every finished epoch.

    Returns:
        The decision; its details besides those of `evaluation.control.decide`: `epochs` of each
        stage, and `seconds`. Insufficient evidence, with the reason, where people
        are not known, are too few, or the training diverged.
    """
    started = time.monotonic()
    try:
        shuffled = permuted({name: splits[name].labelled() for name in SPLITS}, settings.seed)
    except control.ControlError as error:
        return _insufficient("people to permute labels between", str(error))
    owners = {name: _owned(each) for name, each in shuffled.items()}
    if (doubt := control.untellable(owners, settings)) is not None:
        return concluded([doubt])
    workspace = Workspace(progress=progress)
    common = {"classes": classes, "workspace": workspace}
    first = eased(teacher, settings.max_epochs)
    second = eased(student, settings.max_epochs)
    train, val = shuffled[TRAIN], shuffled[VAL]
    try:
        with _last_epochs_are_meant():
            taught = finetune(first, train, val, base=base, **common)
            learnt = distil(second, train, val, base=taught.as_bundle(first, classes), **common)
    except TrainingDiverged as error:
        return _insufficient("a training that ends well", str(error))
    told: dict[str, dict[str, control.People]] = {"student": {}, "teacher": {}, "neighbour": {}}
    for name in (TEST, TRAIN):
        each = shuffled[name]
        told["student"][name] = people(learnt, each)
        told["teacher"][name] = people(taught, each)
        votes = control.neighbour_votes(
            train.images, train.labels, len(classes), None if name == TRAIN else each.images
        )
        told["neighbour"][name] = control.by_person(votes, each.labels, each.subjects)
    details = {
        "epochs": {"teacher": len(taught.history), "student": len(learnt.history)},
        "seconds": time.monotonic() - started,
    }
    return control.decide(told, settings, details=details)


def permuted(splits: Mapping[str, examples.Examples], seed: int) -> dict[str, examples.Examples]:
    """The same images with labels permuted between the people of all splits together.

    Raises:
        evaluation.control.ControlError: people are not known, or a person has two labels.
    """
    known = all(each.subjects is not None for each in splits.values())
    subjects = np.concatenate([each.subjects for each in splits.values()]) if known else None
    labels = np.concatenate([each.labels for each in splits.values()])
    drawn = control.permuted_labels(subjects, labels, seed).astype(np.int32)
    ends = np.cumsum([len(each) for each in splits.values()])[:-1]
    return {
        name: examples.Examples(each.images, own, each.subjects)
        for (name, each), own in zip(splits.items(), np.split(drawn, ends), strict=True)
    }


def people(trained: Trained, of: examples.Examples) -> control.People:
    """What a classifier says of each person."""
    logits = validation.predictor(trained.model)(of.images).astype(np.float64)
    probabilities = np.exp(validation.log_softmax(logits / trained.temperature))
    return control.by_person(probabilities, of.labels, of.subjects)


@contextmanager
def _last_epochs_are_meant() -> Iterator[None]:
    """Keeps validation from warning that people are too few to choose an epoch by."""
    level = validation.LOG.level
    validation.LOG.setLevel(logging.ERROR)
    try:
        yield
    finally:
        validation.LOG.setLevel(level)


def _owned(of: examples.Examples) -> np.ndarray:
    """The label of each person."""
    return of.labels[np.unique(of.subjects.astype(str), return_index=True)[1]]


def _insufficient(name: str, detail: str) -> Decision:
    return concluded([Check(name, Outcome.INSUFFICIENT, detail=detail)])


def read_splits(
    folder: str, stage: FinetuneSettings, classes: Sequence[str]
) -> dict[str, examples.Examples]:
    """Reads the three splits of an Examples artifact at the size that the teacher sees."""
    return {
        split: examples.read([os.path.join(folder, f"Split-{split}", "*")], stage.input, classes)
        for split in SPLITS
    }


class Executor(base_executor.BaseExecutor):
    """Reruns the tail with the run's own settings, knobs and all."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 (TFX's name)
        """Publishes the decision."""
        stages = {
            stage: turned(
                exec_properties[stage],
                {name: exec_properties.get(f"{stage}_{name}") for name in KNOBS},
            )
            for stage in STAGES
        }
        first = FinetuneSettings.model_validate_json(stages["teacher"])
        names = tuple(exec_properties["classes"].split(","))
        base = None
        if input_dict.get("base_model"):
            with places.fetched(artifact_utils.get_single_uri(input_dict["base_model"])) as folder:
                base = bundle.load(folder / "bundle")
        verdict = rerun(
            read_splits(artifact_utils.get_single_uri(input_dict["examples"]), first, names),
            base,
            first,
            DistilSettings.model_validate_json(stages["student"]),
            classes=names,
            settings=ControlSettings.model_validate_json(exec_properties["settings"]),
        )
        write_decision(verdict, artifact_utils.get_single_uri(output_dict["decision"]))


class ShuffleControlSpec(ComponentSpec):
    """`teacher`, `student`, `settings`: JSON. `classes`: names joined by commas. `code` is the hash
    of the code that trains and judges, for the cache. `base_model`: what the teacher starts from.
    """

    PARAMETERS = {  # noqa: RUF012 (TFX reads it from the class)
        **{name: ExecutionParameter(type=str) for name in (*STAGES, "classes", "settings", "code")},
        **{
            f"{stage}_{name}": ExecutionParameter(type=kind, optional=True)
            for stage in STAGES
            for name, (_, kind) in KNOBS.items()
        },
    }
    INPUTS = {  # noqa: RUF012
        "examples": ChannelParameter(type=Examples),
        "base_model": ChannelParameter(type=Model, optional=True),
    }
    OUTPUTS = {"decision": ChannelParameter(type=ControlDecision)}  # noqa: RUF012


class ShuffleControl(base_component.BaseComponent):
    """TFX node: publishes the decision."""

    SPEC_CLASS = ShuffleControlSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        *,
        base_model: BaseChannel | None = None,
        parameters: Mapping[str, Any] | None = None,
        **settings: str,
    ):
        """Takes what the run's teacher and student take.

        Args:
            examples: of all splits.
            base_model: what the run's teacher starts from.
            parameters: knobs as `teacher_epochs`, each a value or a runtime parameter.
            settings: `teacher`, `student`, `classes`, `settings` and `code`, as in the spec.
        """
        super().__init__(
            ShuffleControlSpec(
                examples=examples,
                base_model=base_model,
                decision=Channel(type=ControlDecision),
                **settings,
                **(parameters or {}),
            )
        )
