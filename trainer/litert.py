"""The student as LiteRT files, in float and in int8, each checked against the SavedModel's model.

Both take what the network sees, `float32[1, S, S, C]` in [0, 1], and give `float32[1, classes]`
probabilities, those of the SavedModel with its temperature, so that a caller swaps one file for the
other without a change; the int8 file converts at its two ends and computes in integers between (its
softmax has steps of 1/256).

The int8 file's ranges come from calibration images, after training. A `QuantizedStudent`, which was
trained to be rounded, brings weights and ranges of its own: the int8 file is then made of it, and
the check tells what calibration alone would have given. The float file and the SavedModel stay the
student's.

The network goes through a SavedModel of its own: converting a Keras 3 model or an unfrozen
function aborts the whole process on TensorFlow 2.16.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import sampling
from trainer.config import InputSettings, LiteRTSettings
from trainer.errors import ConversionError
from trainer.examples import Examples
from trainer.preprocessing import scale
from trainer.quantization import QuantizedStudent
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
    temperature: float = 1.0,
    quantized: QuantizedStudent | None = None,
) -> dict[str, dict[str, Any]]:
    """Writes both files and what their check measured (`check.json`).

    Args:
        folder: created; left without files when a check fails.
        model: a classifier.
        settings: how many images calibrate and check, and what the check must show.
        input_settings: what the network sees.
        calibration: training examples, whose activations set the int8 ranges.
        held_out: validation examples for the check.
        temperature: probabilities are `softmax(logits / temperature)`.
        quantized: the model's copy trained for int8, if there is one.

    Returns:
        Per file name: what `compare` measures, and `bytes`. With `quantized`, the int8 file's also
        has `post_training`: what `compare` measures of the file that calibration alone gives.

    Raises:
        ConversionError: a file's answers differ from the model's by more than `settings` allow.
    """
    shown = sampling.spread(calibration, settings.calibration_images)
    checked = held_out.select(sampling.spread(held_out, settings.checked_images))
    wanted = np.exp(log_softmax(predictor(model)(checked.images) / temperature))
    images = scale(checked.images).numpy()
    files = convert(model, input_settings, calibration.images[shown], temperature)
    report: dict[str, dict[str, Any]] = {INT8: {}}
    if quantized is not None:
        report[INT8]["post_training"] = compare(wanted, predict(files[INT8], images))
        files[INT8] = convert_quantized(quantized, input_settings)
    for name, content in files.items():
        measured = compare(wanted, predict(content, images))
        report[name] = {**measured, "bytes": len(content), **report.get(name, {})}
    check(report, settings)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / CHECK).write_text(json.dumps(report, indent=2) + "\n")
    return report


def convert(
    model: keras.Model,
    settings: InputSettings,
    calibration: np.ndarray,
    temperature: float = 1.0,
) -> dict[str, bytes]:
    """Converts a classifier, to int8 by calibration.

    Args:
        model: the classifier.
        settings: what it sees.
        calibration: `uint8[M, S, S, C]`, M ≥ 1.
        temperature: probabilities are `softmax(logits / temperature)`.

    Returns:
        File name → content.
    """

    def samples() -> Iterator[list[tf.Tensor]]:
        for levels in calibration:
            yield [scale(levels[None])]

    def logits(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False) / temperature

    with _saved(model, logits, settings) as folder:
        exact = tf.lite.TFLiteConverter.from_saved_model(folder)
        quantised = tf.lite.TFLiteConverter.from_saved_model(folder)
        quantised.optimizations = [tf.lite.Optimize.DEFAULT]
        quantised.representative_dataset = samples
        quantised.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return {FLOAT: exact.convert(), INT8: quantised.convert()}


def convert_quantized(network: QuantizedStudent, settings: InputSettings) -> bytes:
    """Converts a student trained for int8; scales and zero points follow from its ranges."""
    with _saved(network, network.convertible, settings) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


@contextlib.contextmanager
def _saved(
    model: keras.Model, logits: Callable[[tf.Tensor], tf.Tensor], settings: InputSettings
) -> Iterator[str]:
    """Writes what is converted, one image to its probabilities, as a SavedModel for a while."""
    size, channels = settings.image_size, settings.channels

    @tf.function(input_signature=[tf.TensorSpec((1, size, size, channels), name="images")])
    def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.nn.softmax(logits(images))}

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=probabilities)
        yield folder


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


def check(report: dict[str, dict[str, Any]], settings: LiteRTSettings) -> None:
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
