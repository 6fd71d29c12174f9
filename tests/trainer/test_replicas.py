"""Training on several replicas gives what one replica gives on the whole batch.

Runs in a process of its own: TensorFlow splits a CPU into logical devices only at its start.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, sys
import numpy as np
import keras
import tensorflow as tf
from trainer.config import OptimizerSettings, ProjectionSettings
from trainer.heads import ProjectionHead
from trainer.losses import nt_xent
from trainer.optimizers import build_optimizer

replicas = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
names = [device.name for device in tf.config.list_logical_devices("CPU")]
strategy = tf.distribute.MirroredStrategy(names) if replicas == 2 else tf.distribute.get_strategy()
views = np.random.default_rng(0).random((2, 8, 16)).astype(np.float32)

with strategy.scope():
    keras.utils.set_random_seed(0)
    network = ProjectionHead(ProjectionSettings(layers=2, dim=4))
    network(views[0, :1])
    for number, variable in enumerate(network.trainable_variables):
        values = np.random.default_rng(number).normal(size=variable.shape)
        variable.assign(1 + 0.1 * values if len(variable.shape) == 1 else 0.2 * values)
    settings = OptimizerSettings(learning_rate=0.2)
    optimizer = build_optimizer(
        settings, model=network, steps_per_epoch=4, epochs=1, batch_size=8
    )

def step(first, second):
    with tf.GradientTape() as tape:
        hidden = network(tf.concat([first, second], 0), training=True)[-1]
        loss = nt_xent(*tf.split(hidden, 2), 0.5)
        shared = loss / strategy.num_replicas_in_sync
    variables = network.trainable_variables
    optimizer.apply(tape.gradient(shared, variables), variables)
    return loss

@tf.function
def train(first, second):
    losses = strategy.run(step, args=(first, second))
    return strategy.reduce("mean", losses, axis=None)

def parted(view):
    share = len(view) // replicas
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(view[context.replica_id_in_sync_group * share :][:share])
    )

history = [float(train(parted(views[0]), parted(views[1]))) for _ in range(2)]
sums = [float(tf.reduce_sum(tf.abs(tf.convert_to_tensor(v)))) for v in network.variables]
print(json.dumps({"loss": history, "sums": sums}))
"""


def trained(replicas):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(replicas)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_replicas_train_as_one():
    """Negatives, batch statistics and gradients all come from both replicas."""
    one, two = trained(1), trained(2)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    np.testing.assert_allclose(two["sums"], one["sums"], rtol=1e-3)
    assert one["loss"][0] != pytest.approx(one["loss"][1], rel=1e-3)
