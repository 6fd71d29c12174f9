"""Quantisation-aware fine-tuning: the student's int8 copy learns to answer as the student does.

The student itself, in float, is the teacher here, for its answers are what was judged and what the
int8 file must give. The student keeps its weights; the copy has its own.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from trainer import augmentation, loop, sampling, validation
from trainer.config import DistilSettings, ExecutionSettings, OptimizerSettings
from trainer.draws import Draw
from trainer.examples import Examples
from trainer.execution import Execution
from trainer.loop import Training, Workspace
from trainer.losses import DistillationLoss
from trainer.optimizers import build_optimizer
from trainer.preprocessing import scale
from trainer.quantization import QuantizedStudent
from trainer.stages.trained import Trained

# Small: the copy starts where the student ended, a rounding away from what is wanted.
OPTIMIZER = OptimizerSettings(name="adamw", learning_rate=1e-3, weight_decay=0.0)


def quantize(
    settings: DistilSettings,
    trained: Trained,
    examples: Examples,
    held_out: Examples,
    *,
    workspace: Workspace,
) -> Trained:
    """Gives a student its int8 copy, trained for `settings.quantization_epochs`.

    On one device, without checkpoints: it is a few epochs of a small network, which a resumed run
    repeats, and which each of several workers does alike. Of the distillation's settings batch
    size, seed, augmentation and `execution.deterministic` hold here, too. Its optimizer is not
    used (`OPTIMIZER` is), nor `execution`'s strategy, precision, xla and accumulate: all of it is
    float32.

    Args:
        settings: the distillation's.
        trained: the student, in float32 and of no strategy, with the temperature it is served with.
        examples: to train on; labels play no part.
        held_out: validation examples, of other people.
        workspace: the distillation's. `progress` hears of every finished epoch, as stage
            `quantize`; nothing is written there.

    Returns:
        The same with `quantized`, the copy of the epoch that answers most like the student on
        validation images.

    Raises:
        TrainingDiverged: the loss stopped being a number.
        Preempted: SIGTERM came.
    """
    student, temperature = trained.model, trained.temperature
    execution = Execution(ExecutionSettings(deterministic=settings.execution.deterministic))
    batch = sampling.batch_of(len(examples), settings.batch_size)
    model = QuantizedStudent(student, temperature)
    shown = sampling.spread(examples, settings.litert.calibration_images)
    model.measure_ranges(examples.images[shown])
    optimizer = build_optimizer(
        OPTIMIZER,
        model=model,
        steps_per_epoch=-(-len(examples) // batch),
        epochs=settings.quantization_epochs,
        batch_size=batch,
    )
    levels, labels = examples.levels, tf.constant(examples.labels)
    imitation = DistillationLoss(temperature=1.0, alpha=0.0)

    def views(indices: tf.Tensor, draw: Draw) -> tuple[tf.Tensor, ...]:
        images = augmentation.of(settings)(scale(tf.gather(levels, indices)), draw)
        wanted = student(images, training=False) / temperature
        return images, tf.gather(labels, indices), wanted

    def objective(
        images: tf.Tensor, truth: tf.Tensor, wanted: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        return imitation(truth, model(images, training=True), wanted), {}

    training = Training(
        stage="quantize",
        model=model,
        optimizer=optimizer,
        epochs=settings.quantization_epochs,
        seed=settings.seed,
        batches=lambda random: sampling.shuffled(len(examples), batch, random),
        step=execution.compile(model, optimizer, objective, prepare=views),
        execution=execution,
        validate=_distance(model, student, held_out, temperature),
        score=lambda measured: [-measured["val_loss"]],
    )
    loop.run(training, Workspace(progress=workspace.progress, unkept=_unkept(workspace)))
    return dataclasses.replace(trained, quantized=model)


def _unkept(workspace: Workspace) -> str:
    """What is said where a stop ends it: it begins anew, after a student that may be kept."""
    if workspace.checkpoints is None:
        return "Nothing is kept: started again, the student's distillation begins anew."
    return (
        "The distilled student is kept: started again the same way, only this training for int8 "
        "begins anew."
    )


def _distance(
    model: QuantizedStudent, student: keras.Model, held_out: Examples, temperature: float
) -> Callable[[], dict[str, float]]:
    """Prepares the measurement of how far the copy's answers are from the student's."""
    wanted = validation.log_softmax(validation.predictor(student)(held_out.images) / temperature)
    predict = validation.predictor(model)

    def measure() -> dict[str, float]:
        received = validation.log_softmax(predict(held_out.images))
        divergence = (np.exp(wanted) * (wanted - received)).sum(axis=1)  # Kullback-Leibler, nats
        return {"val_loss": float(divergence.mean())}

    return measure
