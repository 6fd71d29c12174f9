"""Where the public SimCLR code is weak, ours is held to do better.

What other files hold already: frozen parts keep their statistics, a head of other classes starts
anew (`test_finetune.py`); parameter groups of a whole teacher (`test_optimizers.py`); projection
layers that nothing uses are not trained (`test_bundle.py`); blur has each image's own width
(`test_augmentation.py`); the best epoch is kept (`test_loop.py`); signatures can be served
(`test_export.py`, `test_stages.py`); every transferred variable learns, colour and grey
(`checkpoints/`).
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from trainer import architectures, export
from trainer.architectures import EncoderArchitecture
from trainer.augmentation import augment, blur
from trainer.config import (
    BackboneSettings,
    InputSettings,
    OptimizerSettings,
    ProjectionSettings,
)
from trainer.draws import Draw
from trainer.heads import ProjectionHead, SupervisedHead
from trainer.optimizers import build_optimizer
from trainer.preprocessing import decode, preprocess
from trainer.resnet import ResNet

NARROW = BackboneSettings(width=0.125)


def operations(function: tf.types.experimental.ConcreteFunction) -> set[str]:
    """Types of all operations of a graph and of the functions it calls."""
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(body.node_def for body in graph.library.function)]
    return {node.op for nodes in bodies for node in nodes}


def test_parameter_groups_do_not_hang_on_names():
    """The reference searches names for `bias` and `batch_normalization`; Keras 3's hold neither."""
    encoder = ResNet(NARROW)
    encoder(tf.zeros([1, 32, 32, 1]))
    for variable in encoder.variables:
        assert "batch_normalization" not in variable.name

    misnamed = keras.Sequential(
        [
            layers.Dense(5, name="head_supervised_bias"),
            layers.BatchNormalization(name="dense"),
            SupervisedHead(2, name="batch_normalization"),
        ]
    )
    misnamed.build((None, 3))
    optimizer = build_optimizer(
        OptimizerSettings(learning_rate=1.0, weight_decay=0.5),
        model=misnamed,
        steps_per_epoch=1,
        epochs=1,
        batch_size=1,
    )
    variables = misnamed.trainable_variables
    for variable in variables:
        variable.assign(tf.ones_like(variable))
    optimizer.apply([tf.zeros_like(v) for v in variables], variables)
    moved = [float(tf.reduce_max(tf.abs(1 - v))) for v in variables]
    kernel, bias, gamma, beta, head, head_bias = moved
    assert kernel == pytest.approx(0.001, rel=1e-3)  # adapted: eeta, times its own norm
    assert bias == gamma == beta == head_bias == 0
    assert head == pytest.approx(0.5)  # decayed and not adapted


def test_inference_is_the_default():
    """The reference's networks want to be told, and in training mode answer at random."""
    model = architectures.build(
        "encoder",
        EncoderArchitecture(backbone=NARROW, projection=ProjectionSettings(dim=8)),
        InputSettings(image_size=32),
        seed=0,
    )
    images = tf.random.stateless_uniform([4, 32, 32, 1], [1, 2])
    before = model.get_weights()
    first, second = (model(images)["projections"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, model(images, training=False)["projections"])
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_an_exported_model_augments_nothing(tmp_path):
    """The reference exports its random blur with the pretrained network."""
    settings = InputSettings(image_size=32)
    model = architectures.build("encoder", EncoderArchitecture(backbone=NARROW), settings, seed=0)
    export.save(tmp_path / "model", model, settings)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    signature = loaded.signatures["predict_images"]
    assert not {name for name in operations(signature) if "Random" in name or "Depthwise" in name}

    levels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    files = tf.stack([tf.io.encode_png(image) for image in levels])
    answers = signature(images=files)["embeddings"]
    np.testing.assert_array_equal(signature(images=files)["embeddings"], answers)
    expected = model(levels.astype(np.float32) / 255)["embeddings"]
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert loaded.weights


def test_blur_of_a_large_image_needs_no_depthwise_kernel():
    """23 taps at 224 pixels: a depthwise convolution of 15 or more crashes oneDNN on AVX-512."""
    traced = tf.function(lambda images: augment(images, "simclr", draw=Draw(tf.constant([0, 1]))))
    found = operations(traced.get_concrete_function(tf.TensorSpec([2, 224, 224, 3])))
    assert "BatchMatMulV2" in found
    assert not {name for name in found if "Depthwise" in name or "Conv" in name}

    image = np.random.default_rng(0).random((224, 224)).astype(np.float32)
    blurred = blur(tf.constant(image[None, ..., None]), 11, tf.constant([1.7]))[0, ..., 0]
    taps = np.exp(-0.5 * (np.arange(-11, 12) / 1.7) ** 2)
    taps /= taps.sum()
    window = image[100:123, 50:73]
    np.testing.assert_allclose(blurred[111, 61], taps @ window @ taps, atol=1e-6)


def test_two_networks_of_one_process_answer_alike():
    """The reference finds endpoints by names that count layers, and fails at its second model."""
    first, second = (ResNet(NARROW) for _ in range(2))
    images = tf.random.stateless_uniform([2, 32, 32, 1], [1, 2])
    first(images)
    second(images)
    second.set_weights(first.get_weights())
    one, other = first(images), second(images)
    assert list(one) == list(other)
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, other[name])
    paths = [[each.path for each in net.reference_variables()] for net in (first, second)]
    names = [[each.name for each in net.reference_variables()] for net in (first, second)]
    assert paths[0] == paths[1]
    assert names[0] == names[1]


def test_a_projection_head_may_be_linear():
    """One layer without ReLU, which the reference's own switch for it cannot build."""
    head = ProjectionHead(ProjectionSettings(layers=1, dim=4))
    features = tf.random.stateless_normal([6, 8], [1, 2])
    twice = head(2 * features)[-1] - head(0 * features)[-1]
    np.testing.assert_allclose(twice, 2 * head(features)[-1], atol=1e-6)


def test_evaluation_sees_what_the_reference_cuts_off(shared):
    """Its centre crop, for photographs, takes a third of a slice and the cortex with it."""
    stored = json.loads((shared / "golden/losses_schedules_preprocessing.json").read_text())
    for text, (rows, columns) in stored["crop_shape"].items():
        height, width = map(int, text.split("->")[0].split("x"))
        top, left = (height - rows + 1) // 2, (width - columns + 1) // 2
        outside = np.full((height, width, 1), 255, np.uint8)
        outside[top : top + rows, left : left + columns] = 0
        levels = decode(tf.io.encode_png(outside)[None], InputSettings(image_size=64))[0, ..., 0]
        seen = (levels.numpy() / 255).mean()
        assert seen == pytest.approx(1 - rows * columns / (height * width), abs=0.005)


def test_stripes_finer_than_a_pixel_become_grey():
    """Ours antialiases: a slice shown at a third of its size would shimmer otherwise."""
    stripes = np.zeros((96, 96, 1), np.uint8)
    stripes[::3] = 255
    levels = [
        decode(
            tf.io.encode_png(np.roll(stripes, shift, axis=0))[None], InputSettings(image_size=32)
        )
        for shift in range(3)
    ]
    inner = [each.numpy()[:, 2:-2].astype(int) for each in levels]
    aliased = tf.image.resize(np.float32(stripes), (32, 32), "bicubic")
    assert max(np.abs(each - 85).max() for each in inner) < 30
    assert np.abs(aliased - 85).max() > 80


@pytest.mark.parametrize("shape", [(208, 176), (20, 33)])
def test_any_image_is_brought_to_the_size_of_a_small_network(shape):
    """At 32 pixels and below the reference's evaluation crashes on any other size."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 1), np.uint8)
    seen = preprocess(tf.io.encode_png(image)[None], InputSettings(image_size=32))
    cifar = ResNet(BackboneSettings(width=0.125, stem="cifar"))
    assert cifar(seen)["final_avg_pool"].shape == (1, 64)
