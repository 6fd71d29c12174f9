"""A tiny dataset whose answer is known: bright blobs, wider from class to class."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

CLASSES = ("large", "medium", "small")
RADII = {"large": 0.42, "medium": 0.27, "small": 0.14}
SIZE = 32


def draw_blob(label: int, random: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """One slice, `uint8[size, size, 1]`."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    centre = random.uniform(-0.06, 0.06, 2)
    radius = RADII[CLASSES[label]] * random.uniform(0.9, 1.1)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    image = 0.8 / (1 + np.exp((distance - radius) * 40)) + random.normal(0, 0.03, (size, size))
    return np.uint8(np.clip(image, 0, 1) * 255)[..., None]


def make_example(image: np.ndarray, label: int, subject: str | None) -> bytes:
    """A serialized `tf.Example` with an encoded PNG."""
    features = {
        "image": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
        ),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    if subject is not None:
        features["subject_id"] = tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[subject.encode()])
        )
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path: Path, examples: list[bytes]) -> str:
    """Writes a GZIP TFRecord file and returns the pattern of its folder, as TFX passes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for example in examples:
            writer.write(example)
    return str(path.parent / "*")


def blob_split(
    folder: Path,
    split: str,
    subjects: int,
    slices: int = 3,
    *,
    labelled: bool = True,
    named: bool = True,
    informative: bool = True,
) -> str:
    """Writes one split, classes in turn, and returns its pattern.

    Without `informative`, people who look alike share out the labels evenly, so that images say
    nothing of them.
    """
    random = np.random.default_rng([len(split), subjects, ord(split[0])])
    shown = np.arange(subjects) % len(CLASSES)
    told = shown if informative else np.arange(subjects) // len(CLASSES) % len(CLASSES)
    examples = [
        make_example(
            draw_blob(int(shown[subject]), random),
            int(told[subject]) if labelled else -1,
            f"{split}-{subject:03d}" if named else None,
        )
        for subject in range(subjects)
        for _ in range(slices)
    ]
    path = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
    return write_records(path, examples)


def fn_args(folder: Path, settings, train_files, eval_files, base_model=None, **config):
    """What TFX's Trainer would pass."""
    return SimpleNamespace(
        train_files=list(train_files),
        eval_files=list(eval_files),
        base_model=base_model,
        serving_model_dir=str(folder / "Format-Serving"),
        model_run_dir=str(folder / "run"),
        custom_config={
            "stage": settings.model_dump_json(),
            "classes": json.dumps(CLASSES),
            "severity": json.dumps(["small", "medium", "large"]),
            **config,
        },
    )
