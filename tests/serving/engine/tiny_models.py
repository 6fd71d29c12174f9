"""Two small classifiers whose answers cannot be mistaken for each other, exported as ours are."""

import asyncio
import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from registry.local import LocalRegistry
from serving.config import ServerSettings
from serving.engine import ServingEngine
from serving.interface import PredictRequest

CLASSES = ("Mild", "Moderate", "Non", "VeryMild")
SIZE = 32
NAME = "student"
WHY = {"metrics": {}, "lineage": {}, "reason": "test", "who": "test"}


def png(seed: int, side: int = 40) -> bytes:
    """Noise, brighter with the seed."""
    pixels = np.random.default_rng(seed).integers(0, 16 * (seed % 16) + 16, (side, side), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = [png(seed) for seed in range(16)]


def golden(folder: Path, answers: dict[str, np.ndarray], images=tuple(IMAGES[:4])) -> None:
    lengths = np.array([len(image) for image in images])
    padded = np.zeros((len(images), lengths.max()), np.uint8)
    for row, image in zip(padded, images, strict=True):
        row[: len(image)] = np.frombuffer(image, np.uint8)
    np.savez(folder / "golden.npz", images=padded, lengths=lengths, **answers)


def card(folder: Path, **changed) -> None:
    fields = {
        "format": 1,
        "classes": list(CLASSES),
        "input": {"image_size": SIZE, "channels": 1},
        "temperature": 1.0,
        "ops": [],
    }
    (folder / "serving.json").write_text(json.dumps(fields | changed))


def export_to(folder: Path, favourite: int) -> None:
    import keras
    import tensorflow as tf

    from trainer import export, litert
    from trainer.config import InputSettings
    from trainer.student import Student

    keras.utils.set_random_seed(favourite)
    settings = InputSettings(image_size=SIZE)
    model = Student((4,), 8, len(CLASSES))
    model(np.zeros((1, SIZE, SIZE, 1), np.float32))
    bias = np.zeros(len(CLASSES), np.float32)
    bias[favourite] = 4.0
    model.logits.bias.assign(bias)
    model.logits.kernel.assign(model.logits.kernel * 8)  # so that images differ
    export.save(folder, model, settings, CLASSES)
    levels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 1), np.uint8)
    (folder / "litert").mkdir()
    for name, content in litert.convert(model, settings, levels).items():
        (folder / "litert" / name).write_bytes(content)
    card(folder)
    loaded = tf.saved_model.load(str(folder)).signatures["predict_images"]
    outputs = loaded(images=tf.constant(IMAGES))["probabilities"].numpy()
    np.save(folder.parent / f"{folder.name}.npy", outputs)


def variant(exported: Path, target: Path) -> Path:
    """A copy of an export, to be spoilt."""
    shutil.copytree(exported, target)
    return target


def engine_of(registry: LocalRegistry, **changed) -> ServingEngine:
    end_canary = changed.pop("end_canary", None)
    settings = ServerSettings(registry=registry.root, poll_seconds=0.02, **changed)
    return ServingEngine(settings, end_canary=end_canary)


@contextlib.asynccontextmanager
async def running(registry: LocalRegistry, **changed):
    """An engine that has started, and stops at the end."""
    engine = engine_of(registry, **changed)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def ask(images=tuple(IMAGES[:1]), **changed) -> PredictRequest:
    fields = {
        "model": NAME,
        "images": list(images),
        "version": None,
        "label": None,
        "request_id": "r",
    }
    return PredictRequest(**(fields | changed))


async def until(condition, seconds: float = 10.0) -> None:
    """Waits for something that the engine does by itself."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
