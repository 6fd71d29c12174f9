"""A small trained student as a version in a registry: what every server of the benchmark serves.

    python -m benchmarks.serving_peers.export REGISTRY NAME SIZE

The default student (`trainer.config.DistilSettings`) at SIZE pixels, trained for some seconds on
phantom slices of 128 pixels with a fixed seed, exported as the pipeline exports it: SavedModel,
LiteRT files, golden batch, input gate. How good it is does not matter here; that its answers differ
between images does.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from ingest.phantom import PhantomSpec, Subject, render_subject
from registry.local import LocalRegistry

SEED = 5
STORED = 128  # pixels of an image as sent
PEOPLE = (10, 10, 10, 10)  # of each class
SLICES = 8
EPOCHS = 6
WHY = {"reason": "benchmark", "who": "benchmarks.serving"}


def people(count: int, seed: int = SEED) -> list[Subject]:
    """The first people of a small phantom; their classes alternate."""
    spec = PhantomSpec("easy", PEOPLE, SLICES, STORED, seed=seed)
    return [render_subject(spec, index) for index in range(count)]


def slices(seed: int = SEED) -> tuple[list[bytes], list[int], list[str]]:
    """JPEG files, class and person of all slices."""
    subjects = people(sum(PEOPLE), seed)
    encoded = [file for subject in subjects for file in subject.encoded]
    labels = [subject.label for subject in subjects for _ in subject.encoded]
    persons = [subject.id for subject in subjects for _ in subject.encoded]
    return encoded, labels, persons


def export(folder: Path, size: int, seed: int = SEED) -> None:
    """Trains a student and writes a version's files into `folder`."""
    import keras
    import tensorflow as tf

    from schema import descriptors
    from schema.features import ALZHEIMER_CLASSES
    from trainer import export, golden, input_gate, litert
    from trainer.architectures import StudentArchitecture, build
    from trainer.config import DistilSettings, InputSettings
    from trainer.examples import Examples
    from trainer.input_gate_fit import fit_and_measure
    from trainer.preprocessing import decode

    keras.utils.set_random_seed(seed)
    encoded, labels, persons = slices(seed)
    settings = DistilSettings(input=InputSettings(image_size=size))
    levels = decode(tf.constant(encoded), settings.input).numpy()
    architecture = StudentArchitecture(
        filters=settings.filters, dense=settings.dense, classes=len(ALZHEIMER_CLASSES)
    )
    model = build("student", architecture, settings.input, seed=seed)
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(True))
    images, targets = levels.astype(np.float32) / 255, np.array(labels)
    model.fit(images, targets, 32, EPOCHS, verbose=0)
    export.save(folder, model, settings.input, ALZHEIMER_CLASSES)
    examples = Examples(levels, targets, np.array(persons, object))
    litert.export(
        folder / "litert",
        model,
        settings.litert,
        input_settings=settings.input,
        calibration=examples,
        held_out=examples,
    )
    decoded = [descriptors.decode(file) for file in encoded]
    gate = fit_and_measure(decoded, persons, [], settings.input_gate)
    gate.save(folder / input_gate.FILE)
    golden.record(folder, size, settings.input.channels)


def push(registry: Path, name: str, size: int, seed: int = SEED) -> None:
    """Makes such a student the live version of the model `name`."""
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder) / "model", size, seed)
        LocalRegistry(registry, name).push(Path(folder) / "model", metrics={}, lineage={}, **WHY)


if __name__ == "__main__":
    push(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *map(int, sys.argv[4:]))
