"""Logit adjustment against what is known of a toy: an image is one of four symbols."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

from trainer.losses import cross_entropy, log_priors

# How often each class (row) shows each symbol, in images; the classes stand 1 : 35 : 50.
SHOWN = np.array([[8, 2, 4, 6], [105, 245, 140, 210], [400, 100, 250, 250]])
LIKELIHOOD = SHOWN / SHOWN.sum(axis=1, keepdims=True)  # p(symbol | class)
CLASSES, SYMBOLS = np.indices(SHOWN.shape).reshape(2, -1).repeat(SHOWN.ravel(), axis=1)


def loss_and_slope(table: np.ndarray) -> tuple[float, np.ndarray]:
    """The adjusted loss at the logits of each symbol, `float[4, 3]`, and its gradient in them."""
    logits = tf.Variable(table, dtype=tf.float32)
    with tf.GradientTape() as tape:
        shown = tf.gather(logits, SYMBOLS)
        loss = cross_entropy(CLASSES, shown + log_priors(CLASSES, 3))
    return float(loss), tf.convert_to_tensor(tape.gradient(loss, logits)).numpy().astype(float)


def test_priors_are_the_shares_of_the_classes():
    np.testing.assert_allclose(np.exp(log_priors(CLASSES, 3)), [1 / 86, 35 / 86, 50 / 86], 1e-6)


def test_the_optimum_is_the_posterior_of_balanced_classes():
    """softmax(logits) is then p(class | symbol) for equal priors, so logits are log p(symbol | y);
    the loss is convex in the logits, so a slope of zero is the optimum."""
    _, slope = loss_and_slope(np.log(LIKELIHOOD).T)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    _, slope = loss_and_slope(np.log(SHOWN).T)  # the posterior among the training images
    assert np.abs(slope).max() > 0.01


def test_training_from_zero_ends_there():
    def flat(logits: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope = loss_and_slope(logits.reshape(4, 3))
        return loss, slope.ravel()

    logits = minimize(flat, np.zeros(12), jac=True, options={"gtol": 1e-6}).x.reshape(4, 3)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    balanced = (LIKELIHOOD / LIKELIHOOD.sum(axis=0)).T
    np.testing.assert_allclose(found, balanced, atol=5e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_without_images_is_pushed_down_and_breaks_nothing(smoothing):
    labels = np.array([0, 0, 2, 2, 2])
    adjustment = log_priors(labels, 4)
    assert np.isfinite(adjustment).all()
    logits = tf.zeros((5, 4))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(labels, logits + adjustment, label_smoothing=smoothing)
    assert np.isfinite(loss)
    if smoothing == 0.0:
        assert (tape.gradient(loss, logits).numpy()[:, [1, 3]] > 0).all()
