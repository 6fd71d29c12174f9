"""The SavedModel by itself: what it takes, what it gives, and at which temperature."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import architectures, export
from trainer.architectures import StudentArchitecture
from trainer.config import InputSettings

INPUT = InputSettings(image_size=16)
ARCHITECTURE = StudentArchitecture(filters=(4,), dense=8, classes=3)


@pytest.fixture(scope="module")
def files() -> tf.Tensor:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)
    return tf.stack([tf.io.encode_png(image) for image in images])


@pytest.mark.parametrize("temperature", [1.0, 3.0, 0.2])
def test_probabilities_are_at_the_temperature_and_logits_are_not(tmp_path, files, temperature):
    model = architectures.build("student", ARCHITECTURE, INPUT, seed=1)
    kernel, bias = model.logits.get_weights()
    model.logits.set_weights([kernel * 20, bias])
    export.save(tmp_path / "model", model, INPUT, ("a", "b", "c"), temperature)
    served = tf.saved_model.load(str(tmp_path / "model")).signatures["predict_images"](images=files)
    images = np.stack([tf.io.decode_png(file).numpy() for file in files]) / np.float32(255)
    logits = np.float64(model(images, training=False))
    wanted = np.exp(logits / temperature)
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(served["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(served["probabilities"], wanted, atol=1e-5)
    np.testing.assert_array_equal(
        served["probabilities"].numpy().argmax(axis=1), logits.argmax(axis=1)
    )
