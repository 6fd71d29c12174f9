"""Exports for the tests of what may be served: honest ones, and ones that were tampered with."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from serving import graphs

SIZE, CLASSES = 16, ("a", "b", "c")


def student(folder: Path, channels: int = 1, seed: int = 1) -> Path:
    """A tiny student with all that `trainer.run_fn` leaves beside it, but an input gate."""
    from trainer import architectures, export, golden, litert
    from trainer.config import InputSettings

    settings = InputSettings(image_size=SIZE, channels=channels)
    architecture = architectures.StudentArchitecture(filters=(4,), dense=8, classes=len(CLASSES))
    model = architectures.build("student", architecture, settings, seed=seed)
    export.save(folder, model, settings, CLASSES, 1.5)
    seen = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, channels), np.uint8)
    (folder / "litert").mkdir()
    for name, content in litert.convert(model, settings, seen, 1.5).items():
        (folder / "litert" / name).write_bytes(content)
    golden.record(folder, SIZE, channels)
    return folder


def teacher(folder: Path, image_size: int = 32, channels: int = 1, **backbone: Any) -> Path:
    """A narrow teacher; its SavedModel alone."""
    from trainer import architectures, export
    from trainer.config import InputSettings

    settings = InputSettings(image_size=image_size, channels=channels)
    architecture = architectures.TeacherArchitecture.model_validate(
        {
            "backbone": {"width": 0.0625, **backbone},
            "projection": {"layers": 2, "dim": 8},
            "ft_proj_selector": 1,
            "classes": 2,
        }
    )
    export.save(
        folder, architectures.build("teacher", architecture, settings), settings, ("a", "b")
    )
    return folder


def swapped(
    honest: Path, folder: Path, answer: Callable[[Any, Any], Any], weight: float = 0.0
) -> Path:
    """An honest export whose SavedModel is another program, under the same signatures.

    Args:
        honest: what `student` left.
        folder: where the copy goes.
        answer: from the images, string[N], and the batch size to probabilities, float32[N, 3].
        weight: a variable that is added to them.
    """
    import tensorflow as tf

    shutil.copytree(honest, folder)
    module = tf.Module()
    module.weight = tf.Variable(weight, trainable=False)
    module.class_names = tf.Variable(tf.constant(CLASSES), trainable=False)
    signatures = {}
    for name, argument in (("serving_default", "examples"), ("predict_images", "images")):

        def program(images):
            return {"probabilities": answer(images, tf.shape(images)[0]) + module.weight}

        signature = tf.TensorSpec([None], tf.string, name=argument)
        signatures[name] = tf.function(program).get_concrete_function(signature)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def edited(honest: Path, change: Callable[[Any], None]) -> bytes:
    """`saved_model.pb` of an export after a change to its first MetaGraphDef."""
    model = graphs.parse_saved_model((honest / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    return model.SerializeToString()


def function_named(graph: Any, part: str) -> Any:
    """The function of a graph whose name has `part` in it."""
    return next(each for each in graph.graph_def.library.function if part in each.signature.name)
