"""The teacher: a pretrained backbone learns the classes (SimCLRv2, section 2.2)."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer import architectures, loop, losses, sampling, validation
from trainer.architectures import Teacher, TeacherArchitecture
from trainer.augmentation import augment
from trainer.bundle import Bundle
from trainer.config import FinetuneSettings, ProjectionSettings
from trainer.draws import Draw
from trainer.errors import StageError
from trainer.examples import Examples
from trainer.execution import Execution
from trainer.loop import Training, Workspace
from trainer.optimizers import build_optimizer
from trainer.preprocessing import scale
from trainer.stages.trained import Trained


def finetune(
    settings: FinetuneSettings,
    examples: Examples,
    held_out: Examples,
    *,
    classes: Sequence[str],
    base: Bundle | None,
    workspace: Workspace,
) -> Trained:
    """Trains a classifier on labelled images, from a base model or from nothing.

    Args:
        settings: the stage's.
        examples: to train on; those without a label are left out.
        held_out: validation examples, of other people.
        classes: class names; labels index it.
        base: an encoder, or an earlier teacher; `None` trains `settings.backbone` from scratch.
        workspace: where state and logs go.

    Returns:
        The teacher of the epoch with the best macro AUC over validation people.

    Raises:
        StageError: settings and base model do not fit.
        TrainingDataError: no labelled examples, or validation examples of one class only.
        TrainingDiverged: the loss stopped being a number.
    """
    examples, held_out = examples.labelled(), held_out.labelled()
    architecture = _architecture(settings, len(classes), base)
    execution = Execution(settings.execution)
    batch = sampling.batch_of(len(examples), settings.batch_size)
    with execution.scope():
        model = architectures.build("teacher", architecture, settings.input, settings.seed)
        if base is not None:
            _transfer(base, model, classes)
        optimizer = build_optimizer(
            settings.optimizer,
            model=model,
            steps_per_epoch=-(-len(examples) // batch),
            epochs=settings.epochs,
            batch_size=batch,
        )
    levels, labels = tf.constant(examples.images), tf.constant(examples.labels)

    def objective(indices: tf.Tensor, draw: Draw) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        images = augment(scale(tf.gather(levels, indices)), settings.augmentation, draw=draw)
        truth = tf.gather(labels, indices)
        logits = model(images, training=True)
        loss = losses.weighted_cross_entropy(
            truth, logits, label_smoothing=settings.label_smoothing
        )
        guesses = tf.argmax(logits, axis=1, output_type=truth.dtype)
        return loss, {"accuracy": tf.reduce_mean(tf.cast(guesses == truth, tf.float32))}

    def batches(random: np.random.Generator) -> np.ndarray:
        if settings.imbalance == "balanced_sampling":
            return sampling.balanced(examples.labels, batch, random)
        return sampling.shuffled(len(examples), batch, random)

    training = Training(
        stage="finetune",
        model=model,
        optimizer=optimizer,
        epochs=settings.epochs,
        seed=settings.seed,
        batches=batches,
        step=execution.compile(model, optimizer, objective),
        execution=execution,
        validate=validation.validator(model, held_out),
        score=validation.score,
        patience=settings.early_stopping_patience,
        checkpoint_every_epochs=settings.checkpoint_every_epochs,
    )
    history = loop.run(training, workspace)
    kept = execution.release("teacher", architecture, settings.input, model)
    return Trained("teacher", kept, architecture, history)


def _architecture(
    settings: FinetuneSettings, classes: int, base: Bundle | None
) -> TeacherArchitecture:
    selector = settings.ft_proj_selector
    if base is None:
        if settings.backbone is None:
            raise StageError(
                "Fine-tuning without a base model needs `backbone` (received None). Connect a "
                "pretraining stage, or set teacher.backbone to train from scratch."
            )
        return TeacherArchitecture(backbone=settings.backbone, classes=classes)
    if base.description.kind not in ("encoder", "teacher"):
        raise StageError(
            f"A teacher starts from an encoder or a teacher (received a {base.description.kind})."
        )
    if base.description.input != settings.input:
        raise StageError(
            f"The base model sees {base.description.input}, this stage {settings.input}. "
            "Set both to the same input."
        )
    origin: architectures.EncoderArchitecture | TeacherArchitecture = base.model.architecture
    if settings.backbone not in (None, origin.backbone):
        raise StageError(
            f"The base model's backbone is {origin.backbone}, this stage asks for "
            f"{settings.backbone}. Set teacher.backbone to null to take the base model's, or drop "
            "the base model to train from scratch."
        )
    projection = _projection(base, selector)
    return TeacherArchitecture(
        backbone=origin.backbone, projection=projection, ft_proj_selector=selector, classes=classes
    )


def _projection(base: Bundle, selector: int) -> ProjectionSettings:
    projection: ProjectionSettings = base.model.architecture.projection
    available = projection.layers if base.model.projection is not None else 0
    if selector > available:
        raise StageError(
            f"ft_proj_selector={selector}, but the base model has {available} projection layers. "
            f"Choose 0 to {available}."
        )
    return projection


def _transfer(base: Bundle, model: Teacher, classes: Sequence[str]) -> None:
    """Copies what both models have: backbone, projection, and the head if it names the same."""
    _copy(base.model.backbone, model.backbone)
    if model.projection is not None:
        _copy(base.model.projection, model.projection)
    same_head = (
        base.description.kind == "teacher"
        and base.description.classes == tuple(classes)
        and base.model.architecture.ft_proj_selector == model.architecture.ft_proj_selector
    )
    if same_head:
        _copy(base.model.head, model.head)


def _copy(source, target) -> None:
    target.set_weights(source.get_weights())
