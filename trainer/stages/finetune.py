"""The teacher: a pretrained backbone learns the classes (SimCLRv2, section 2.2).

All of it learns, or what stands above `fine_tune_after_block`. Where the whole backbone is frozen
and images are not augmented, its features cannot change: they are computed once, and an epoch costs
the products of a few small matrices.
"""

import logging
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer import architectures, augmentation, calibration, loop, losses, sampling, validation
from trainer.architectures import Classifier, Teacher, TeacherArchitecture
from trainer.bundle import Bundle
from trainer.config import FinetuneSettings, ProjectionSettings
from trainer.draws import Draw
from trainer.errors import StageError
from trainer.examples import Examples
from trainer.execution import Execution, Objective, Prepare
from trainer.loop import Training, Workspace
from trainer.optimizers import build_optimizer
from trainer.preprocessing import scale
from trainer.stages.trained import Trained

LOG = logging.getLogger(__name__)

WHOLE_BACKBONE = 4  # of `fine_tune_after_block`


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
    execution = Execution(settings.execution)
    batch = sampling.batch_of(len(examples), settings.batch_size)
    cached = features_are_constant(settings)
    with execution.scope():
        teacher = beginning(settings, classes, base)
        # What is trained is what is saved for resumption: of a cached training the classifier.
        model = teacher.classifier if cached else teacher
        optimizer = build_optimizer(
            settings.optimizer,
            model=model,
            steps_per_epoch=-(-len(examples) // batch),
            epochs=settings.epochs,
            batch_size=batch,
        )
    if cached:
        features = validation.in_batches(lambda levels: teacher.features(scale(levels)))
        shown = features(examples.images)
        validate = _cached_validator(teacher.classifier, features(held_out.images), held_out)
    else:
        shown, validate = examples.levels, validation.validator(teacher, held_out)

    def batches(random: np.random.Generator) -> np.ndarray:
        if settings.imbalance == "balanced_sampling":
            return sampling.balanced(examples.labels, batch, random)
        return sampling.shuffled(len(examples), batch, random)

    prepare, objective = _costs(settings, model, shown, examples.labels, len(classes))
    training = Training(
        stage="finetune",
        model=model,
        optimizer=optimizer,
        epochs=settings.epochs,
        seed=settings.seed,
        batches=batches,
        step=execution.compile(
            model, optimizer, objective, prepare=prepare, follow=settings.optimizer
        ),
        execution=execution,
        validate=validate,
        **validation.choice(settings, held_out),
        checkpoint_every_epochs=settings.checkpoint_every_epochs,
    )
    history = loop.run(training, workspace)
    kept = execution.release("teacher", teacher.architecture, settings.input, teacher)
    trained = Trained("teacher", kept, teacher.architecture, history)
    return calibration.calibrated(trained, held_out) if settings.calibrate else trained


def features_are_constant(settings: FinetuneSettings) -> bool:
    """Whether the classifier sees the same features of an image in every epoch."""
    if settings.fine_tune_after_block < WHOLE_BACKBONE:
        return False
    if settings.augmentation != "none":
        LOG.info(
            "The backbone is frozen, but augmentation %r shows it new views of each image, so its "
            "features are computed at every step. With augmentation=none they are computed once.",
            settings.augmentation,
        )
        return False
    return True


def beginning(settings: FinetuneSettings, classes: Sequence[str], base: Bundle | None) -> Teacher:
    """The teacher before its first step: built, weights taken over, frozen as settings ask.

    Args:
        settings: the stage's.
        classes: class names.
        base: an encoder or an earlier teacher. A teacher's head is taken over where it names the
            same classes in the same order and stands on the same layer; else a head starts anew.

    Raises:
        StageError: settings and base model do not fit.
    """
    architecture = _architecture(settings, len(classes), base)
    teacher = architectures.build("teacher", architecture, settings.input, settings.seed)
    if base is not None:
        _transfer(base, teacher, classes)
    teacher.backbone.freeze(settings.fine_tune_after_block)
    return teacher


def _costs(
    settings: FinetuneSettings,
    model: keras.Model,
    shown: np.ndarray | tf.Tensor,
    truths: np.ndarray,
    classes: int,
) -> tuple[Prepare, Objective]:
    """What a batch is, and what it costs.

    `shown` is `uint8[N, S, S, C]` for a teacher, features for a classifier.
    """
    rows, labels = tf.convert_to_tensor(shown), tf.constant(truths)
    adjusted = settings.imbalance == "logit_adjustment"
    adjustment = losses.log_priors(truths, classes) if adjusted else np.float32(0)

    def prepare(indices: tf.Tensor, draw: Draw) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.gather(rows, indices)
        if not isinstance(model, Classifier):
            batch = augmentation.of(settings)(scale(batch), draw)
        return batch, tf.gather(labels, indices)

    def objective(batch: tf.Tensor, truth: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        logits = model(batch, training=True)
        loss = losses.cross_entropy(
            truth, logits + adjustment, label_smoothing=settings.label_smoothing
        )
        guesses = tf.argmax(logits, axis=1, output_type=truth.dtype)
        return loss, {"accuracy": tf.reduce_mean(tf.cast(guesses == truth, tf.float32))}

    return prepare, objective


def _cached_validator(classifier: Classifier, features: np.ndarray, examples: Examples):
    classify = validation.in_batches(lambda rows: classifier(rows, training=False))
    return validation.measured(lambda: classify(features), examples)


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
        if settings.fine_tune_after_block >= 0:
            raise StageError(
                f"fine_tune_after_block={settings.fine_tune_after_block} keeps a base model's "
                "lower layers, but there is no base model, so they would stay random. Connect a "
                "pretraining stage, or set fine_tune_after_block=-1 to train from scratch."
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
    projection: ProjectionSettings | None = base.model.architecture.projection
    has_layers = projection is not None and base.model.projection is not None
    available = projection.layers if has_layers else 0
    if selector > available:
        advice = f"Choose 0 to {available}." if available else "Choose 0: it has no such head."
        raise StageError(
            f"ft_proj_selector={selector}, but the base model has {available} projection layers. "
            f"{advice}"
        )
    return projection or ProjectionSettings()


def _transfer(base: Bundle, model: Teacher, classes: Sequence[str]) -> None:
    """Copies what both models have: backbone, projection, and the head if it names the same."""
    _copy(base.model.backbone, model.backbone)
    if model.projection is not None:
        _copy(base.model.projection, model.projection)
    if base.description.kind != "teacher":
        return
    known, selector = base.description.classes, base.model.architecture.ft_proj_selector
    if known == tuple(classes) and selector == model.architecture.ft_proj_selector:
        _copy(base.model.head, model.head)
        return
    LOG.info(
        "The head starts anew: the base model's tells %s from projection layer %d, this one %s "
        "from %d",
        list(known), selector, list(classes), model.architecture.ft_proj_selector,
    )  # fmt: skip


def _copy(source, target) -> None:
    target.set_weights(source.get_weights())
