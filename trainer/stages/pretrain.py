"""SimCLR: an encoder that learns which two views are of one slice (Chen et al. 2020)."""

import tensorflow as tf

from trainer import architectures, loop, losses, sampling
from trainer.architectures import EncoderArchitecture
from trainer.augmentation import augment
from trainer.config import PretrainSettings
from trainer.draws import Draw
from trainer.errors import TrainingDataError
from trainer.examples import Examples
from trainer.execution import Execution
from trainer.loop import Training, Workspace
from trainer.optimizers import build_optimizer
from trainer.preprocessing import scale
from trainer.stages.trained import Trained


def pretrain(
    settings: PretrainSettings,
    examples: Examples,
    held_out: Examples,
    workspace: Workspace,
) -> Trained:
    """Trains an encoder on images alone.

    Args:
        settings: the stage's.
        examples: images with or without labels; labels are not looked at.
        held_out: examples of other people, for probes alone; without labels there are none.
        workspace: where state and logs go.

    Returns:
        The encoder of the last epoch. Its history holds, besides the loss, `contrastive_accuracy`
        (share of views whose nearest other view is their own) and `projection_spread` (standard
        deviation of unit projections over a batch, times the root of their dimension: near 1 when
        they fill the sphere, 0 when they have collapsed; Chen & He 2021, section 4.1).

    Raises:
        TrainingDataError: fewer than two images, or no augmentation to make two views with.
        TrainingDiverged: the loss stopped being a number.
    """
    _check(settings, examples)
    architecture = EncoderArchitecture(backbone=settings.backbone, projection=settings.projection)
    execution = Execution(settings.execution)
    batch = sampling.batch_of(len(examples), settings.batch_size)
    with execution.scope():
        model = architectures.build("encoder", architecture, settings.input, settings.seed)
        optimizer = build_optimizer(
            settings.optimizer,
            model=model,
            steps_per_epoch=len(examples) // batch,
            epochs=settings.epochs,
            batch_size=batch,
        )
    levels = tf.constant(examples.images)

    def objective(indices: tf.Tensor, draw: Draw) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        images = scale(tf.gather(levels, indices))
        views = [augment(images, settings.augmentation, draw=each) for each in draw.split(2)]
        # One pass over both views, so that batch normalisation cannot tell them apart.
        projections = model(tf.concat(views, axis=0), training=True)["projections"]
        first, second = tf.split(projections, 2)
        return losses.nt_xent(first, second, settings.temperature), {
            "contrastive_accuracy": losses.contrastive_accuracy(first, second),
            "projection_spread": _spread(projections),
        }

    training = Training(
        stage="pretrain",
        model=model,
        optimizer=optimizer,
        epochs=settings.epochs,
        seed=settings.seed,
        batches=lambda random: sampling.shuffled_whole(len(examples), batch, random),
        step=execution.compile(model, optimizer, objective),
        execution=execution,
        checkpoint_every_epochs=settings.checkpoint_every_epochs,
    )
    history = loop.run(training, workspace)
    kept = execution.release("encoder", architecture, settings.input, model)
    return Trained("encoder", kept, architecture, history)


def _check(settings: PretrainSettings, examples: Examples) -> None:
    if len(examples) < 2:
        raise TrainingDataError(
            f"Contrastive pretraining needs 2 images or more (received {len(examples)})."
        )
    if settings.augmentation == "none":
        raise TrainingDataError(
            "Contrastive pretraining needs two different views of an image (received "
            "augmentation='none'). Set augmentation to 'mri' or 'simclr'."
        )


def _spread(projections: tf.Tensor) -> tf.Tensor:
    unit = tf.math.l2_normalize(tf.cast(projections, tf.float32), axis=1)
    dimension = tf.cast(tf.shape(unit)[1], tf.float32)
    return tf.reduce_mean(tf.math.reduce_std(unit, axis=0)) * tf.sqrt(dimension)
