"""TFX Examples as columns: one way to read splits of GZIP TFRecords, local or remote.

Records are parsed many at once by tfx_bsl, without TensorFlow, which takes seconds to load and is
asked for only where files lie behind an address (`gs://…`).
"""

import glob
import hashlib
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluation.leakage_pairs import SplitImages
from ingest.records import RecordError, read_records
from schema import descriptors, features

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256  # records at once: a few MB of images

INTEGERS = {
    features.LABEL: features.UNLABELLED,
    features.SLICE_INDEX: -1,
    features.HEIGHT: -1,
    features.WIDTH: -1,
    features.DEPTH: -1,
}
TEXTS = (features.SUBJECT_ID, features.SITE, features.SOURCE_SHA256)

UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_columns(pattern: str | Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads features of every record, in the order of files and records.

    Args:
        pattern: of TFRecord files, or the files; plain or GZIP.
        names: features of schema/features.py, each of one value per record at most.

    Returns:
        Name → column: object[N] of bytes for the image; int64[N] for label (-1 where absent), slice
        index, height, width and depth (-1); unicode[N] for subject, site and source digest ("");
        float64[N] for descriptors (NaN).

    Raises:
        RecordError: no file matches, a file is damaged, or a feature is not what it should be.
    """
    parts = list(stream_columns(pattern, names))
    if not parts:
        return {name: np.empty(0, _missing(name, 0).dtype) for name in names}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def stream_columns(
    pattern: str | Sequence[str], names: Sequence[str], batch: int = BATCH
) -> Iterator[dict[str, np.ndarray]]:
    """As `read_columns`, but at most `batch` records at a time."""
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    records = _records(_matching(pattern))
    while serialized := list(itertools.islice(records, batch)):
        try:
            parsed = decoder.DecodeBatch(serialized)
        except RuntimeError as error:
            raise RecordError(
                f"Records of {pattern} are no examples of one kind: {error}. Import them anew."
            ) from error
        yield {name: _column(parsed, name, pattern) for name in names}


def _matching(pattern: str | Sequence[str]) -> list[str]:
    if not isinstance(pattern, str):
        found = list(pattern)
    elif "://" in pattern:
        import tensorflow as tf

        found = tf.io.gfile.glob(pattern)
    else:
        found = glob.glob(pattern)
    if not found:
        raise RecordError(f"No files match {pattern}. Check the folder and the split's name.")
    return sorted(found)


def _records(files: Iterable[str]) -> Iterator[bytes]:
    for file in files:
        if "://" not in str(file):
            yield from read_records(Path(file))
            continue
        import tensorflow as tf

        kind = "GZIP" if file.endswith(".gz") else ""
        yield from tf.data.TFRecordDataset(file, compression_type=kind).as_numpy_iterator()


def _missing(name: str, count: int) -> np.ndarray:
    """The column of a feature that no record has."""
    if name == features.IMAGE:
        return np.full(count, None, object)
    if name in INTEGERS:
        return np.full(count, INTEGERS[name], np.int64)
    if name in TEXTS:
        return np.full(count, "")
    if name.startswith(features.DESCRIPTOR_PREFIX):
        return np.full(count, np.nan)
    raise ValueError(f"No such feature: {name}. schema/features.py names them.")


def _column(parsed: "pa.RecordBatch", name: str, pattern: str | Sequence[str]) -> np.ndarray:
    column = _missing(name, parsed.num_rows)
    index = parsed.schema.get_field_index(name)
    present = np.zeros(parsed.num_rows, bool)
    if index >= 0:
        lists = parsed.column(index)
        counts = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        if counts.max(initial=0) > 1:
            raise RecordError(
                f"A record of {pattern} has {counts.max()} values of '{name}'; it must have one."
            )
        present = counts == 1
        values = _values(lists.flatten(), name, pattern)
        # Assigning to a fixed width would cut long texts short.
        column = column.astype(np.result_type(column, values)) if name in TEXTS else column
        column[present] = values
    if name == features.IMAGE and not present.all():
        raise RecordError(
            f"{int((~present).sum())} of {len(present)} records of {pattern} have no '{name}' "
            f"(received features: {', '.join(parsed.schema.names) or 'none'}). Import the data "
            "with `cortexflow ingest`."
        )
    return column


def _values(values: "pa.Array", name: str, pattern: str | Sequence[str]) -> np.ndarray:
    import pyarrow as pa

    if name == features.IMAGE or name in TEXTS:
        fits, wanted = pa.types.is_large_binary(values.type), "bytes"
    elif name in INTEGERS:
        fits, wanted = pa.types.is_integer(values.type), "integers"
    else:
        fits, wanted = pa.types.is_floating(values.type), "floats"
    if not (fits or len(values) == 0):
        raise RecordError(f"'{name}' in {pattern} must hold {wanted} (received {values.type}).")
    if name not in TEXTS:
        return values.to_numpy(zero_copy_only=False)
    try:
        texts = values.cast(pa.large_string()).to_pylist()
    except pa.ArrowInvalid as error:
        raise RecordError(f"'{name}' in {pattern} is no UTF-8 text: {error}.") from error
    return np.array(texts, np.str_)


class _Seen(NamedTuple):
    """One image as it was decoded."""

    digest: str
    thumbnail: np.ndarray
    side: int


def decoded(
    pattern: str | Sequence[str], size: int, progress: Callable[[int], None] | None = None
) -> SplitImages:
    """Decodes a split once, for what tells its images from others.

    Digests are those of `ingest.images` for grey images: SHA-256 of shape and pixels.

    Args:
        pattern: of the split's TFRecord files, or the files.
        size: pixels of a thumbnail's side: area means, or interpolated where an image is smaller.
        progress: called with the number of images decoded so far.

    Returns:
        The images by person, position in the stack and content, whatever the order of the files;
        images that cannot be decoded are named instead.

    Raises:
        RecordError: as `read_columns`.
    """
    known = (features.SUBJECT_ID, features.LABEL, features.SLICE_INDEX, features.SOURCE_SHA256)
    parts: list[dict[str, np.ndarray]] = []
    unreadable: list[str] = []
    done = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow frees the lock
        for columns in stream_columns(pattern, (features.IMAGE, *known)):
            answers = list(pool.map(lambda data: _look(data, size), columns[features.IMAGE]))
            seen = np.array([isinstance(answer, _Seen) for answer in answers])
            for row in np.flatnonzero(~seen):
                unreadable.append(f"{_told(columns, row)}: {answers[row]}")
            parts.append(_part([a for a in answers if isinstance(a, _Seen)], size))
            parts[-1] |= {name: columns[name][seen] for name in known}
            done += len(answers)
            if progress:
                progress(done)
    if not parts:
        parts = [_part([], size) | {name: _missing(name, 0) for name in known}]
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    keys = ("digests", features.SLICE_INDEX, features.SUBJECT_ID)
    order = np.lexsort([table[name] for name in keys])
    table = {name: column[order] for name, column in table.items()}
    subjects = table[features.SUBJECT_ID]
    return SplitImages(
        digests=table["digests"],
        thumbnails=table["thumbnails"],
        subjects=subjects if (subjects != "").any() else None,
        labels=table[features.LABEL],
        slice_index=table[features.SLICE_INDEX],
        sources=table[features.SOURCE_SHA256],
        sides=table["sides"],
        unreadable=tuple(sorted(unreadable)),
    )


def _told(columns: dict[str, np.ndarray], row: int) -> str:
    """How a person finds an image again."""
    who, index = columns[features.SUBJECT_ID][row], columns[features.SLICE_INDEX][row]
    source = columns[features.SOURCE_SHA256][row][:8]
    return (who or f"file {source}") + (f" slice {index}" if index >= 0 else "")


def _part(seen: Sequence[_Seen], size: int) -> dict[str, Any]:
    return {
        "digests": np.array([image.digest for image in seen], "<U64"),
        "thumbnails": np.array([image.thumbnail for image in seen], np.uint8).reshape(
            -1, size, size
        ),
        "sides": np.array([image.side for image in seen], np.int64),
    }


def _look(encoded: bytes, size: int) -> _Seen | str:
    """Decodes one image, or says why it cannot be."""
    from PIL import Image

    try:
        pixels = descriptors.decode(encoded)
    except (*UNDECODABLE, Image.DecompressionBombError) as error:
        return f"{type(error).__name__}: {error}"
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    side = min(pixels.shape)
    sampling = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR
    small = Image.fromarray(pixels).resize((size, size), sampling)
    return _Seen(digest, np.asarray(small), side)
