"""From settings to an optimizer whose parameter groups follow the model's layers."""

import keras
from keras import layers

from trainer.config import OptimizerSettings
from trainer.heads import SupervisedHead
from trainer.lars import LARS
from trainer.schedules import WarmupCosine, scaled_learning_rate


def normalisation_and_biases(model: layers.Layer) -> list[keras.Variable]:
    """Every scale and offset of batch normalisation and every bias under `model`."""
    found: list[keras.Variable] = []
    for layer in _flattened(model):
        if isinstance(layer, layers.BatchNormalization):
            found += [v for v in (layer.gamma, layer.beta) if v is not None]
        elif isinstance(getattr(layer, "bias", None), keras.Variable):
            found.append(layer.bias)
    return found


def supervised_kernels(model: layers.Layer) -> list[keras.Variable]:
    """Kernels of the supervised heads under `model`."""
    return [layer.kernel for layer in _flattened(model) if isinstance(layer, SupervisedHead)]


def build_optimizer(
    settings: OptimizerSettings,
    *,
    model: layers.Layer,
    steps_per_epoch: int,
    epochs: int,
    batch_size: int,
) -> keras.optimizers.Optimizer:
    """Builds the optimizer for a model, with warm-up and cosine decay over the whole training.

    Normalisation parameters and biases are never decayed. Under LARS they are not adapted either,
    nor is the supervised head's kernel, which keeps its decay: the public SimCLR code excludes it
    from LARS and adds its L2 term to the loss, which is the same. Decay is decoupled from the
    gradient in `adamw` and `sgd` (Loshchilov & Hutter 2019).

    Args:
        settings: which optimizer, rate, scaling, warm-up, decay.
        model: a built model; slots are created for its trainable variables.
        steps_per_epoch: optimizer steps in an epoch.
        epochs: epochs of the whole training, including those done before a resumption.
        batch_size: global batch (sum over replicas), for the rate's scaling.

    Returns:
        A built Keras optimizer; its `iterations` drive the schedule, so a restored checkpoint
        resumes the schedule too.

    Raises:
        ValueError: the model has no trainable variables yet, or the warm-up fills the training.
    """
    if not model.trainable_variables:
        raise ValueError(
            f"Model {model.name!r} has no trainable variables, so no optimizer can be built for "
            "it. Call it once on a batch first, and check that it is not frozen."
        )
    schedule = WarmupCosine(
        scaled_learning_rate(settings, batch_size),
        warmup_steps=round(settings.warmup_epochs * steps_per_epoch),
        total_steps=steps_per_epoch * epochs,
    )
    optimizer = _unbuilt(settings, schedule)
    plain = normalisation_and_biases(model)
    if isinstance(optimizer, LARS):
        optimizer.exclude(plain)
        optimizer.exclude(supervised_kernels(model), weight_decay=False)
    elif plain:
        optimizer.exclude_from_weight_decay(var_list=plain)
    optimizer.build(model.trainable_variables)
    return optimizer


def _unbuilt(settings: OptimizerSettings, schedule: WarmupCosine) -> keras.optimizers.Optimizer:
    if settings.name == "lars":
        return LARS(schedule, momentum=settings.momentum, weight_decay=settings.weight_decay)
    if settings.name == "adamw":
        return keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)
    return keras.optimizers.SGD(
        schedule,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay or None,
    )


def _flattened(model: layers.Layer) -> list[layers.Layer]:
    return list(model._flatten_layers(include_self=True, recursive=True))
