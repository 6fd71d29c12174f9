"""JSON from strangers: parsed under limits, refused in fixed words.

orjson refuses NaN, Infinity, numbers beyond a double, bytes that are not UTF-8, and nesting beyond
1024. What it does not refuse is looked for here: a name given twice in one object, of which it
would silently keep the last (RFC 8259 §4 leaves that to the parser, and parsers differ); nesting
and numbers of values above our limits. Nothing of the body is repeated in a message.
"""

import re
from typing import Any

import orjson

from serving.config import Limits
from serving.errors import ServingError

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def parse(body: bytes | bytearray, limits: Limits) -> Any:
    """Reads one JSON document.

    Args:
        body: UTF-8, of a size that was checked before.
        limits: depth and number of values.

    Returns:
        Python values; every float is finite, every name within an object was given once.

    Raises:
        ServingError: `invalid_json`; `too_large` where the document has too many values.
    """
    # Each value but the first follows one of these; commas within strings count too, of which
    # base64 has none. Counted before parsing: a million lists would stop the process for a second.
    most = limits.max_json_values
    if len(body) > most and sum(map(body.count, (b",", b"[", b"{"))) > most:
        raise ServingError(
            "too_large",
            f"The body holds more than {limits.max_json_values} JSON values. Images are sent as "
            'files, {"b64": "…"}, not as numbers.',
            details={"max_json_values": limits.max_json_values},
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServingError(
            "invalid_json",
            "The body is empty."
            if not body.strip()
            else f"The body is not JSON: line {error.lineno}, column {error.colno}. NaN and "
            "Infinity are no JSON either.",
            details={"line": error.lineno, "column": error.colno},
        ) from None
    names = _names(document, limits.max_json_depth)
    if names != body.count(b":") and names != _STRING.sub(b"", body).count(b":"):
        raise ServingError(
            "invalid_json", "The body has an object that gives one name twice. Give it once."
        )
    return document


def _names(document: Any, max_depth: int) -> int:
    """How many members all objects have together; each has exactly one colon outside strings."""
    count = 0
    level = [document]
    for _ in range(max_depth):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                count += len(value)
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        if not inner:
            return count
        level = inner
    if any(isinstance(value, dict | list) for value in level):
        raise ServingError(
            "invalid_json",
            f"The body nests deeper than {max_depth} levels.",
            details={"max_json_depth": max_depth},
        )
    return count


def dump(document: Any) -> bytes:
    """Writes JSON; NumPy arrays become lists, float32 in as few digits as give it back.

    The caller answers for finite numbers: orjson would write a NaN as null.
    """
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
