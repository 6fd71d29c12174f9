"""What a request may hold: the two signatures of our models, in JSON and as bytes.

`predict_images` takes image files, `serving_default` serialized `tf.Example`s with the feature
`image`; both are lists of strings. A request that names no signature is told by the name of its
input, and failing that by its first byte: no PNG or JPEG begins as a serialized Example does. So a
client that was written for TF Serving, where no name means `serving_default`, is understood too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pybase64

from ingest.records import RecordError, decode_example
from schema import features
from serving.config import Limits
from serving.errors import ServingError

IMAGES, EXAMPLES = "predict_images", "serving_default"
INPUTS = {IMAGES: "images", EXAMPLES: "examples"}
METHOD = "tensorflow/serving/predict"
EXAMPLE_TAG = b"\x0a"  # field 1, length-delimited: Example.features

_WANTED = 'this model takes PNG or JPEG files as {"b64": "…"}'


class Call(NamedTuple):
    """A request, understood.

    Attributes:
        signature: a key of `INPUTS`.
        images: image files, one per instance, at least one.
        columns: the request was columnar, and so is the answer.
    """

    signature: str
    images: Sequence[bytes]
    columns: bool


def from_json(document: Any, limits: Limits) -> Call:
    """Understands the body of `:predict` in either of TF Serving's formats.

    Row format: `{"instances": [{"b64": …}, …]}` or `[{"images": {"b64": …}}, …]`. Column format:
    `{"inputs": [{"b64": …}, …]}` or `{"inputs": {"images": [{"b64": …}, …]}}`. Both take
    `signature_name`.

    Raises:
        ServingError: `invalid_request`, `too_large`.
    """
    if not isinstance(document, dict):
        raise _invalid("The body must be a JSON object with 'instances' or 'inputs'")
    signature = document.get("signature_name")
    if signature is not None and not isinstance(signature, str):
        raise _invalid("'signature_name' key must be a string value")
    columns = "inputs" in document
    if columns == ("instances" in document):
        raise _invalid("Give exactly one of 'instances' (a list of rows) and 'inputs' (columns)")
    rows: Any = document["inputs" if columns else "instances"]
    name: str | None = None
    if columns and isinstance(rows, dict) and set(rows) != {"b64"}:
        name, rows = _single(rows, "'inputs'")
    if not isinstance(rows, list) or not rows:
        raise _invalid("The instances must be a list that is not empty")
    check_count(len(rows), limits)
    if not columns and isinstance(rows[0], dict) and set(rows[0]) != {"b64"}:
        named = [_single(row, f"Instance {index}") for index, row in enumerate(rows)]
        name = named[0][0]
        if any(other != name for other, _ in named):
            raise _invalid("All instances must give the same input")
        rows = [value for _, value in named]
    values = [_decoded(value, index, limits) for index, value in enumerate(rows)]
    return understood(signature, name, values, columns)


def understood(
    signature: str | None, name: str | None, values: Sequence[bytes], columns: bool
) -> Call:
    """Chooses the signature and takes the images out of Examples.

    Args:
        signature: as named by the request, None or empty where it named none.
        name: of the input, None where the request named none.
        values: strings of the one input, at least one.
        columns: as in `Call`.

    Raises:
        ServingError: `invalid_request`.
    """
    chosen = signature or _meant(name, values[0])
    if chosen not in INPUTS:
        raise ServingError(
            "invalid_request",
            f"Serving signature key not found. The model has {' and '.join(sorted(INPUTS))}.",
            details={"signatures": sorted(INPUTS)},
        )
    if name is not None and name != INPUTS[chosen]:
        raise ServingError(
            "invalid_request",
            f"Input tensor alias not found in signature {chosen}. Inputs expected to be in the "
            f"set {{{INPUTS[chosen]}}}.",
            details={"inputs": [INPUTS[chosen]]},
        )
    if chosen == EXAMPLES:
        values = [_image_of(example, index) for index, example in enumerate(values)]
    return Call(chosen, values, columns)


def check_count(count: int, limits: Limits) -> None:
    """Refuses more instances than one request may have.

    Raises:
        ServingError: `too_large`.
    """
    if count > limits.max_instances:
        raise ServingError(
            "too_large",
            f"The request has {count} instances; the most is {limits.max_instances}. Send several "
            "requests.",
            details={"max_instances": limits.max_instances},
        )


def _meant(name: str | None, first: bytes) -> str:
    if name is not None:
        return EXAMPLES if name == INPUTS[EXAMPLES] else IMAGES
    return EXAMPLES if first.startswith(EXAMPLE_TAG) else IMAGES


def _single(row: Any, what: str) -> tuple[str, Any]:
    if not isinstance(row, Mapping) or len(row) != 1:
        raise _invalid(f"{what} must be an object with one input; {_WANTED}")
    return next(iter(row.items()))


def _decoded(value: Any, index: int, limits: Limits) -> bytes:
    if not isinstance(value, dict) or set(value) != {"b64"} or not isinstance(value["b64"], str):
        raise _invalid(f"Instance {index} is no file; {_WANTED}")
    text = value["b64"]
    if len(text) // 4 * 3 > limits.max_image_bytes + 3:
        raise ServingError(
            "too_large",
            f"Instance {index} is larger than {limits.max_image_bytes} bytes.",
            details={"instance": index, "max_image_bytes": limits.max_image_bytes},
        )
    if len(text) % 4:  # TF Serving takes base64 without its padding, too
        text += "=" * (-len(text) % 4)
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise _invalid(
            f"Instance {index} is not base64 (RFC 4648 §4, without line breaks)"
        ) from None


def _image_of(example: bytes, index: int) -> bytes:
    try:
        values = decode_example(example).get(features.IMAGE, [])
    except RecordError:
        raise _invalid(f"Instance {index} is no serialized tf.Example") from None
    if len(values) != 1 or not isinstance(values[0], bytes):
        raise _invalid(
            f"Instance {index}: Feature: {features.IMAGE} (data type: string) is required but "
            "could not be found"
        )
    return values[0]


def _invalid(message: str) -> ServingError:
    return ServingError("invalid_request", message + ".")
