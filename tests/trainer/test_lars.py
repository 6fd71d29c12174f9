import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.lars import LARS

MODES = {
    "classic": {},
    "nesterov": {"nesterov": True},
    "not_classic": {"classic_momentum": False},
}
RUNS = {
    "lars_wd1e-2": {"weight_decay": 1e-2},
    "lars_wd0": {"weight_decay": 0.0},
    "lars_nesterov_wd1e-2": {"weight_decay": 1e-2, "nesterov": True},
    "lars_popular_wd1e-2": {"weight_decay": 1e-2, "classic_momentum": False},
}
EXCLUDED = ("batch_normalization", "bias", "head_supervised")


def excluding(optimizer, variables, names):
    optimizer.exclude(
        variable
        for variable, name in zip(variables, names, strict=True)
        if any(part in name for part in EXCLUDED)
    )
    optimizer.build(variables)
    return optimizer


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_five_steps_equal_the_reference(shared, mode, jit_compile):
    golden = np.load(shared / "golden/lars.npz")
    names = [key.removeprefix("init/") for key in golden if key.startswith("init/")]
    variables = [keras.Variable(golden[f"init/{name}"]) for name in names]
    optimizer = LARS(0.3, momentum=0.9, weight_decay=1e-3, eeta=0.001, **MODES[mode])
    excluding(optimizer, variables, names)

    @tf.function(jit_compile=jit_compile)
    def train(gradients):
        optimizer.apply(gradients, variables)

    for step in range(1, 6):
        train([tf.constant(golden[f"grad/step{step}/{name}"]) for name in names])
        for name, variable in zip(names, variables, strict=True):
            np.testing.assert_allclose(
                variable, golden[f"{mode}/step{step}/{name}"], rtol=1e-6, atol=1e-7, err_msg=name
            )


@pytest.mark.parametrize("run", RUNS)
def test_zero_weights_and_decay_equal_the_reference(shared, run):
    stored = json.loads((shared / "golden/losses_schedules_preprocessing.json").read_text())[run]
    variables = [keras.Variable(np.float32(value)) for value in stored["init"]]
    optimizer = excluding(LARS(0.5, momentum=0.9, **RUNS[run]), variables, stored["names"])
    for gradients, expected in zip(stored["grads"], stored["after"], strict=True):
        optimizer.apply([tf.constant(np.float32(gradient)) for gradient in gradients], variables)
        for variable, value in zip(variables, expected, strict=True):
            np.testing.assert_allclose(variable, value, atol=2e-6)


@pytest.mark.parametrize(
    ("weights", "gradient"), [([0.0, 0.0], [3.0, 4.0]), ([3.0, 4.0], [0.0, 0.0])]
)
def test_trust_is_one_where_a_norm_is_zero(weights, gradient):
    variable = keras.Variable(np.float32(weights))
    optimizer = LARS(0.1, momentum=0.0)
    optimizer.build([variable])
    optimizer.apply([tf.constant(gradient)], [variable])
    np.testing.assert_allclose(variable, np.subtract(weights, 0.1 * np.array(gradient)), rtol=1e-6)


def test_step_is_proportional_to_the_weights_and_not_to_the_gradient():
    variable = keras.Variable(np.float32([3.0, 4.0]))
    optimizer = LARS(2.0, momentum=0.0, eeta=0.01)
    optimizer.build([variable])
    optimizer.apply([tf.constant([0.0, 1e6])], [variable])
    np.testing.assert_allclose(variable, [3.0, 4.0 - 2.0 * 0.01 * 5.0], rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_a_constant_gradient_is_a_geometric_series(nesterov):
    """Excluded from adaptation, a variable moves as under SGD: lr · g · Σ (1 - mᵏ) / (1 - m)."""
    gradient, momentum = np.array([2.0, -1.0]), 0.8
    variable = keras.Variable(np.float32([1.0, 1.0]))
    optimizer = LARS(0.1, momentum=momentum, nesterov=nesterov)
    optimizer.exclude([variable])
    optimizer.build([variable])
    moved = 0.0
    for step in range(1, 8):
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        ahead = step + 1 if nesterov else step
        moved += (1 - momentum**ahead) / (1 - momentum)
        np.testing.assert_allclose(variable, 1 - 0.1 * gradient * moved, rtol=1e-5)


def test_turning_the_gradient_s_unit_changes_nothing():
    """Without decay the step is eeta · lr · ‖w‖ long, whatever the loss is multiplied by."""
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    gradient = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    reached = []
    for factor in (1e-3, 1.0, 1e3):
        variable = keras.Variable(weights)
        optimizer = LARS(0.5, momentum=0.9, eeta=0.02)
        optimizer.build([variable])
        optimizer.apply([tf.constant(factor * gradient)], [variable])
        np.testing.assert_allclose(
            np.linalg.norm(variable.numpy() - weights),
            0.5 * 0.02 * np.linalg.norm(weights),
            rtol=1e-4,
        )
        reached.append(variable.numpy())
    np.testing.assert_allclose(reached[0], reached[2], rtol=1e-5)


def test_exclusions_are_separate():
    """One gradient, four groups: each with its own rule."""
    variables = [keras.Variable(np.float32([3.0, 4.0])) for _ in range(4)]
    both, undecayed, unadapted, neither = variables
    optimizer = LARS(1.0, momentum=0.0, weight_decay=0.5, eeta=0.1)
    optimizer.exclude([both])
    optimizer.exclude([undecayed], adaptation=False)
    optimizer.exclude([unadapted], weight_decay=False)
    optimizer.build(variables)
    optimizer.apply([tf.constant([0.0, 1.0])] * 4, variables)

    decayed = np.array([1.5, 3.0])  # gradient + 0.5 · weights
    np.testing.assert_allclose(both, [3.0, 3.0])
    np.testing.assert_allclose(undecayed, [3.0, 3.5])
    np.testing.assert_allclose(unadapted, [1.5, 1.0])
    np.testing.assert_allclose(
        neither, [3.0, 4.0] - 0.1 * 5 * decayed / np.linalg.norm(decayed), rtol=1e-6
    )


def test_a_restored_checkpoint_goes_on_as_if_never_interrupted(tmp_path):
    gradients = [tf.constant(np.float32([i, 1.0, -i])) for i in range(1, 7)]

    def fresh():
        variable = keras.Variable(np.float32([1.0, 2.0, 3.0]))
        optimizer = LARS(keras.optimizers.schedules.CosineDecay(0.5, 10), weight_decay=0.1)
        optimizer.build([variable])
        return (
            variable,
            optimizer,
            tf.train.Checkpoint(optimizer=optimizer, variable=variable.value),
        )

    variable, optimizer, checkpoint = fresh()
    for gradient in gradients[:3]:
        optimizer.apply([gradient], [variable])
    path = checkpoint.save(tmp_path / "ckpt")
    for gradient in gradients[3:]:
        optimizer.apply([gradient], [variable])

    resumed, optimizer, checkpoint = fresh()
    checkpoint.restore(path).assert_consumed()
    assert int(optimizer.iterations) == 3
    for gradient in gradients[3:]:
        optimizer.apply([gradient], [resumed])
    np.testing.assert_array_equal(resumed, variable)


def test_configuration_survives():
    optimizer = LARS(0.2, momentum=0.8, weight_decay=1e-3, eeta=0.01, nesterov=True)
    again = LARS.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert again.l2 == 1e-3
