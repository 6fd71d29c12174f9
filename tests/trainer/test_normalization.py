import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.normalization import FusedBatchNormalization, batch_norm


def twins(shape):
    """Ours and Keras' own layer, with equal random weights."""
    ours = batch_norm()
    keras_own = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    for layer in (ours, keras_own):
        layer.build(shape)
    rng = np.random.default_rng(0)
    weights = [rng.random(shape[-1]) + 0.5 for _ in ours.weights]
    for layer in (ours, keras_own):
        layer.set_weights(weights)
    return ours, keras_own


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("shape", [(6, 4, 3, 5), (8, 5), (1, 1, 1, 5)])
def test_outputs_gradients_and_statistics_equal_keras(shape, frozen, training):
    x = tf.constant(np.random.default_rng(1).normal(2, 3, shape).astype(np.float32))
    results = []
    for layer in twins(shape):
        layer.trainable = not frozen
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * tf.cos(tf.range(5.0)) * y)
        results.append(
            [y, *tape.gradient(loss, [x, *layer.trainable_variables]), *layer.get_weights()]
        )
    for ours, keras_own in zip(*results, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-4, atol=2e-4)


def test_half_precision_normalises_in_single():
    layer = FusedBatchNormalization(dtype="mixed_bfloat16")
    x = tf.cast(np.random.default_rng(2).normal(50, 1, (32, 4, 4, 2)), tf.bfloat16)
    y = layer(x, training=True)
    assert y.dtype == tf.bfloat16
    assert layer.moving_mean.dtype == "float32"
    np.testing.assert_allclose(tf.math.reduce_std(tf.cast(y, tf.float32)), 1, atol=0.02)


def test_a_scale_may_start_at_zero_and_an_offset_be_absent():
    assert batch_norm(zero_gamma=True).gamma_initializer.__class__.__name__ == "Zeros"
    layer = batch_norm(center=False)
    layer.build((None, 3))
    assert layer.beta is None
