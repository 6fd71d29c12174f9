"""Trains one small network in several ways, told on the command line; prints what became of it.

A process of its own: TensorFlow splits a CPU into logical devices only at its start.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from trainer.augmentation import augment
from trainer.config import ExecutionSettings, OptimizerSettings
from trainer.execution import Execution
from trainer.losses import DistillationLoss, contrastive_accuracy, cross_entropy, nt_xent
from trainer.normalization import FusedBatchNormalization, batch_norm
from trainer.optimizers import build_optimizer

STEPS, BATCH, CLASSES = 3, 8, 3
IMAGES = np.random.default_rng(0).random((24, 8, 8, 1)).astype(np.float32)
# The first half of a batch has most of the labels.
LABELS = np.where(np.arange(24) % BATCH < 5, np.arange(24) % CLASSES, -1).astype(np.int32)
ANSWERS = np.random.default_rng(1).normal(size=(24, CLASSES)).astype(np.float32)


def network() -> keras.Sequential:
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, padding="same", use_bias=False),
            batch_norm(),
            keras.layers.Activation("tanh"),  # smooth: rounding must not grow
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(8),
            batch_norm(center=False),
            keras.layers.Dense(CLASSES, dtype="float32"),
        ]
    )
    made(IMAGES[:1])
    return made


def cost(kind, model, views, labels, answers):
    outputs = model(views, training=True)
    if kind == "contrastive":
        first, second = tf.split(outputs, 2)
        return nt_xent(first, second, 0.5), {"accuracy": contrastive_accuracy(first, second)}
    if kind == "distillation":
        return DistillationLoss(2.0, 0.5)(labels, outputs, answers), {}
    return cross_entropy(labels, outputs), {}


def train(case: dict) -> dict:
    """Losses, weights and the accuracy's name of a short training."""
    execution = Execution(ExecutionSettings(**case["execution"]))
    kind = case.get("loss", "labels")
    follow = OptimizerSettings(learning_rate=0.05, **case.get("optimizer", {}))
    with execution.scope():
        model = network()
        optimizer = build_optimizer(
            follow, model=model, steps_per_epoch=STEPS, epochs=1, batch_size=BATCH
        )

    def prepare(indices, draw):
        images = tf.gather(tf.constant(IMAGES), indices)
        if kind == "contrastive":
            views = [augment(images, "mri", draw=each) for each in draw.split(2)]
        else:
            views = [images + 0.1 * draw.normal(tf.unstack(tf.shape(images)))]
        return (
            tf.concat(views, 0),
            tf.gather(tf.constant(LABELS), indices),
            tf.gather(tf.constant(ANSWERS), indices),
        )

    step = execution.compile(
        model, optimizer, lambda *rows: cost(kind, model, *rows), prepare=prepare, follow=follow
    )
    if case.get("from_host"):
        step._prepares_on_host = True
    told = [
        step(tf.range(BATCH) + BATCH * number, tf.constant([number, 7])) for number in range(STEPS)
    ]
    return {
        "told": sorted(told[0]),
        "losses": [float(scalars["loss"]) for scalars in told],
        "steps": int(keras.ops.convert_to_numpy(optimizer.iterations)),
        "weights": [keras.ops.convert_to_numpy(weight).tolist() for weight in model.weights],
    }


def moments() -> dict:
    """Statistics over two replicas of images whose mean is far above their spread."""
    execution = Execution(ExecutionSettings(strategy="mirrored", replicas=2))
    values = np.random.default_rng(2).normal(3000, 1, (8, 2, 2, 3)).astype(np.float32)
    values[:4] += 2
    with execution.scope():
        layer = batch_norm()
        layer.build(values.shape)
    assert isinstance(layer, FusedBatchNormalization)
    assert layer.synchronized

    @tf.function
    def run():
        def normalise():
            place = tf.distribute.get_replica_context().replica_id_in_sync_group * 4
            return layer(tf.slice(values, [place, 0, 0, 0], [4, 2, 2, 3]), training=True)

        return execution.strategy.run(normalise)

    parts = execution.strategy.experimental_local_results(run())
    wide = values.astype(np.float64)
    expected = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    error = float(np.abs(np.concatenate(parts) - expected).max())
    variance = keras.ops.convert_to_numpy(layer.moving_variance)
    return {"error": error, "variance": (variance / (0.9 + 0.1 * wide.var((0, 1, 2)))).tolist()}


if __name__ == "__main__":
    cases = json.loads(sys.argv[1])
    Execution(ExecutionSettings(strategy="mirrored", replicas=2))
    print(json.dumps({"moments": moments()} | {name: train(case) for name, case in cases.items()}))
