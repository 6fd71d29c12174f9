"""What a classifier is worth on people it was not trained on."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from trainer import metrics, preprocessing
from trainer.errors import TrainingDataError
from trainer.examples import Examples

BATCH = 256


def predictor(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles a classifier's forward pass.

    Returns:
        A function from `uint8[N, S, S, C]` to logits `float32[N, classes]`; no augmentation, moving
        statistics.
    """

    @tf.function(reduce_retracing=True)
    def forward(levels: tf.Tensor) -> tf.Tensor:
        return model(preprocessing.scale(levels), training=False)

    def predict(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), BATCH)
        return np.concatenate([forward(images[at : at + BATCH]).numpy() for at in starts])

    return predict


def validator(model: keras.Model, examples: Examples) -> Callable[[], dict[str, float]]:
    """Prepares the measurement of a classifier on a fixed set of examples.

    Args:
        model: the classifier.
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
    predict = predictor(model)

    def validate() -> dict[str, float]:
        logits = predict(examples.images).astype(np.float64)
        log_probabilities = log_softmax(logits)
        chosen = log_probabilities[np.arange(len(examples)), examples.labels]
        return {"val_loss": float(-chosen.mean())} | _judged(np.exp(log_probabilities), examples)

    return validate


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
