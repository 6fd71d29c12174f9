"""SimCLR: an encoder that learns which two views are of one slice (Chen et al. 2020)."""

from collections.abc import Callable

import keras
import tensorflow as tf

from trainer import architectures, augmentation, loop, losses, probes, representation, sampling
from trainer.architectures import EncoderArchitecture
from trainer.config import PretrainSettings
from trainer.draws import Draw
from trainer.errors import TrainingDataError
from trainer.examples import Examples
from trainer.execution import Execution
from trainer.loop import Metrics, Training, Workspace
from trainer.optimizers import build_optimizer
from trainer.preprocessing import scale
from trainer.stages.trained import Trained


def pretrain(
    settings: PretrainSettings,
    examples: Examples,
    held_out: Examples | None,
    workspace: Workspace,
) -> Trained:
    """Trains an encoder on images alone.

    Args:
        settings: the stage's.
        examples: images with or without labels; labels are not looked at.
        held_out: examples of other people, for probes alone. Without them, or without labels,
            there are no probes.
        workspace: where state and logs go.

    Returns:
        The encoder of the last epoch. Its history holds, besides the loss, `contrastive_accuracy`
        (share of views whose nearest other view is their own), what `representation.watcher`
        measures, and every `probe_every_epochs` and at the end what `probes.prober` does. None of
        it selects anything.

    Raises:
        TrainingDataError: fewer than two images, or no augmentation to make two views with.
        TrainingDiverged: the loss stopped being a number.
        RepresentationCollapsed: the last encoder gives every image the same embedding.
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
    levels, view = examples.levels, augmentation.of(settings)

    def prepare(indices: tf.Tensor, draw: Draw) -> tuple[tf.Tensor]:
        images = scale(tf.gather(levels, indices))
        views = [view(images, each) for each in draw.split(2)]
        # One pass over both views, so that batch normalisation cannot tell them apart.
        return (tf.concat(views, axis=0),)

    def objective(views: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        projections = model(views, training=True)["projections"]
        first, second = tf.split(projections, 2)
        return losses.nt_xent(first, second, settings.temperature), {
            "contrastive_accuracy": losses.contrastive_accuracy(first, second),
        }

    training = Training(
        stage="pretrain",
        model=model,
        optimizer=optimizer,
        epochs=settings.epochs,
        seed=settings.seed,
        batches=lambda random: sampling.shuffled_whole(len(examples), batch, random),
        step=execution.compile(
            model, optimizer, objective, prepare=prepare, follow=settings.optimizer
        ),
        execution=execution,
        observe=_observer(settings, model, examples, held_out),
        checkpoint_every_epochs=settings.checkpoint_every_epochs,
    )
    history = loop.run(training, workspace)
    representation.refuse_collapsed(history)
    kept = execution.release("encoder", architecture, settings.input, model)
    return Trained("encoder", kept, architecture, history)


def _observer(
    settings: PretrainSettings,
    model: keras.Model,
    examples: Examples,
    held_out: Examples | None,
) -> Callable[[int], Metrics]:
    """What is measured after each epoch: the features' state always, their worth now and then."""
    features, every = representation.features_of(model), settings.probe_every_epochs
    watch = representation.watcher(features, examples, augmentation.of(settings), settings.seed)
    probe = every and probes.prober(features, examples, held_out, settings.seed)

    def observe(epoch: int) -> Metrics:
        if probe and (epoch % every == 0 or epoch == settings.epochs):
            return watch() | probe()
        return watch()

    return observe


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
