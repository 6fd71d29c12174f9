import json
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import BackboneSettings, ProjectionSettings
from trainer.heads import ProjectionHead, SupervisedHead
from trainer.resnet import FixedPaddingConvolution, ResNet, SelectiveKernel, Shortcut

BY_PATH = {
    "r18_1x_sk0": {"depth": 18},
    "r18_1x_sk1": {"depth": 18, "sk_ratio": 0.0625},
    "r18_cifar": {"depth": 18, "stem": "cifar"},
    "r50_1x_sk0": {"depth": 50},
    "r50_1x_sk1": {"depth": 50, "sk_ratio": 0.0625},
    "r50_2x_sk1": {"depth": 50, "width": 2, "sk_ratio": 0.0625},
}
BY_NAME = {
    "r18_1x_sk0": {"depth": 18},
    "r50_1x_sk0": {"depth": 50},
    "r50_1x_sk1": {"depth": 50, "sk_ratio": 0.0625},
    "r50_2x_sk0": {"depth": 50, "width": 2},
}


# In training mode the selective kernels of a ResNet-50 normalise over two pooled values, the two
# images': rounding decides, and an input changed by 1e-6 moves the outcome by a quarter. Training
# mode of these is held block by block, in `test_training_mode.py`.
CHAOTIC = ("r50_1x_sk1", "r50_2x_sk1")


def slow(cases, *names):
    return [pytest.param(case, marks=pytest.mark.slow if case in names else ()) for case in cases]


def build(settings, classes):
    """Encoder and heads, built; and their variables as the public code knows them."""
    encoder = ResNet(BackboneSettings(**settings))
    projection = ProjectionHead(ProjectionSettings())
    classifier = SupervisedHead(classes)
    features = encoder(tf.zeros([1, 64, 64, 3]))["final_avg_pool"]
    projection(features)
    classifier(features)
    parts = (encoder, projection, classifier)
    return *parts, [found for part in parts for found in part.reference_variables()]


def scaled_noise(noise, field):
    fan_in = np.prod(noise.shape[:-1])
    return {
        "kernel": lambda: noise * np.sqrt(2 / fan_in),
        "gamma": lambda: 1 + 0.1 * noise,
        "moving_variance": lambda: 1 + 0.1 * np.abs(noise),
    }.get(field, lambda: 0.1 * noise)().astype(np.float32)


@pytest.mark.parametrize("variant", slow(BY_PATH, "r50_1x_sk0", "r50_1x_sk1", "r50_2x_sk1"))
def test_outputs_equal_the_reference_by_object_path(shared, variant):
    golden = json.loads((shared / f"golden/simclr_by_path/forward_{variant}.json").read_text())
    encoder, projection, classifier, found = build(BY_PATH[variant], classes=10)

    assert {reference.path: list(reference.variable.shape) for reference in found} == {
        path: shape for path, _, shape in golden["variables"]
    }
    for reference in found:
        noise = np.random.RandomState(zlib.crc32(reference.path.encode())).randn(
            *reference.variable.shape
        )
        reference.variable.assign(scaled_noise(noise, reference.path.rsplit("/", 1)[1]))

    moving = [v for v in encoder.variables if not v.trainable]
    before = [v.numpy() for v in moving]
    for size, expected in golden["out"].items():
        height, width = map(int, size.split("x"))
        images = np.random.RandomState(11).rand(2, height, width, 3).astype(np.float32)
        pooled = encoder(images)["final_avg_pool"]
        hiddens = projection(pooled)
        actual = {
            "avgpool_mean": tf.reduce_mean(pooled),
            "avgpool_std": tf.math.reduce_std(pooled),
            "avgpool8": pooled[0, :8],
            "nl0_mean": tf.reduce_mean(hiddens[1]),
            "nl0_8": hiddens[1][0, :8],
            "proj8": hiddens[-1][0, :8],
            "logits": classifier(pooled)[0],
            "train_avgpool8": encoder(images, training=True)["final_avg_pool"][0, :8],
        }
        assert actual.keys() == expected.keys()
        if variant in CHAOTIC:
            del actual["train_avgpool8"]
        for key, value in actual.items():
            # Few decimals are stored; statistics of two images magnify rounding.
            relative = 1e-3 if key.startswith("train") else 5e-5
            tolerance = 6e-5 + relative * np.abs(expected[key]).max()
            np.testing.assert_allclose(value, expected[key], rtol=0, atol=tolerance, err_msg=key)
        for variable, value in zip(moving, before, strict=True):
            variable.assign(value)


@pytest.mark.parametrize("variant", slow(BY_NAME, "r50_1x_sk1", "r50_2x_sk0"))
def test_outputs_equal_the_reference_by_variable_name(shared, variant):
    folder = shared / "golden/simclr"
    names = json.loads((folder / f"{variant}.json").read_text())
    golden = np.load(folder / f"{variant}.npz")
    encoder, projection, classifier, found = build(BY_NAME[variant], classes=1000)
    by_name = {reference.name: reference.variable for reference in found}

    assert len(by_name) == len(names)
    for name, shape, trainable in names:
        variable = by_name[as_tf1(name)]
        assert list(variable.shape) == shape
        assert variable.trainable == trainable
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        variable.assign(scaled_noise(generator.standard_normal(shape), name.rsplit("/", 1)[1]))

    images = np.random.Generator(np.random.PCG64(0)).random((2, 64, 64, 3)).astype(np.float32)
    pooled = encoder(images)["final_avg_pool"]
    actual = {
        "final_avg_pool": pooled,
        "projection": projection(pooled)[-1],
        "sup_input": pooled[:, :64],
        "logits_sup": classifier(pooled)[:, :64],
        "final_avg_pool_training": encoder(images, training=True)["final_avg_pool"],
    }
    assert set(actual) == set(golden)
    if variant in CHAOTIC:
        del actual["final_avg_pool_training"]
    for key, value in actual.items():
        # Normalising by the statistics of two images magnifies rounding.
        tolerance = 1e-3 if key.endswith("training") else 5e-5
        scale = np.abs(golden[key]).max()
        np.testing.assert_allclose(value, golden[key], rtol=0, atol=tolerance * scale, err_msg=key)


def as_tf1(name):
    """The TF1 checkpoint's name of a variable of the TF2 code (SIMCLR code: same N on both)."""
    first, *_, layer, field = name.replace("sync_batch_norm", "batch_norm").split("/")
    if first == "resnet":
        return f"base_model/{layer}/{field}"
    kind = "dense" if layer.startswith("dense") else "batch_normalization"
    if first == "projection_head":
        return f"head_contrastive/{name.split('/')[1]}/{kind}/{field}"
    return f"head_supervised/linear_layer/{kind}/{field}"


PUBLISHED = {  # depth, width, selective kernels: trainable parameters
    (50, 1, False): 23_508_032,
    (50, 1, True): 35_215_584,
    (50, 2, False): 93_907_072,
    (50, 2, True): 140_306_048,
    (101, 1, False): 42_500_160,
    (101, 1, True): 64_662_304,
    (101, 2, False): 169_771_136,
    (101, 2, True): 257_132_224,
    (152, 1, False): 58_143_808,
    (152, 1, True): 88_940_896,
    (152, 2, False): 232_253_568,
    (152, 2, True): 353_398_528,
    (152, 3, True): 794_704_160,
    (18, 1, False): 11_180_736,
    (34, 1, False): 21_288_896,
}
FAST = ((18, 1, False), (50, 1, False))


@pytest.mark.parametrize(
    ("network", "count"),
    [
        pytest.param(network, count, marks=() if network in FAST else pytest.mark.slow)
        for network, count in PUBLISHED.items()
    ],
)
def test_trainable_parameters_are_the_published_ones(network, count):
    """Those of the 13 published encoders, and of the two that are not; none is allocated."""
    depth, width, selective = network
    settings = BackboneSettings(depth=depth, width=width, sk_ratio=0.0625 if selective else 0)
    encoder = ResNet(settings)
    with tf.Graph().as_default():
        encoder.compute_output_spec(keras.KerasTensor((1, 32, 32, 3)))
    assert sum(int(np.prod(v.shape)) for v in encoder.trainable_variables) == count


@pytest.mark.parametrize(
    ("settings", "channels"),
    [({"sk_ratio": 0.0625}, 1), ({"stem": "cifar"}, 1), ({"stem": "cifar"}, 3), ({"depth": 50}, 1)],
)
def test_endpoints_of_a_narrow_net(settings, channels):
    encoder = ResNet(BackboneSettings(**{"depth": 18, "width": 0.25} | settings))
    endpoints = encoder(tf.random.uniform([2, 32, 32, channels]))
    cifar = settings.get("stem") == "cifar"
    expansion = 4 if settings.get("depth") == 50 else 1

    assert {name: tuple(tensor.shape) for name, tensor in endpoints.items()} == {
        "initial_conv": (2, 32, 32, 16) if cifar else (2, 16, 16, 16),
        "initial_max_pool": (2, 32, 32, 16) if cifar else (2, 8, 8, 16),
        "block_group1": (2, 32, 32, 16) if cifar else (2, 8, 8, 16 * expansion),
        "block_group2": (2, 16, 16, 32) if cifar else (2, 4, 4, 32 * expansion),
        "block_group3": (2, 8, 8, 64) if cifar else (2, 2, 2, 64 * expansion),
        "block_group4": (2, 4, 4, 128) if cifar else (2, 1, 1, 128 * expansion),
        "final_avg_pool": (2, 128 * expansion),
    }
    assert encoder.features == 128 * expansion


def test_training_moves_the_statistics_and_inference_does_not():
    encoder = ResNet(BackboneSettings(width=0.125))
    images = tf.random.uniform([4, 32, 32, 1])
    encoder(images)
    moving = [v for v in encoder.variables if not v.trainable]
    before = [v.numpy() for v in moving]

    encoder(images, training=False)
    assert all(np.array_equal(v, old) for v, old in zip(moving, before, strict=True))
    encoder(images, training=True)
    assert not any(np.array_equal(v, old) for v, old in zip(moving, before, strict=True))


def test_a_new_block_is_the_identity_on_its_skip():
    """The last scale of every block starts at 0, so only the skip connection passes."""
    encoder = ResNet(BackboneSettings(depth=50, width=0.125))
    encoder(tf.zeros([1, 32, 32, 1]))
    block = encoder.groups[0][1]
    x = tf.random.uniform([2, 8, 8, 32])
    np.testing.assert_array_equal(block(x), x)


def test_selective_kernel_in_training_equals_a_numpy_transcription():
    kernel = SelectiveKernel(filters=8, strides=1, sk_ratio=0.0625)
    x = np.random.default_rng(0).normal(size=(12, 5, 7, 6)).astype(np.float32)
    kernel(x)

    def normalised(values):
        mean, variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
        return np.maximum((values - mean) / np.sqrt(variance + 1e-5), 0)

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    weights = kernel.conv.kernel.numpy()
    streams = normalised(
        sum(padded[:, i : i + 5, j : j + 7] @ weights[i, j] for i in range(3) for j in range(3))
    )
    first, second = streams[..., :8], streams[..., 8:]
    pooled = (first + second).mean(axis=(1, 2), keepdims=True)
    reduced = normalised(pooled @ kernel.reduce.kernel.numpy()[0, 0])
    mix = np.exp(reduced @ kernel.expand.kernel.numpy()[0, 0])
    share = mix[..., :8] / (mix[..., :8] + mix[..., 8:])

    assert reduced.shape[-1] == 32
    np.testing.assert_allclose(
        kernel(x, training=True), share * first + (1 - share) * second, atol=1e-4
    )


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_pooled_shortcut_equals_a_numpy_transcription(size):
    """ResNet-D's: a row and a column of zeros come last, and at odd sizes are averaged in."""
    shortcut = Shortcut(3, 2, pooled=True)
    x = np.random.default_rng(0).normal(size=(2, *size, 4)).astype(np.float32)
    actual = shortcut(x)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    high, wide = ((side + 1) // 2 for side in size)
    pooled = np.stack(
        [
            [padded[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(1, 2)) for j in range(wide)]
            for i in range(high)
        ]
    ).transpose(2, 0, 1, 3)
    expected = pooled @ shortcut.conv.kernel.numpy()[0, 0] / np.sqrt(1 + 1e-5)
    assert actual.shape == (2, high, wide, 3)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
@pytest.mark.parametrize("kernel", [3, 7])
def test_strided_convolution_pads_alike_at_every_size(kernel, size):
    layer = FixedPaddingConvolution(2, kernel, 2)
    x = np.random.default_rng(1).normal(size=(1, *size, 1)).astype(np.float32)
    actual = layer(x).numpy()
    before = (kernel - 1) // 2
    padded = np.pad(x[0, ..., 0], (before, kernel - 1 - before))
    weights = layer.kernel.numpy()[:, :, 0]
    for i, j in np.ndindex(actual.shape[1:3]):
        window = padded[2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel]
        np.testing.assert_allclose(
            actual[0, i, j], np.einsum("ij,ijc->c", window, weights), atol=1e-5
        )
    assert actual.shape == (1, (size[0] + 1) // 2, (size[1] + 1) // 2, 2)


def test_mixed_precision_keeps_variables_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = ResNet(BackboneSettings(width=0.125, sk_ratio=0.0625))
        head = SupervisedHead(4)
        pooled = encoder(tf.random.uniform([2, 32, 32, 1]))["final_avg_pool"]
        logits = head(pooled)
    finally:
        keras.config.set_dtype_policy(policy)
    assert pooled.dtype == tf.bfloat16
    assert logits.dtype == tf.float32
    assert {v.dtype for v in encoder.variables} == {"float32"}
