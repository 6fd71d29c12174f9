"""Whether an encoder's features still tell images apart: spread, alignment, uniformity, rank.

All are measured on the same two views of the same images after every epoch, with the moving
statistics that serving uses. Training's own batches would flatter: there batch normalisation
stretches even a vanishing difference between images back to unit variance, so that projections of
an encoder that has collapsed look as spread out as a good one's.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from trainer import sampling, validation
from trainer.draws import Draw
from trainer.errors import RepresentationCollapsed, TrainingDiverged
from trainer.examples import Examples
from trainer.preprocessing import scale

LOG = logging.getLogger(__name__)

# Bounds of `embedding_std`. On brain slices an untrained network has .08, a trained one .16 and up.
# Networks that diverge pass through .002 to .02 and may come back; dead ones stay below .0001.
SUSPECT = 0.02
COLLAPSED = 0.001

_ADVICE = (
    "Lower optimizer.learning_rate or optimizer.weight_decay, raise optimizer.warmup_epochs, keep "
    "temperature within 0.1 to 0.5, weaken the augmentation, and check that the images differ."
)

Floats = NDArray[np.float64]
# `uint8[N, S, S, C]` → embeddings and projections, `float32[N, ·]`
Features = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def features_of(encoder: keras.Model) -> Features:
    """Compiles an encoder's forward pass: no augmentation, moving statistics."""

    def both(levels: tf.Tensor) -> tf.Tensor:
        outputs = encoder(scale(levels), training=False)
        return tf.concat([outputs["embeddings"], outputs["projections"]], axis=1)

    forward = validation.in_batches(both)

    def features(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        embeddings, projections = np.split(
            forward(images), [-encoder.architecture.projection.dim], axis=1
        )
        return embeddings, projections

    return features


def watcher(
    features: Features,
    examples: Examples,
    view: Callable[[tf.Tensor, Draw], tf.Tensor],
    seed: int,
) -> Callable[[], dict[str, Any]]:
    """Prepares the measurement of an encoder on two views of a fixed sample of images.

    The sample is a sixteenth of the images, 64 to 256 of them, of as many people as there are.
    They are training's, so that a number means the same with held-out people and without.

    Args:
        features: of the encoder, as it is when they are asked for.
        examples: two or more.
        view: makes one of `float32` images; both are made here, once.
        seed: of the sample and the views.

    Returns:
        A function without arguments to `embedding_std` (`spread`) and `effective_rank` of the
        embeddings, which are kept, and `alignment` and `uniformity` of the projections, which the
        loss compares. Where `embedding_std` is below `SUSPECT` also to a `warning`, logged too. It
        raises `TrainingDiverged` where a feature is infinite or not a number: the loss, taken
        before an epoch's last update, cannot tell of that one.
    """
    count = min(256, max(64, len(examples) // 16))
    chosen = sampling.spread(examples, count, np.random.default_rng(seed))
    images = scale(examples.images[chosen])
    draws = Draw(np.random.SeedSequence(seed).generate_state(2).view(np.int32)).split(2)
    views = tf.concat([view(images, draw) for draw in draws], axis=0)
    levels = tf.saturate_cast(tf.round(views * 255), tf.uint8).numpy()

    def watch() -> dict[str, Any]:
        embeddings, projections = features(levels)
        if not (np.isfinite(embeddings).all() and np.isfinite(projections).all()):
            raise TrainingDiverged(
                "Training diverged: the encoder's features are not finite after the epoch's last "
                f"step. {_ADVICE}"
            )
        first, second = np.split(projections, 2)
        measured = {
            "embedding_std": spread(embeddings[: len(first)]),
            "effective_rank": effective_rank(embeddings[: len(first)]),
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
        }
        if measured["embedding_std"] >= SUSPECT:
            return measured
        warning = (
            "The encoder hardly tells images apart: embedding_std is "
            f"{measured['embedding_std']:.2g}, below {SUSPECT}. If it stays so: {_ADVICE}"
        )
        LOG.warning(warning)
        return measured | {"warning": warning}

    return watch


def refuse_collapsed(history: Sequence[Mapping[str, Any]]) -> None:
    """Refuses an encoder whose last epoch answers every image alike.

    Raises:
        RepresentationCollapsed: `embedding_std` ended below `COLLAPSED`.
    """
    last = history[-1]
    if not last["embedding_std"] >= COLLAPSED:  # nor what is not a number
        epochs = sum(not entry["embedding_std"] >= COLLAPSED for entry in history)
        raise RepresentationCollapsed(
            "The encoder has collapsed: it gives every image the same embedding (embedding_std "
            f"{last['embedding_std']:.2g} after epoch {last['epoch']}, below {COLLAPSED} in "
            f"{epochs} of {len(history)} epochs). {_ADVICE}"
        )


def spread(features: ArrayLike) -> float:
    """Standard deviation of unit features over images, times the root of their dimension.

    Near 1 when features fill the sphere, 0 when all point the same way (Chen & He 2021, section
    4.1).

    Args:
        features: float[N, D].
    """
    unit = unit_rows(features)
    return float(unit.std(axis=0).mean() * np.sqrt(unit.shape[1]))


def alignment(first: ArrayLike, second: ArrayLike) -> float:
    """Mean squared distance of the unit features of two views (Wang & Isola 2020, section 4.1).

    Args:
        first: float[N, D], features of the first view.
        second: float[N, D], of the second, row by row of the same images.

    Returns:
        A number in [0, 4]; 0 where two views of an image are one, 2 where they are strangers.
    """
    return float(np.square(unit_rows(first) - unit_rows(second)).sum(axis=1).mean())


def uniformity(features: ArrayLike, t: float = 2.0) -> float:
    """Logarithm of the mean Gaussian potential of all pairs (Wang & Isola 2020, section 4.2).

    Args:
        features: float[N, D], N of 2 or more.
        t: the potential is exp(-t · squared distance).

    Returns:
        At most 0, where all features agree. A uniform distribution on the sphere gives
        -2t + log ₀F₁(D/2; t²): -3.94 for D of 128 and the usual t of 2.
    """
    unit = unit_rows(features)
    products = unit @ unit.T
    squares = products.diagonal()
    distances = squares[:, None] + squares - 2 * products
    pairs = np.triu_indices(len(unit), 1)
    return float(np.log(np.exp(-t * distances[pairs]).mean()))


def effective_rank(features: ArrayLike) -> float:
    """Exponential of the entropy of the singular values (RankMe: Garrido et al. 2023, section 3).

    Args:
        features: float[N, D].

    Returns:
        1 where features lie on a line, at most the smaller of N and D; 0 where all are zero. It
        depends on N and D: compare epochs, not data sets.
    """
    values = np.linalg.svd(np.asarray(features, dtype=np.float64), compute_uv=False)
    if not values.any():
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def unit_rows(features: ArrayLike) -> Floats:
    """Rows of float[N, D] scaled to length 1; a row of zeros stays zero."""
    table = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return np.divide(table, lengths, out=np.zeros_like(table), where=lengths > 0)
