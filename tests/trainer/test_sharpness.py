"""Sharpness-aware steps against NumPy transcriptions of the two papers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import ExecutionSettings, OptimizerSettings
from trainer.execution import Execution
from trainer.normalization import batch_norm
from trainer.sharpness import worst_point

RATE, RHO = 0.3, 0.2
INPUTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
LABELS = (INPUTS @ [[1.0], [-2.0], [0.5]] > 0.3).astype(np.float32)


def slopes(kernel, bias):
    """Gradient of the mean logistic loss."""
    error = 1 / (1 + np.exp(-(INPUTS @ kernel + bias))) - LABELS
    return INPUTS.T @ error / len(INPUTS), error.mean(axis=0)


def sam(kernel, bias):
    """Foret et al. 2021, algorithm 1."""
    down, across = slopes(kernel, bias)
    length = np.sqrt((down**2).sum() + (across**2).sum())
    worst = slopes(kernel + RHO * down / length, bias + RHO * across / length)
    return kernel - RATE * worst[0], bias - RATE * worst[1]


def asam(kernel, bias):
    """Kwon et al. 2021, algorithm 1, with eta 0.01 and the bias as it is."""
    down, across = slopes(kernel, bias)
    scale = np.abs(kernel) + 0.01
    length = np.sqrt(((scale * down) ** 2).sum() + (across**2).sum())
    worst = slopes(kernel + RHO * scale**2 * down / length, bias + RHO * across / length)
    return kernel - RATE * worst[0], bias - RATE * worst[1]


def stepper(model, sharpness, cost, rate=RATE):
    follow = OptimizerSettings(sharpness=sharpness, rho=None if sharpness == "none" else RHO)
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build(model.trainable_variables)
    step = Execution(ExecutionSettings()).compile(model, optimizer, cost, follow=follow)
    return lambda: step(tf.range(len(INPUTS)), tf.constant([0, 0]))


@pytest.mark.parametrize(("name", "oracle"), [("sam", sam), ("asam", asam)])
def test_three_steps_equal_the_paper(name, oracle):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build((None, 3))
    kernel, bias = np.array([[0.5], [0.01], [-1.0]]), np.array([0.2])
    model.set_weights([kernel, bias])

    def cost(indices, draw):
        logits = model(tf.gather(INPUTS, indices), training=True)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.gather(LABELS, indices), logits)
        return tf.reduce_mean(losses), {}

    step = stepper(model, name, cost)
    for _ in range(3):
        step()
        kernel, bias = oracle(kernel, bias)
        np.testing.assert_allclose(model.get_weights()[0], kernel, rtol=1e-5)
        np.testing.assert_allclose(model.get_weights()[1], bias, rtol=1e-5)


def test_statistics_follow_the_first_pass_and_weights_are_restored_exactly():
    """A rate of zero leaves nothing but what the passes themselves do."""
    after = {}
    for name in ("none", "sam"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Dense(4), batch_norm(), keras.layers.Dense(1)])
        model.build((None, 3))
        before = [weight.numpy() for weight in model.trainable_variables]

        def cost(indices, draw, model=model):
            return tf.reduce_mean(model(tf.gather(INPUTS, indices), training=True) ** 2), {}

        stepper(model, name, cost, rate=0.0)()
        for weight, value in zip(model.trainable_variables, before, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value)
        after[name] = [weight.numpy() for weight in model.non_trainable_variables]
    for statistics, expected in zip(after["sam"], after["none"], strict=True):
        np.testing.assert_array_equal(statistics, expected)
    assert np.abs(after["sam"][0]).max() > 0


def test_the_radius_left_out_is_the_papers():
    weights = [keras.Variable([[3.0, 4.0]])]
    for settings, length in (({}, 0.05), ({"rho": 0.2}, 0.2)):
        follow = OptimizerSettings(sharpness="sam", **settings)
        [worst] = worst_point(follow, weights, [tf.constant([[1.0, -2.0]])])
        assert np.linalg.norm(worst - weights[0]) == pytest.approx(length, rel=1e-4)
