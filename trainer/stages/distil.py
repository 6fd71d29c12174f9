"""The student: a small CNN learns to answer as the teacher does (SimCLRv2, section 2.3).

Or a network like the teacher's own learns it, from scratch: self-distillation.

Teacher and student see the same augmented view, which teaches more than answers given once to the
plain image (Beyer et al. 2022, "A good teacher is patient and consistent"). Without augmentation
the answers cannot change, so they are computed once.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer import architectures, augmentation, calibration, loop, sampling, validation
from trainer.architectures import StudentArchitecture, TeacherArchitecture
from trainer.bundle import Bundle
from trainer.config import DistilSettings
from trainer.draws import Draw
from trainer.errors import StageError
from trainer.examples import Examples
from trainer.execution import Execution
from trainer.loop import Training, Workspace
from trainer.losses import DistillationLoss
from trainer.optimizers import build_optimizer
from trainer.preprocessing import scale
from trainer.stages.quantize import quantize
from trainer.stages.trained import Trained


def distil(
    settings: DistilSettings,
    examples: Examples,
    held_out: Examples,
    *,
    classes: Sequence[str],
    base: Bundle | None,
    workspace: Workspace,
) -> Trained:
    """Trains a student on the teacher's outputs, and a little on the true labels.

    Args:
        settings: the stage's.
        examples: to train on, with labels or without (-1); the latter learn from the teacher only.
        held_out: validation examples, of other people.
        classes: class names; must be the teacher's.
        base: the teacher.
        workspace: where state and logs go.

    Returns:
        The student of the epoch with the best macro AUC over validation people. Its kind is
        `student`, or `teacher` where it has the teacher's network.

    Raises:
        StageError: there is no teacher, or it has other classes or another input.
        TrainingDataError: no examples, or validation examples of one class only.
        TrainingDiverged: the loss stopped being a number.
    """
    base = _checked(settings, classes, base)
    held_out = held_out.labelled()
    execution = Execution(settings.execution)
    kind, architecture = _architecture(settings, len(classes), base)
    batch = sampling.batch_of(len(examples), settings.batch_size)
    with execution.scope():
        model = architectures.build(kind, architecture, settings.input, settings.seed)
        optimizer = build_optimizer(
            settings.optimizer,
            model=model,
            steps_per_epoch=-(-len(examples) // batch),
            epochs=settings.epochs,
            batch_size=batch,
        )
    distillation_loss = DistillationLoss(settings.temperature, settings.alpha)
    levels, labels = examples.levels, tf.constant(examples.labels)
    answer = _answers(settings, examples, base, execution)

    def views(indices: tf.Tensor, draw: Draw) -> tuple[tf.Tensor, ...]:
        images = augmentation.of(settings)(scale(tf.gather(levels, indices)), draw)
        return images, tf.gather(labels, indices), answer(indices, images)

    def objective(
        images: tf.Tensor, truth: tf.Tensor, wanted: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        logits = model(images, training=True)
        agreed = tf.argmax(logits, axis=1) == tf.argmax(wanted, axis=1)
        return distillation_loss(truth, logits, wanted), {
            "teacher_agreement": tf.reduce_mean(tf.cast(agreed, tf.float32))
        }

    step = execution.compile(model, optimizer, objective, prepare=views, follow=settings.optimizer)
    training = Training(
        stage="distil",
        model=model,
        optimizer=optimizer,
        epochs=settings.epochs,
        seed=settings.seed,
        batches=lambda random: sampling.shuffled(len(examples), batch, random),
        step=step,
        execution=execution,
        validate=validation.validator(model, held_out),
        **validation.choice(settings, held_out),
        checkpoint_every_epochs=settings.checkpoint_every_epochs,
    )
    history = loop.run(training, workspace)
    kept = execution.release(kind, architecture, settings.input, model)
    trained = Trained(kind, kept, architecture, history)
    if settings.calibrate:
        trained = calibration.calibrated(trained, held_out)
    if settings.quantization_epochs:
        trained = quantize(settings, trained, examples, held_out, workspace=workspace)
    return trained


def _answers(
    settings: DistilSettings, examples: Examples, base: Bundle, execution: Execution
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """What the teacher says, in float32 whatever the student computes in.

    Returns:
        A function of `int32[rows]` indices and their views to logits `float32[rows, classes]`.
    """
    if settings.augmentation == "none":
        answers = tf.constant(validation.predictor(base.model)(examples.images))
        return lambda indices, views: tf.gather(answers, indices)
    teacher = base.model
    if settings.execution.strategy != "none":
        with execution.strategy.scope():  # replicas need a copy each
            teacher = architectures.build("teacher", teacher.architecture, settings.input)
            teacher.set_weights(base.model.get_weights())
    return lambda indices, views: teacher(views, training=False)


def _architecture(
    settings: DistilSettings, classes: int, base: Bundle
) -> tuple[str, StudentArchitecture | TeacherArchitecture]:
    if settings.network == "teacher":
        return "teacher", base.model.architecture
    return "student", StudentArchitecture(
        filters=settings.filters,
        dense=settings.dense,
        pools=settings.pools,
        cells=settings.cells,
        classes=classes,
    )


def _checked(settings: DistilSettings, classes: Sequence[str], base: Bundle | None) -> Bundle:
    if base is None:
        raise StageError(
            "Distillation needs a teacher (received no base model). Connect the student to the "
            "node that trains the teacher."
        )
    if base.description.kind != "teacher":
        raise StageError(f"Distillation needs a teacher (received a {base.description.kind}).")
    if base.description.classes != tuple(classes):
        raise StageError(
            f"The teacher knows the classes {list(base.description.classes)}, the data has "
            f"{list(classes)}. Train the teacher on this dataset first."
        )
    if base.description.input != settings.input:
        raise StageError(
            f"The teacher sees {base.description.input}, the student {settings.input}. "
            "Set both to the same input."
        )
    return base
