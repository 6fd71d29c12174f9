"""The training input: TFRecords of `tf.Example`, decoded once and held in memory as bytes.

A slice at 64 × 64 takes 4 KiB, so a hundred thousand of them take 400 MB; TensorFlow holds as much
again for the steps (`Examples.levels`), on the GPU where there is one. Each epoch then costs no
decoding. `trainer.preprocessing.scale` turns a batch of these bytes into exactly what serving sees.
"""

import functools
import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import tensorflow as tf

from schema import features
from trainer import preprocessing
from trainer.config import InputSettings
from trainer.errors import TrainingDataError

READ_BATCH = 256


@dataclass(frozen=True)
class Examples:
    """Images and what is known of them.

    Attributes:
        images: `uint8[N, S, S, C]`.
        labels: `int32[N]`; -1 is unlabelled.
        subjects: `object[N]` of `str`, or `None` for slice-level data.
    """

    images: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray | None

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def levels(self) -> tf.Tensor:
        """The images as a tensor, made once for all who train on them."""
        with tf.init_scope():  # a value, even where a graph is being traced
            return tf.constant(self.images)

    def select(self, chosen: np.ndarray) -> "Examples":
        """The examples at `chosen` (`bool[N]` or `int[M]`)."""
        subjects = None if self.subjects is None else self.subjects[chosen]
        return Examples(self.images[chosen], self.labels[chosen], subjects)

    def labelled(self) -> "Examples":
        """The examples that carry a label; these very ones where all do.

        Raises:
            TrainingDataError: none does.
        """
        known = self.labels != features.UNLABELLED
        if not known.any():
            raise TrainingDataError(
                f"No labelled examples among the {len(self)} read. Supervised training needs the "
                "split `train` with labels; pretraining does not."
            )
        return self if known.all() else self.select(known)


@dataclass(frozen=True)
class Encoded:
    """Image files as they are stored, and who each is of; "" where nobody is named."""

    images: tuple[bytes, ...]
    subjects: tuple[str, ...]


def read_encoded(patterns: Sequence[str], most: int) -> Encoded:
    """Reads images as files: what a server is sent, before anything is resized.

    Args:
        patterns: file patterns; `.gz` files are GZIP.
        most: images. Of more, those whose subject and content have the smallest digests are
            taken, whichever runner wrote the files and in what order.

    Returns:
        The images by digest; none where no file matches.
    """
    chosen: list[tuple[int, bytes, bytes]] = []  # a heap with the largest digest on top
    for subject, image in _encoded(_matching(patterns)):
        digest = hashlib.sha256(subject + b"\0" + image).digest()
        entry = (-int.from_bytes(digest[:16], "big"), subject, image)
        if len(chosen) < most:
            heapq.heappush(chosen, entry)
        else:
            heapq.heappushpop(chosen, entry)
    chosen.sort(reverse=True)
    return Encoded(
        tuple(image for _, _, image in chosen),
        tuple(subject.decode() for _, subject, _ in chosen),
    )


def read(patterns: Sequence[str], settings: InputSettings, classes: Sequence[str]) -> Examples:
    """Reads every example of the files that match.

    Args:
        patterns: file patterns, such as TFX's `…/Split-train/*`; `.gz` files are GZIP.
        settings: the size and channels to decode to.
        classes: class names; labels index it.

    Returns:
        The examples by person, then position in the stack, then content. Which runner wrote the
        files, and in what order, thus has no part in what is trained from them.

    Raises:
        TrainingDataError: no file matches, no example is in them, a label is outside `classes`, or
            some labelled examples carry a subject id and others do not.
    """
    files = match(patterns)
    found = _read(files, settings, classes)
    if found is None:
        raise TrainingDataError(
            f"No examples in {len(files)} file(s): {_abbreviate(files)}. Import images first, or "
            "check that the split is not empty."
        )
    return found


def read_if_any(
    patterns: Sequence[str], settings: InputSettings, classes: Sequence[str]
) -> Examples | None:
    """As `read`, but `None` where no file matches or no example is in them.

    Raises:
        TrainingDataError: the examples that there are cannot be trained on.
    """
    return _read(_matching(patterns), settings, classes)


def match(patterns: Sequence[str]) -> list[str]:
    """The files that match any of the patterns, sorted, each once.

    Raises:
        TrainingDataError: there is none.
    """
    files = _matching(patterns)
    if not files:
        raise TrainingDataError(
            f"No files match {list(patterns)}. Check the span's folder and the split's name."
        )
    return files


def identity(patterns: Sequence[str]) -> list[tuple[str, str]]:
    """What tells these files from others: split folder and name of each, and its SHA-256.

    Only the last folder counts, because a pipeline writes the same examples under another number
    when it runs again.
    """
    return [("/".join(PurePath(file).parts[-2:]), _digest(file)) for file in match(patterns)]


def _matching(patterns: Sequence[str]) -> list[str]:
    return sorted({file for pattern in patterns for file in tf.io.gfile.glob(pattern)})


def _read(files: Sequence[str], settings: InputSettings, classes: Sequence[str]) -> Examples | None:
    batches = [
        batch.as_numpy_iterator()
        for compression in ("GZIP", "")
        if (batch := _dataset(files, compression, settings)) is not None
    ]
    parts = [part for batch in batches for part in batch]
    if not parts:
        return None
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = _canonical_order(*columns)
    images, labels, subjects, _ = (column[order] for column in columns)
    _check_labels(labels, classes)
    return Examples(images, labels.astype(np.int32), _subjects(subjects, labels))


def _digest(file: str) -> str:
    with tf.io.gfile.GFile(file, "rb") as content:
        return hashlib.sha256(content.read()).hexdigest()


def _dataset(files, compression: str, settings: InputSettings) -> tf.data.Dataset | None:
    chosen = [file for file in files if file.endswith(".gz") == (compression == "GZIP")]
    if not chosen:
        return None
    records = tf.data.TFRecordDataset(chosen, compression_type=compression)
    return records.batch(READ_BATCH).map(
        lambda serialized: _parse(serialized, settings), num_parallel_calls=tf.data.AUTOTUNE
    )


def _encoded(files: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    wanted = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.SUBJECT_ID: tf.io.FixedLenFeature([], tf.string, ""),
    }
    for file in files:
        compression = "GZIP" if file.endswith(".gz") else ""
        records = tf.data.TFRecordDataset(file, compression_type=compression).batch(READ_BATCH)
        for batch in records.map(lambda records: tf.io.parse_example(records, wanted)):
            yield from zip(
                batch[features.SUBJECT_ID].numpy(), batch[features.IMAGE].numpy(), strict=True
            )


def _parse(serialized: tf.Tensor, settings: InputSettings) -> tuple[tf.Tensor, ...]:
    parsed = tf.io.parse_example(
        serialized,
        {
            features.IMAGE: tf.io.FixedLenFeature([], tf.string),
            features.LABEL: tf.io.FixedLenFeature([], tf.int64, features.UNLABELLED),
            features.SUBJECT_ID: tf.io.FixedLenFeature([], tf.string, ""),
            features.SLICE_INDEX: tf.io.FixedLenFeature([], tf.int64, -1),
        },
    )
    images = preprocessing.decode(parsed[features.IMAGE], settings)
    known = (features.LABEL, features.SUBJECT_ID, features.SLICE_INDEX)
    return images, *(parsed[name] for name in known)


def _canonical_order(
    images: np.ndarray, labels: np.ndarray, subjects: np.ndarray, slices: np.ndarray
) -> np.ndarray:
    # Examples that tie are equal in all that is kept of them, so any order of them will do.
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    return np.lexsort((labels, np.array(digests), slices, subjects.astype(bytes)))


def _check_labels(labels: np.ndarray, classes: Sequence[str]) -> None:
    outside = (labels < features.UNLABELLED) | (labels >= len(classes))
    if outside.any():
        raise TrainingDataError(
            f"Labels outside the {len(classes)} classes {list(classes)}. Received "
            f"{sorted(set(labels[outside].tolist()))} in {int(outside.sum())} example(s). Give the "
            "class names of the dataset these files came from."
        )


def _subjects(subjects: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    named = subjects != b""
    relevant = named[labels != features.UNLABELLED]
    if relevant.all() and named.any():
        return np.array([subject.decode() for subject in subjects], dtype=object)
    if relevant.any():
        raise TrainingDataError(
            f"{int((~relevant).sum())} of {len(relevant)} labelled examples carry no subject id. "
            "Import all of them with --subject-regex, or none."
        )
    return None


def _abbreviate(files: Sequence[str], shown: int = 3) -> str:
    return ", ".join(files[:shown]) + (" …" if len(files) > shown else "")
