"""What a model file asks a runtime to do, read without TensorFlow and without running anything.

Two formats: `saved_model.pb` (tensorflow/core/protobuf/saved_model.proto) and LiteRT's flatbuffer
(tensorflow/compiler/mlir/lite/schema/schema.fbs). Of the second only the operator codes are looked
up, every offset held within the file.
"""

import functools
import json
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from schema.errors import CortexflowError
from serving import protos

_META_GRAPH = "tensorflow/core/protobuf/meta_graph.proto"


class GraphError(CortexflowError):
    """The bytes are no such model file."""


@functools.cache
def _saved_model_class() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="cortexflow/saved_model.proto",
        package="tensorflow",
        syntax="proto3",
        dependency=[_META_GRAPH],
    )
    declared = file.message_type.add(name="SavedModel")
    declared.field.add(
        name="saved_model_schema_version",
        number=1,
        type=kinds.TYPE_INT64,
        label=kinds.LABEL_OPTIONAL,
    )
    declared.field.add(
        name="meta_graphs",
        number=2,
        type=kinds.TYPE_MESSAGE,
        type_name=".tensorflow.MetaGraphDef",
        label=kinds.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    for serialized in json.loads(protos.FILE.read_text()).values():
        pool.AddSerializedFile(serialized.encode("latin1"))
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.SavedModel"))


def parse_saved_model(content: bytes) -> Any:
    """Parses `saved_model.pb` into a SavedModel message.

    Raises:
        GraphError: it is none, or holds no graph.
    """
    try:
        parsed = _saved_model_class().FromString(content)
    except message.DecodeError as error:
        raise GraphError(f"saved_model.pb cannot be parsed: {error}.") from error
    if not parsed.meta_graphs:
        raise GraphError("saved_model.pb holds no graph.")
    return parsed


def functions_named(attributes: Any) -> Iterator[str]:
    """Names of the functions that a node's attributes refer to, at any depth."""
    for value in attributes.values():
        kind = value.WhichOneof("value")
        references = [value.func] if kind == "func" else []
        if kind == "list":
            references = list(value.list.func)
        for reference in references:
            yield reference.name
            yield from functions_named(reference.attr)


def lite_operators(content: bytes) -> list[tuple[int, str]]:
    """The operators of a `.tflite` file: their built-in codes, and names of custom ones or "".

    Raises:
        GraphError: it is no such file, or keeps weights in other files.
    """
    if content[4:8] != b"TFL3":
        raise GraphError("it is no LiteRT file (the mark TFL3 is missing).")
    try:
        return list(_operators(content))
    except (struct.error, ValueError) as error:
        raise GraphError(f"its flatbuffer is damaged: {error}.") from error


# Fields of schema.fbs, in the order of their tables.
_OPERATOR_CODES, _EXTERNAL_BUFFER_GROUPS, _EXTERNAL_BUFFERS = 1, 8, 9
_OLD_CODE, _CUSTOM_CODE, _BUILTIN_CODE = 0, 1, 3
_MOST_OPERATORS = 1000


def _operators(content: bytes) -> Iterator[tuple[int, str]]:
    model = _at("<I", content, 0)
    for field in (_EXTERNAL_BUFFER_GROUPS, _EXTERNAL_BUFFERS):
        if _field(content, model, field) is not None:
            raise GraphError("it keeps weights in other files.")
    place = _field(content, model, _OPERATOR_CODES)
    if place is None:
        return
    vector = place + _at("<I", content, place)
    count = _at("<I", content, vector)
    if count > _MOST_OPERATORS:
        raise ValueError(f"{count} operators")
    for index in range(count):
        entry = vector + 4 + 4 * index
        table = entry + _at("<I", content, entry)
        old, custom, new = (
            _field(content, table, field) for field in (_OLD_CODE, _CUSTOM_CODE, _BUILTIN_CODE)
        )
        # Codes beyond 127 do not fit the older field; readers take the larger of the two.
        code = max(
            _at("<b", content, old) if old is not None else 0,
            _at("<i", content, new) if new is not None else 0,
        )
        yield code, _text(content, custom) if custom is not None else ""


def _at(form: str, content: bytes, place: int) -> int:
    if place < 0:
        raise ValueError("an offset before its beginning")
    return int(struct.unpack_from(form, content, place)[0])


def _field(content: bytes, table: int, field: int) -> int | None:
    """Where a table's field lies, None where it is left out."""
    vtable = table - _at("<i", content, table)
    if 4 + 2 * field >= _at("<H", content, vtable):
        return None
    offset = _at("<H", content, vtable + 4 + 2 * field)
    return table + offset if offset else None


def _text(content: bytes, place: int) -> str:
    start = place + _at("<I", content, place)
    length = _at("<I", content, start)
    return content[start + 4 : start + 4 + min(length, 100)].decode("utf-8", "replace") or "?"
