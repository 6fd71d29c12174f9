"""The int8 copy of a student: folding, rounding, and what LiteRT makes of it."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from blob_dataset import CLASSES, SIZE, draw_blob

from trainer import architectures, litert, quantization
from trainer.architectures import StudentArchitecture
from trainer.config import DistilSettings, InputSettings, LiteRTSettings
from trainer.errors import Preempted
from trainer.examples import Examples
from trainer.litert import INT8
from trainer.loop import Workspace
from trainer.preprocessing import scale
from trainer.quantization import MOMENTUM, QuantizedStudent, fold
from trainer.stages.quantize import quantize
from trainer.stages.trained import Trained

INPUT = InputSettings(image_size=SIZE)
ARCHITECTURE = StudentArchitecture(filters=(8, 16), dense=16, classes=len(CLASSES))
OTHER = StudentArchitecture(filters=(8, 12, 16), dense=24, classes=4, pools=(4, 4, 1), cells=1)


def blobs(people: int, seed: int) -> Examples:
    random = np.random.default_rng(seed)
    labels = np.arange(people, dtype=np.int32) % len(CLASSES)
    images = np.stack([draw_blob(label, random) for label in labels])
    return Examples(images, labels, np.array([f"{n}" for n in range(people)], dtype=object))


TRAIN, HELD_OUT = blobs(96, 0), blobs(60, 1)


def make_student(architecture: StudentArchitecture, seed: int = 0):
    """A student with statistics of its own, whose answers differ from image to image."""
    student = architectures.build("student", architecture, INPUT, seed)
    random = np.random.default_rng(seed)
    for norm in student.norms:
        width = norm.gamma.shape
        norm.gamma.assign(random.uniform(0.5, 1.5, width))
        norm.beta.assign(random.normal(0, 0.2, width))
        norm.moving_mean.assign(random.normal(0, 0.1, width))
        norm.moving_variance.assign(random.uniform(0.05, 0.2, width))
    answers = student(scale(TRAIN.images)).numpy()
    student.logits.kernel.assign(student.logits.kernel / answers.std(axis=0))
    student.logits.bias.assign(-answers.mean(axis=0) / answers.std(axis=0))
    return student


def stretched(student):
    """Blows some channels up and takes the next layer's weights back: the same function in float.

    Rounding a whole tensor by its largest channel then drowns the others.
    """
    random = np.random.default_rng(3)
    factors = 10 ** random.uniform(-3, 3, student.norms[0].gamma.shape)
    for parameter in (student.norms[0].gamma, student.norms[0].beta):
        parameter.assign(parameter * factors)
    kernel = student.convs[1].kernel
    kernel.assign(kernel / factors[:, None])
    return student


@pytest.mark.parametrize("architecture", [ARCHITECTURE, OTHER])
def test_folding_keeps_the_function(architecture):
    student = make_student(architecture)
    layers = fold(student, temperature=2.0)
    x = images = scale(TRAIN.images[:8])
    pools = student.pools
    for layer, pool in zip(layers, pools, strict=False):
        x = tf.nn.relu(tf.nn.conv2d(x, layer.kernel, 1, "SAME") + layer.bias)
        x = tf.nn.max_pool2d(x, pool, pool, "VALID")
    cell = max(x.shape[1] // architecture.cells, 1)
    x = tf.nn.avg_pool2d(x, cell, cell, "VALID")
    x = tf.nn.relu(tf.nn.conv2d(x, layers[-2].kernel, 1, "VALID") + layers[-2].bias)
    x = tf.nn.conv2d(x, layers[-1].kernel, 1, "VALID") + layers[-1].bias
    assert x.shape[1:3] == (1, 1)
    np.testing.assert_allclose(x[:, 0, 0], student(images) / 2.0, atol=1e-4)


def test_weights_are_rounded_per_channel_to_255_symmetric_levels():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
    kernel *= np.float32([1, 10, 0.1, 3, 0])
    step = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    levels = np.round(np.divide(kernel, step, out=np.zeros_like(kernel), where=step > 0))
    rounded = quantization._rounded_per_channel(tf.constant(kernel)).numpy()
    np.testing.assert_allclose(rounded, levels * step, atol=1e-5 * np.abs(kernel).max())


def test_activations_are_rounded_to_256_levels_of_which_one_is_zero():
    low, high = -1.3, 2.9
    step = (high - low) / 255
    zero = np.round(-low / step)
    x = np.append(np.linspace(-3, 4, 1001), 0.0).astype(np.float32)
    wanted = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step
    rounded = quantization._rounded(tf.constant(x), (low, high)).numpy()
    assert np.abs(rounded - wanted).max() < step * 1.01  # a tie may go either way
    assert np.mean(np.abs(rounded - wanted) < 1e-4) > 0.99
    assert rounded[-1] == 0.0
    assert len(np.unique(rounded)) == 256


def test_gradients_pass_the_rounding_and_end_at_the_range():
    x = tf.constant([-2.0, -0.5, 0.3, 0.9, 5.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(quantization._rounded(x, (-1.0, 1.0)))
    np.testing.assert_array_equal(tape.gradient(total, x), [0, 1, 1, 1, 0])


def test_ranges_move_while_training_only():
    student = make_student(ARCHITECTURE)
    copy = QuantizedStudent(student)
    copy.measure_ranges(TRAIN.images[:32])
    start = copy.ranges[0].numpy()
    copy(scale(TRAIN.images[32:64]), training=False)
    np.testing.assert_array_equal(copy.ranges[0], start)
    copy(scale(TRAIN.images[32:64]), training=True)
    kernel = quantization._rounded_per_channel(tf.convert_to_tensor(copy.kernels[0]))
    seen = tf.nn.conv2d(scale(TRAIN.images[32:64]), kernel, 1, "SAME") + copy.biases[0]
    highest = max(float(tf.reduce_max(seen)), 0.0)
    assert start[0] == 0.0
    np.testing.assert_allclose(
        copy.ranges[0], [0.0, MOMENTUM * start[1] + (1 - MOMENTUM) * highest], rtol=1e-4
    )


@pytest.mark.parametrize("architecture", [ARCHITECTURE, OTHER])
def test_the_int8_file_computes_what_the_copy_computes(architecture):
    copy = QuantizedStudent(make_student(architecture), temperature=1.5)
    copy.measure_ranges(TRAIN.images)
    level = float(np.ptp(copy.ranges[-1])) / 255
    interpreter = interpreter_of(litert.convert_quantized(copy, INPUT))
    (logits,) = (
        detail for detail in inner(interpreter)
        if detail["dtype"] == np.int8 and [*detail["shape"]] == [1, 1, 1, architecture.classes]
        and len(detail["quantization_parameters"]["scales"]) == 1
    )  # fmt: skip
    assert logits["quantization_parameters"]["scales"][0] == pytest.approx(level, rel=1e-3)
    zero = logits["quantization_parameters"]["zero_points"][0]
    apart = []
    for image in scale(HELD_OUT.images).numpy():
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        received = interpreter.get_tensor(logits["index"])[0, 0, 0] - float(zero)
        apart.append(received - copy(image[None])[0].numpy() / level)
    # A value that is midway but for float's last bit goes either way, and the layers above add up
    # what comes of it.
    assert np.mean(np.abs(apart) < 2.5) > 0.98
    assert np.abs(apart).mean() < 0.3


def test_the_int8_file_has_integers_only_and_a_scale_per_channel():
    copy = QuantizedStudent(make_student(ARCHITECTURE))
    copy.measure_ranges(TRAIN.images)
    details = inner(interpreter_of(litert.convert_quantized(copy, INPUT)))
    assert {detail["dtype"] for detail in details} <= {np.int8, np.int32}
    scales = [
        len(detail["quantization_parameters"]["scales"])
        for detail in details
        if detail["dtype"] == np.int8
    ]
    assert sorted(count for count in scales if count > 1) == [len(CLASSES), 8, 16, 16]


def interpreter_of(content: bytes):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    return interpreter


def inner(interpreter) -> list[dict]:
    """Its tensors but the two ends."""
    ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
    outer = {detail["index"] for detail in ends}
    return [d for d in interpreter.get_tensor_details() if d["index"] not in outer]


def test_training_for_int8_regains_what_rounding_loses_and_leaves_the_student_alone(tmp_path):
    student = stretched(make_student(ARCHITECTURE))
    before = student.get_weights()
    settings = DistilSettings(
        input=INPUT, augmentation="none", batch_size=16, quantization_epochs=8,
        litert=LiteRTSettings(int8_min_agreement=0.0, int8_max_mean_difference=1.0),
    )  # fmt: skip
    told = []
    trained = quantize(
        settings, Trained("student", student, ARCHITECTURE, [], temperature=1.25), TRAIN, HELD_OUT,
        workspace=Workspace(
            progress=lambda stage, epoch, epochs, metrics: told.append((stage, epoch))
        ),
    )  # fmt: skip
    assert told == [("quantize", epoch) for epoch in range(1, 9)]
    report = litert.export(
        tmp_path / "litert", student, settings.litert, input_settings=INPUT,
        calibration=TRAIN, held_out=HELD_OUT, temperature=1.25, quantized=trained.quantized,
    )  # fmt: skip
    after, without = report[INT8], report[INT8]["post_training"]
    assert report[litert.FLOAT]["max_difference"] < 1e-4
    assert without["agreement"] < 0.9
    assert after["agreement"] > without["agreement"]
    assert after["mean_difference"] < 0.6 * without["mean_difference"]
    for now, then in zip(student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("states", "The distilled student is kept: .* only this training for int8 begins anew"),
        (None, "Nothing is kept: started again, the student's distillation begins anew"),
    ],
)
def test_a_stop_says_what_is_kept(tmp_path, folder, said):
    settings = DistilSettings(
        input=INPUT, augmentation="none", batch_size=16, quantization_epochs=2
    )
    workspace = Workspace(
        checkpoints=folder and tmp_path / folder,
        progress=lambda *_: os.kill(os.getpid(), signal.SIGTERM),
    )
    trained = Trained("student", make_student(ARCHITECTURE), ARCHITECTURE, [])
    with pytest.raises(Preempted, match=f"quantize was stopped .*{said}"):
        quantize(settings, trained, TRAIN, HELD_OUT, workspace=workspace)
    assert list(tmp_path.iterdir()) == []
