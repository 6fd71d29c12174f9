"""The student as LiteRT files, in float and in int8, each checked against the SavedModel's model.

Both take what the network sees, `float32[1, S, S, C]` in [0, 1], and give `float32[1, classes]`
probabilities, so that a caller swaps one file for the other without a change; the int8 file
converts at its two ends and computes in integers between (its softmax has steps of 1/256).

The network goes through a SavedModel of its own: converting a Keras 3 model or an unfrozen
function aborts the whole process on TensorFlow 2.16.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.config import InputSettings, LiteRTSettings
from trainer.errors import ConversionError
from trainer.examples import Examples
from trainer.preprocessing import scale
from trainer.validation import log_softmax, predictor

TIE = 0.02  # of probability; int8's softmax has steps of 1/256, so a smaller lead decides nothing

FLOAT, INT8, CHECK = "model.float.tflite", "model.int8.tflite", "check.json"


def export(
    folder: Path,
    model: keras.Model,
    settings: LiteRTSettings,
    *,
    input_settings: InputSettings,
    calibration: Examples,
    held_out: Examples,
) -> dict[str, dict[str, float]]:
    """Writes both files and what their check measured (`check.json`).

    Args:
        folder: created; left without files when a check fails.
        model: a classifier.
        settings: how many images calibrate and check, and what the check must show.
        input_settings: what the network sees.
        calibration: training examples, whose activations set the int8 ranges.
        held_out: validation examples for the check.

    Returns:
        Per file name: what `compare` measures, and `bytes`.

    Raises:
        ConversionError: a file's answers differ from the model's by more than `settings` allow.
    """
    shown = spread(calibration, settings.calibration_images)
    checked = held_out.select(spread(held_out, settings.checked_images))
    wanted = np.exp(log_softmax(predictor(model)(checked.images)))
    files = convert(model, input_settings, calibration.images[shown])
    report = {}
    for name, content in files.items():
        received = predict(content, scale(checked.images).numpy())
        report[name] = {**compare(wanted, received), "bytes": len(content)}
    check(report, settings)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / CHECK).write_text(json.dumps(report, indent=2) + "\n")
    return report


def spread(examples: Examples, count: int) -> np.ndarray:
    """Picks examples of as many people as there are: one slice of each, then a second, and so on.

    Returns:
        `int[min(count, N)]` positions; the middle slice of a person comes first.
    """
    subjects = examples.subjects
    if subjects is None:
        return np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int)
    _, person = np.unique(subjects.astype(str), return_inverse=True)
    turn = np.zeros(len(examples), dtype=int)
    for number in range(person.max() + 1):
        slices = np.flatnonzero(person == number)
        from_middle = np.argsort(np.abs(np.arange(len(slices)) - len(slices) // 2), kind="stable")
        turn[slices[from_middle]] = np.arange(len(slices))
    return np.lexsort((person, turn))[:count]


def convert(
    model: keras.Model, settings: InputSettings, calibration: np.ndarray
) -> dict[str, bytes]:
    """Converts a classifier.

    Args:
        model: the classifier.
        settings: what it sees.
        calibration: `uint8[M, S, S, C]`, M ≥ 1.

    Returns:
        File name → content.
    """
    size, channels = settings.image_size, settings.channels

    @tf.function(input_signature=[tf.TensorSpec((1, size, size, channels), name="images")])
    def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.nn.softmax(model(images, training=False))}

    def samples() -> Iterator[list[tf.Tensor]]:
        for levels in calibration:
            yield [scale(levels[None])]

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=probabilities)
        exact = tf.lite.TFLiteConverter.from_saved_model(folder)
        quantised = tf.lite.TFLiteConverter.from_saved_model(folder)
        quantised.optimizations = [tf.lite.Optimize.DEFAULT]
        quantised.representative_dataset = samples
        quantised.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return {FLOAT: exact.convert(), INT8: quantised.convert()}


def predict(content: bytes, images: np.ndarray) -> np.ndarray:
    """Runs a file, one image at a time on one thread, as a small server would.

    Args:
        content: a `.tflite` file.
        images: `float32[N, S, S, C]` in [0, 1].

    Returns:
        `float32[N, classes]` probabilities.
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 (needed by the student only)

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    answers = []
    for image in images:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(target)[0])
    return np.stack(answers)


def compare(wanted: np.ndarray, received: np.ndarray) -> dict[str, float]:
    """How far two `float[N, classes]` arrays of probabilities lie apart.

    Returns:
        `images`, N; `agreement`, the share of images whose wanted class is the received one or
        lies within `TIE` of it; `max_difference` and `mean_difference` of probabilities.
    """
    difference = np.abs(wanted - received)
    chosen = np.take_along_axis(received, wanted.argmax(axis=1)[:, None], axis=1)[:, 0]
    return {
        "images": len(wanted),
        "agreement": float(np.mean(chosen >= received.max(axis=1) - TIE)),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
    }


def check(report: dict[str, dict[str, float]], settings: LiteRTSettings) -> None:
    """Refuses files that answer differently.

    Raises:
        ConversionError: names the file, the number and its bound.
    """
    exact, quantised = report[FLOAT], report[INT8]
    bounds = (
        (FLOAT, "max_difference", exact["max_difference"] <= settings.float_max_difference,
         f"at most {settings.float_max_difference}"),
        (INT8, "agreement", quantised["agreement"] >= settings.int8_min_agreement,
         f"at least {settings.int8_min_agreement}"),
        (INT8, "mean_difference",
         quantised["mean_difference"] <= settings.int8_max_mean_difference,
         f"at most {settings.int8_max_mean_difference}"),
    )  # fmt: skip
    for name, measure, holds, bound in bounds:
        if not holds:
            raise ConversionError(
                f"{name} does not answer as the student does: {measure} is "
                f"{report[name][measure]:.4g} on {report[name]['images']} validation images, "
                f"wanted {bound}. Raise litert.calibration_images, or loosen the bound in "
                "student.litert if the difference is acceptable."
            )
