"""Text with backslashes in ML Metadata on PostgreSQL, which MLMD 1.16 itself cannot write.

MLMD puts the answer of libpq's `PQescapeLiteral` between quotes of its own. For text with a
backslash that answer begins with ` E'`, so the statement is no SQL any more, and every node whose
settings are JSON within JSON fails ("syntax error at or near"). Such text is therefore stored with
another character in the backslash's place, and given back as it was. SQLite and MySQL need nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from ml_metadata.metadata_store import metadata_store

BACKSLASH = "\\"
STORED = "\ue05c"  # of Unicode's private use area; other programs see this one


@functools.cache
def mend() -> None:
    """Lets every store of this process that is connected to PostgreSQL take any text."""
    store = metadata_store.MetadataStore
    call = store._call_method

    def mended(self: Any, method: str, request: Message, response: Message) -> None:
        if not self._using_db_connection or not self._config.HasField("postgresql"):
            call(self, method, request, response)
            return
        sent = type(request)()
        sent.CopyFrom(request)
        replaced(sent, BACKSLASH, STORED)
        call(self, method, sent, response)
        replaced(response, STORED, BACKSLASH)

    store._call_method = mended


def replaced(message: Message, old: str, new: str) -> None:
    """Replaces a character in all text of a message, in place; keys of maps included."""
    if old.encode() not in message.SerializeToString():
        return
    _walk(message, lambda text: text.replace(old, new))


def _walk(message: Message, change: Callable[[str], str]) -> None:
    for field, value in message.ListFields():
        kind, text = field.message_type, field.type == field.TYPE_STRING
        if kind is not None and kind.GetOptions().map_entry:
            _walk_map(value, kind, change)
        elif field.label == field.LABEL_REPEATED:
            for index, item in enumerate(value):
                if text:
                    value[index] = change(item)
                elif kind is not None:
                    _walk(item, change)
        elif text:
            setattr(message, field.name, change(value))
        elif kind is not None:
            _walk(value, change)


def _walk_map(entries: Any, kind: Any, change: Callable[[str], str]) -> None:
    holds = kind.fields_by_name["value"]
    for key in list(entries):
        renamed = change(key) if isinstance(key, str) else key
        if holds.message_type is None:
            value = entries[key]
            entries[renamed] = change(value) if isinstance(value, str) else value
        else:
            _walk(entries[key], change)
            if renamed != key:
                entries[renamed].CopyFrom(entries[key])
        if renamed != key:
            del entries[key]
