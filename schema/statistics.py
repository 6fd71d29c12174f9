"""TFDV statistics of examples, of a dataset folder, or as StatisticsGen wrote them.

Examples that do not carry `descriptor/*` yet (a dataset fresh from ingest) get them here, so that
the statistics are those that the pipeline will see. TensorFlow is loaded when it is needed.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import message, text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from schema import descriptors, features
from schema.errors import CortexflowError

BATCH = 256  # examples decoded together
STATISTICS_FILE = "FeatureStats.pb"  # as TFX's StatisticsGen names it


def read(source: Path) -> dict[str, DatasetFeatureStatisticsList]:
    """Finds the statistics of a path, computing them where there are only examples.

    Args:
        source: a statistics file (`.pb` binary, `.pbtxt` text); a StatisticsGen output
            (`Split-NAME/FeatureStats.pb`); a dataset folder (`span-N/SPLIT/`, the newest span) or
            an ExampleGen output (`Split-NAME/`); or a folder or file of TFRecords.

    Returns:
        Split name → statistics; the name is empty for a source without splits.

    Raises:
        CortexflowError: there is nothing of the kind at `source`.
    """
    if source.is_file() and source.suffix in (".pb", ".pbtxt"):
        return {"": _load(source)}
    splits = _splits(source)
    if all((folder / STATISTICS_FILE).is_file() for folder in splits.values()):
        return {split: _load(folder / STATISTICS_FILE) for split, folder in splits.items()}
    found = {split: _record_files(folder) for split, folder in splits.items()}
    if not any(found.values()):
        raise CortexflowError(
            f"There are neither statistics nor TFRecords in {source}. Give a dataset folder "
            "(`cortexflow ingest` writes one), a StatisticsGen or ExampleGen output, or a "
            "statistics file (.pb, .pbtxt)."
        )
    return {split: of_examples(_records(files)) for split, files in found.items() if files}


def _load(file: Path) -> DatasetFeatureStatisticsList:
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    try:
        if file.suffix == ".pbtxt":
            text_format.Parse(file.read_text(), statistics)
        else:
            statistics.ParseFromString(file.read_bytes())
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise CortexflowError(f"{file} holds no TFDV statistics: {error}.") from error
    if not statistics.datasets:
        raise CortexflowError(f"{file} holds no TFDV statistics: it is empty.")
    return statistics


def _splits(source: Path) -> dict[str, Path]:
    if source.is_dir():
        spans = [span for span in source.glob("span-*") if span.name[5:].isdigit()]
        if spans:
            newest = max(spans, key=lambda span: int(span.name[5:]))
            return {split.name: split for split in sorted(newest.iterdir()) if split.is_dir()}
        splits = sorted(source.glob("Split-*"))
        if splits:
            return {split.name.removeprefix("Split-"): split for split in splits}
    return {"": source}


def _record_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return sorted(
        file for file in source.glob("*") if file.suffix == ".gz" or "tfrecord" in file.name
    )


def _records(files: Sequence[Path]) -> Iterator[bytes]:
    import tensorflow as tf

    for file in files:
        with open(file, "rb") as opened:
            compression = "GZIP" if opened.read(2) == b"\x1f\x8b" else ""
        try:
            yield from tf.data.TFRecordDataset(str(file), compression).as_numpy_iterator()
        except tf.errors.DataLossError as error:
            raise CortexflowError(
                f"{file} is not a whole TFRecord file: {error.message}."
            ) from error


def of_examples(records: Iterable[bytes]) -> DatasetFeatureStatisticsList:
    """Computes statistics of serialized `tf.train.Example`s, described where they are not yet.

    Image payloads are measured and then dropped: memory grows by a few hundred bytes an example.

    Args:
        records: serialized examples; descriptors are added where `image` is one decodable image.

    Returns:
        Statistics with `label` counted as categories, whatever the schema of the data.

    Raises:
        CortexflowError: there is no example, or an image cannot be decoded.
    """
    import pyarrow as pa
    from tensorflow_data_validation.statistics.stats_impl import generate_statistics_in_memory
    from tensorflow_data_validation.statistics.stats_options import StatsOptions
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    stream = iter(records)
    batches = []
    try:
        while chunk := list(itertools.islice(stream, BATCH)):
            batches.append(pa.Table.from_batches([_described(decoder.DecodeBatch(chunk))]))
        if not batches:
            raise CortexflowError("There are no examples to take statistics of. Import data first.")
        table = pa.concat_tables(batches, promote=True).combine_chunks()
    except (RuntimeError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CortexflowError(
            f"The examples cannot be read as one table: {error}. A record is damaged, or a "
            "feature changes its type from one example to the next; import the data again."
        ) from error
    label = schema_pb2.Schema()
    label.feature.add(name=features.LABEL, type=schema_pb2.INT).int_domain.is_categorical = True
    return generate_statistics_in_memory(table.to_batches()[0], StatsOptions(schema=label))


def _described(batch: Any) -> Any:
    """Adds descriptor columns to a record batch that has images only, and drops the images."""
    import pyarrow as pa

    names = list(batch.schema.names)
    if features.IMAGE not in names:
        return batch
    position = names.index(features.IMAGE)
    column = batch.column(position)
    columns = [*batch.columns]
    if not any(name.startswith(features.DESCRIPTOR_PREFIX) for name in names):
        payloads = [values or [] for values in column.to_pylist()]
        described = descriptors.describe([_decode(values) for values in payloads])
        names += [features.DESCRIPTOR_PREFIX + name for name in described]
        kind = pa.large_list(pa.float32())
        columns += [pa.array(values[:, None].tolist(), kind) for values in described.values()]
    emptied = [None if values is None else [b""] * len(values) for values in column.to_pylist()]
    columns[position] = pa.array(emptied, column.type)
    return pa.RecordBatch.from_arrays(columns, names)


def _decode(payloads: Sequence[bytes]) -> np.ndarray:
    """Decodes the one PNG or JPEG of an example to uint8[H, W]."""
    if len(payloads) != 1:
        raise CortexflowError(
            f"An example must hold exactly one {features.IMAGE} (received {len(payloads)})."
        )
    try:
        return descriptors.decode(payloads[0])
    except OSError as error:
        raise CortexflowError(f"An image of the examples cannot be decoded: {error}.") from error
