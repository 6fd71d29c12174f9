"""What a classifier is worth on people it was not trained on."""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import metrics, preprocessing
from trainer.config import DistilSettings, FinetuneSettings
from trainer.errors import TrainingDataError
from trainer.examples import Examples

LOG = logging.getLogger(__name__)

BATCH = 256


def predictor(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles a classifier's forward pass.

    Returns:
        A function from `uint8[N, S, S, C]` to logits `float32[N, classes]`; no augmentation, moving
        statistics.
    """
    return in_batches(lambda levels: model(preprocessing.scale(levels), training=False))


def in_batches(forward: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles a function of tensors into one of arrays of any length, row for row.

    Returns:
        A function from `[N, …]`, N ≥ 1, to `float32[N, …]`.
    """

    @tf.function
    def answer(rows: tf.Tensor) -> tf.Tensor:
        return tf.cast(forward(rows), tf.float32)

    def answers(rows: np.ndarray) -> np.ndarray:
        # One trace for batches of any length: tracing a ResNet costs a second and more.
        traced = answer.get_concrete_function(tf.TensorSpec((None, *rows.shape[1:]), rows.dtype))
        starts = range(0, len(rows), BATCH)
        batches = (tf.constant(rows[at : at + BATCH]) for at in starts)
        return np.concatenate([traced(batch).numpy() for batch in batches])

    return answers


def validator(model: keras.Model, examples: Examples) -> Callable[[], dict[str, float]]:
    """Prepares the measurement of a classifier on a fixed set of examples.

    Args:
        model: the classifier.
        examples: as `measured` takes them.

    Returns:
        A function without arguments to what `measured` tells of the present model.

    Raises:
        TrainingDataError: as `measured`.
    """
    predict = predictor(model)
    return measured(lambda: predict(examples.images), examples)


def measured(
    answer: Callable[[], np.ndarray], examples: Examples
) -> Callable[[], dict[str, float]]:
    """Prepares the measurement of whatever gives logits for a fixed set of examples.

    Args:
        answer: gives the present logits of the examples, `float32[N, classes]`.
        examples: labelled; with subject ids, probabilities are averaged per person first.

    Returns:
        A function without arguments to the present `val_loss` (cross-entropy per slice, nats),
        `val_macro_auc` and `val_balanced_accuracy` (per person where ids exist, else per slice).

    Raises:
        TrainingDataError: fewer than two classes among the examples, so no AUC is defined.
    """
    if len(np.unique(examples.labels)) < 2:
        raise TrainingDataError(
            f"The validation split holds {len(examples)} examples of one class; choosing the best "
            "epoch needs two classes or more. Raise the validation fraction."
        )

    def validate() -> dict[str, float]:
        log_probabilities = log_softmax(answer().astype(np.float64))
        chosen = log_probabilities[np.arange(len(examples)), examples.labels]
        return {"val_loss": float(-chosen.mean())} | _judged(np.exp(log_probabilities), examples)

    return validate


def choice(settings: FinetuneSettings | DistilSettings, examples: Examples) -> dict[str, Any]:
    """How the epoch to keep is chosen, as `trainer.loop.Training` takes it.

    The AUC of a few people is chance, and its maximum over many epochs picks an early one for luck.
    So with fewer than `min_people_to_choose` (images, where no ids are known) the last is kept.
    """
    unit = "images" if examples.subjects is None else "people"
    count = len(examples if examples.subjects is None else np.unique(examples.subjects))
    if count >= settings.min_people_to_choose:
        return {"score": score, "patience": settings.early_stopping_patience}
    LOG.warning(
        "%d validation %s are too few to choose an epoch by (min_people_to_choose=%d): the last "
        "epoch is kept.",
        count, unit, settings.min_people_to_choose,
    )  # fmt: skip
    return {"score": None, "patience": None}


def score(measured: dict[str, float]) -> list[float]:
    """What the best epoch maximises: macro AUC; among equals, the lower loss."""
    return [measured["val_macro_auc"], -measured["val_loss"]]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of `float[N, C]` logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _judged(probabilities: np.ndarray, examples: Examples) -> dict[str, float]:
    labels = examples.labels
    if examples.subjects is not None:
        _, probabilities, labels = metrics.aggregate_by_subject(
            probabilities, labels, examples.subjects
        )
    return {
        "val_macro_auc": metrics.macro_auc(probabilities, labels),
        "val_balanced_accuracy": metrics.balanced_accuracy(probabilities, labels),
    }
