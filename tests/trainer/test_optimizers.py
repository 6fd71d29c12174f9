import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import BackboneSettings, OptimizerSettings, ProjectionSettings
from trainer.heads import ProjectionHead, SupervisedHead
from trainer.lars import LARS
from trainer.optimizers import build_optimizer, normalisation_and_biases
from trainer.resnet import ResNet

LENGTH = {"steps_per_epoch": 10, "epochs": 3, "batch_size": 64}


class Teacher(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = ResNet(BackboneSettings(width=0.125))
        self.projection = ProjectionHead(ProjectionSettings(layers=3, dim=8))
        self.head = SupervisedHead(4)

    def call(self, images, training=False):
        pooled = self.encoder(images, training=training)["final_avg_pool"]
        return self.head(self.projection(pooled, training=training)[1])


@pytest.fixture
def model():
    teacher = Teacher()
    teacher(tf.zeros([1, 32, 32, 1]))
    return teacher


def groups(optimizer, model):
    """Paths of the trainable variables that are decayed, and of those that are adapted."""

    def outside(keys):
        return {v.path for v in model.trainable_variables if optimizer._var_key(v) not in keys}

    return outside(optimizer._undecayed), outside(optimizer._unadapted)


def test_lars_groups_of_the_reference(model):
    """73 trainables in a ResNet-18 with heads; 24 decayed and adapted (21 convolutions, 3 dense),
    and the classifier's kernel, decayed in the reference's loss and here in the optimizer."""
    optimizer = build_optimizer(OptimizerSettings(), model=model, **LENGTH)
    decayed, adapted = groups(optimizer, model)

    assert len(model.trainable_variables) == 73
    assert len(adapted) == 24
    assert decayed - adapted == {model.head.kernel.path}
    assert all(path.endswith("kernel") for path in decayed)
    convolutions = [v for v in model.encoder.trainable_variables if len(v.shape) == 4]
    assert {v.path for v in convolutions} <= adapted
    assert len(convolutions) == 21


def test_settings_reach_the_optimizer(model):
    settings = OptimizerSettings(
        learning_rate=0.1, lr_scaling="sqrt", momentum=0.7, weight_decay=1e-3, warmup_epochs=0.5
    )
    optimizer = build_optimizer(settings, model=model, **LENGTH)
    schedule = optimizer._learning_rate
    assert (optimizer.momentum, optimizer.l2, optimizer.eeta) == (0.7, 1e-3, 0.001)
    assert (schedule.peak, schedule.warmup_steps, schedule.total_steps) == (0.8, 5, 30)


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_zero_gradients_decay_only_what_should_be(model, name):
    settings = OptimizerSettings(name=name, learning_rate=0.5, weight_decay=0.1)
    optimizer = build_optimizer(settings, model=model, **LENGTH)
    for variable in model.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables])

    plain = {v.path for v in normalisation_and_biases(model)}
    for variable in model.trainable_variables:
        moved = not np.array_equal(variable, np.ones(variable.shape))
        assert moved == (variable.path not in plain), variable.path
    assert len(plain) == 73 - 25


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_compiled_step_lowers_the_loss(name, policy):
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        small = keras.Sequential(
            [
                keras.layers.Conv2D(4, 3, use_bias=False),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.GlobalAveragePooling2D(),
                SupervisedHead(2),
            ]
        )
        small.build((None, 8, 8, 1))
    finally:
        keras.config.set_dtype_policy(before)
    rate = {"lars": 0.5, "adamw": 0.05, "sgd": 0.2}[name]
    optimizer = build_optimizer(
        OptimizerSettings(name=name, learning_rate=rate), model=small, **LENGTH
    )
    labels = np.arange(16) % 2
    images = np.random.default_rng(0).random((16, 8, 8, 1)).astype(np.float32)
    images[labels == 1] *= 0.3

    @tf.function(jit_compile=True)
    def train():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, small(images, training=True))
            )
        optimizer.apply(tape.gradient(loss, small.trainable_variables), small.trainable_variables)
        return loss

    history = [float(train()) for _ in range(30)]
    assert history[0] == pytest.approx(np.log(2), abs=0.05)
    assert history[-1] < 0.5 * history[0]
    assert int(optimizer.iterations) == 30


def test_frozen_layers_get_no_slots(model):
    model.encoder.trainable = False
    optimizer = build_optimizer(OptimizerSettings(), model=model, **LENGTH)
    assert isinstance(optimizer, LARS)
    assert len(optimizer.momentums) == len(model.trainable_variables) == 10


def test_a_model_without_variables_is_refused():
    with pytest.raises(ValueError, match="Call it once on a batch first"):
        build_optimizer(OptimizerSettings(), model=Teacher(), **LENGTH)
