"""TFRecord files and `tf.train.Example` messages, without TensorFlow.

Importing TensorFlow takes seconds and half a gigabyte in every Beam worker; the two formats are
small. `Example` is built from its public descriptor (tensorflow/core/example/{example,feature}
.proto) in a pool of its own, so it never clashes with TensorFlow's. Framing is that of
tensorflow/core/lib/io/record_writer.h: length, masked CRC-32C of it, data, masked CRC-32C of it.
"""

import contextlib
import gzip
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from schema.errors import CortexflowError

GZIP_MAGIC = b"\x1f\x8b"
MAX_RECORD_BYTES = 256 * 1024 * 1024
CHUNK_BYTES = 1 << 20

Feature = bytes | int | float | list[bytes] | list[int] | list[float]


class RecordError(CortexflowError):
    """A TFRecord file that is not one, or is cut short, or whose checksum does not hold."""


def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="cortexflow/example.proto", package="tensorflow", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    repeated, single = kinds.LABEL_REPEATED, kinds.LABEL_OPTIONAL

    def add(name: str, *fields: tuple[str, int, int, int, str]) -> descriptor_pb2.DescriptorProto:
        declared = file.message_type.add(name=name)
        for field, number, kind, label, type_name in fields:
            declared.field.add(
                name=field, number=number, type=kind, label=label, type_name=type_name or None
            )
        return declared

    add("BytesList", ("value", 1, kinds.TYPE_BYTES, repeated, ""))
    add("FloatList", ("value", 1, kinds.TYPE_FLOAT, repeated, ""))
    add("Int64List", ("value", 1, kinds.TYPE_INT64, repeated, ""))
    feature = add(
        "Feature",
        ("bytes_list", 1, kinds.TYPE_MESSAGE, single, ".tensorflow.BytesList"),
        ("float_list", 2, kinds.TYPE_MESSAGE, single, ".tensorflow.FloatList"),
        ("int64_list", 3, kinds.TYPE_MESSAGE, single, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = add(
        "Features",
        ("feature", 1, kinds.TYPE_MESSAGE, repeated, ".tensorflow.Features.FeatureEntry"),
    )
    entry = features.nested_type.add(name="FeatureEntry")
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=single)
    entry.field.add(
        name="value",
        number=2,
        type=kinds.TYPE_MESSAGE,
        label=single,
        type_name=".tensorflow.Feature",
    )
    entry.options.map_entry = True
    add("Example", ("features", 1, kinds.TYPE_MESSAGE, single, ".tensorflow.Features"))

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = _example_class()


def encode_example(features: Mapping[str, Feature]) -> bytes:
    """Serialises features as a `tf.train.Example`, keys sorted: same features, same bytes.

    Args:
        features: name to one value or a list of values of one type, bytes, int or float.
    """
    example = Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        kind = {bytes: "bytes_list", float: "float_list"}.get(type(values[0]), "int64_list")
        getattr(example.features.feature[name], kind).value.extend(values)
    return cast(bytes, example.SerializeToString(deterministic=True))


def decode_example(record: bytes) -> dict[str, list[bytes] | list[int] | list[float]]:
    """Parses a `tf.train.Example` into name → list of values.

    Raises:
        RecordError: the record is not an Example.
    """
    try:
        example = Example.FromString(record)
    except message.DecodeError as error:
        raise RecordError(
            f"The record is not a tf.train.Example: {error}. Received {len(record)} bytes."
        ) from error
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in example.features.feature.items()
        if feature.WhichOneof("kind")
    }


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(record: bytes) -> bytes:
    """One record as it stands in a TFRecord file: for what appends to one while it is served."""
    length = struct.pack("<Q", len(record))
    checks = struct.pack("<I", _masked_crc(length)), struct.pack("<I", _masked_crc(record))
    return b"".join((length, checks[0], record, checks[1]))


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Writes records to a GZIP TFRecord file, durably; returns how many."""
    count = 0
    with _compressed(path) as out:
        for record in records:
            out.write(framed(record))
            count += 1
    return count


def compress_records(source: Path, path: Path) -> None:
    """Writes a plain TFRecord file once more as a GZIP one, durably.

    As by `write_records`, without a look at any record: faster, and without Python's lock.
    """
    with open(source, "rb") as plain, _compressed(path) as out:
        shutil.copyfileobj(plain, out, CHUNK_BYTES)


@contextlib.contextmanager
def _compressed(path: Path) -> Iterator[gzip.GzipFile]:
    """A new GZIP file, on disk when the block ends.

    The header holds no name and no time, so that the same records give the same bytes. Images
    are compressed already: level 1 squeezes the framing and the numbers.
    """
    with (
        open(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as out,
    ):
        yield out
        out.close()
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, plain or GZIP, one at a time.

    Raises:
        RecordError: the file is cut short, or a checksum does not hold; names file and record.
    """
    with open(path, "rb") as file:
        zipped = file.read(2) == GZIP_MAGIC
        file.seek(0)
        source = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file
        index = 0
        try:
            while header := source.read(12):
                yield _read_one(source, header)
                index += 1
        except (RecordError, OSError, EOFError) as error:
            raise RecordError(f"{path}: record {index} cannot be read: {error}.") from error


def _read_one(source: BinaryIO, header: bytes) -> bytes:
    if len(header) < 12 or struct.unpack("<I", header[8:])[0] != _masked_crc(header[:8]):
        raise RecordError("its length does not match its checksum, so this is no TFRecord file")
    (length,) = struct.unpack("<Q", header[:8])
    if length > MAX_RECORD_BYTES:
        raise RecordError(f"it claims {length} bytes; the most is {MAX_RECORD_BYTES}")
    data, footer = source.read(length), source.read(4)
    if len(data) < length or len(footer) < 4:
        raise RecordError("the file is cut short")
    if struct.unpack("<I", footer)[0] != _masked_crc(data):
        raise RecordError("its checksum does not hold")
    return data
