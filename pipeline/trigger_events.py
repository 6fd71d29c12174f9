"""Messages about objects in a bucket, as the stores and brokers send them, read into one form.

Understood are Pub/Sub push (the classic envelope), CloudEvents 1.0 over HTTP in binary and in
structured mode (Eventarc), and the notifications of S3 and MinIO. Of Cloud Storage, the attributes
and payloads are those of "Pub/Sub notifications for Cloud Storage"; of S3, "Event message
structure", version 2.x. A body is data of strangers: every field is checked before it is used.
"""

import base64
import binascii
import dataclasses
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from schema.errors import CortexflowError

FINALIZED = ("OBJECT_FINALIZE", "google.cloud.storage.object.v1.finalized")
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
MAX_NAME = 1024  # bytes of an object's name, in Cloud Storage as in S3
MAX_RECORDS = 100  # of one S3 notification; S3 itself sends one


class MessageError(CortexflowError):
    """A body that is no message, or lacks what every such message has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """A state of an object.

    Attributes:
        uri: of the object: `gs://BUCKET/NAME` or `s3://BUCKET/NAME`.
        key: names this very state: the same in every delivery of the same message.
        order: grows with the states of one object; None where the sender does not tell.
        whole: the address is the dataset's own, not that of an object in it.
    """

    uri: str
    key: str
    order: int | None
    whole: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """What a body told: objects that arrived, and why the rest of it is of no concern."""

    arrivals: tuple[Arrival, ...] = ()
    ignored: tuple[str, ...] = ()


def read(headers: Mapping[str, str], body: bytes) -> Message:
    """Reads one request.

    Args:
        headers: lower-case names.
        body: as it came.

    Raises:
        MessageError: it is none of the known forms.
    """
    if "ce-type" in headers:
        event = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
        return _cloud_event({**event, "data": _json(body)})
    document = _json(body)
    if headers.get("content-type", "").startswith("application/cloudevents+json"):
        return _cloud_event(document)
    if "Records" in document:
        return _s3(document["Records"])
    if document.get("Event") == "s3:TestEvent":
        return Message(ignored=("a test event of S3",))
    if "message" in document:
        return _pubsub(document)
    raise MessageError(
        "The body is no message that is known here (received a JSON object with the fields "
        f"{', '.join(sorted(document)[:8]) or 'none'}). Send Pub/Sub push, CloudEvents, or "
        "notifications of Cloud Storage, S3 or MinIO."
    )


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MessageError(f"The body is no JSON: {error} (received {len(body)} bytes).") from None
    if not isinstance(document, dict):
        raise MessageError(f"The body is no JSON object (received {type(document).__name__}).")
    return document


def _field(place: Any, name: str, kind: type, where: str) -> Any:
    """A field that must be there, be of a kind, and not be empty."""
    value = place.get(name) if isinstance(place, dict) else None
    if not isinstance(value, kind) or not value:
        raise MessageError(f"{where} lacks {name} (received {value!r:.80}).")
    return value


def _cloud_event(event: dict[str, Any]) -> Message:
    if event.get("specversion") != "1.0":
        received = event.get("specversion")
        raise MessageError(
            f"Only CloudEvents 1.0 are read (received specversion {received!r:.80})."
        )
    kind = _field(event, "type", str, "The CloudEvent")
    data = event.get("data")
    if data is None and isinstance(event.get("data_base64"), str):
        data = _json(_decoded(event["data_base64"], "data_base64"))
    if kind == PUBLISHED:
        return _pubsub(data if isinstance(data, dict) else {})
    if kind not in FINALIZED:
        return Message(ignored=(f"an event of type {kind:.80}",))
    return _google(data, "The CloudEvent's data")


def _pubsub(envelope: dict[str, Any]) -> Message:
    message = _field(envelope, "message", dict, "The envelope")
    attributes = message.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise MessageError("The message's attributes are no JSON object.")
    kind = attributes.get("eventType")
    if kind is not None and kind not in FINALIZED:
        return Message(ignored=(f"an event of type {kind!s:.80}",))
    if kind is not None and "objectId" in attributes:
        renamed = {
            "bucket": attributes.get("bucketId"),
            "name": attributes.get("objectId"),
            "generation": attributes.get("objectGeneration"),
        }
        return _google(renamed, "The notification")
    data = _json(_decoded(message.get("data"), "message.data"))
    if "dataset" in data:
        return _told(data, message)
    return _google(data, "The message's data")


def _told(data: dict[str, Any], message: dict[str, Any]) -> Message:
    """`{"dataset": "gs://…"}`, published by whoever finished a dataset."""
    uri = _field(data, "dataset", str, "The message's data")
    number = message.get("messageId") or message.get("message_id")
    if not isinstance(number, str) or not number:
        raise MessageError(f"The message lacks messageId (received {number!r:.80}).")
    unfit = _unfit(uri)
    if unfit:
        return Message(ignored=(unfit,))
    return Message((Arrival(uri, f"{uri}#message-{number}", None, whole=True),))


def _google(data: Any, where: str) -> Message:
    bucket = _field(data, "bucket", str, where)
    name = _field(data, "name", str, where)
    generation = str(data.get("generation") or "")
    if not (generation.isascii() and generation.isdigit() and len(generation) <= 20):
        raise MessageError(f"{where} lacks a generation (received {generation!r:.80}).")
    uri = f"gs://{bucket}/{name}"
    unfit = _unfit(uri)
    if unfit:
        return Message(ignored=(unfit,))
    return Message((Arrival(uri, f"{uri}#{generation}", int(generation)),))


def _s3(records: Any) -> Message:
    if not isinstance(records, list) or not records or len(records) > MAX_RECORDS:
        raise MessageError(f"Records has to be a list of 1 to {MAX_RECORDS} objects.")
    arrivals: list[Arrival] = []
    ignored: list[str] = []
    for told in map(_s3_record, records):
        arrivals.extend(told.arrivals)
        ignored.extend(told.ignored)
    return Message(tuple(arrivals), tuple(ignored))


def _s3_record(record: Any) -> Message:
    kind = _field(record, "eventName", str, "A record").removeprefix("s3:")
    if not kind.startswith("ObjectCreated:"):
        return Message(ignored=(f"an event of type {kind:.80}",))
    told = _field(record, "s3", dict, "A record")
    bucket = _field(_field(told, "bucket", dict, "A record"), "name", str, "A record's bucket")
    thing = _field(told, "object", dict, "A record")
    # S3 encodes names as forms do: a space is a plus.
    name = urllib.parse.unquote_plus(_field(thing, "key", str, "A record's object"))
    # The same content put anew keeps its eTag and is a new state: what tells states apart is first.
    state = next((thing[n] for n in ("sequencer", "versionId", "eTag") if thing.get(n)), None)
    if not isinstance(state, str):
        raise MessageError(
            "A record's object has none of sequencer, versionId and eTag, so that a second "
            "delivery of the same message could not be told from a new object."
        )
    uri = f"s3://{bucket}/{name}"
    unfit = _unfit(uri)
    if unfit:
        return Message(ignored=(unfit,))
    return Message((Arrival(uri, f"{uri}#{state:.200}", _sequence(thing.get("sequencer"))),))


def _sequence(sequencer: Any) -> int | None:
    """S3's sequencers compare as hexadecimal numbers, for one object's name."""
    try:
        return int(sequencer, 16) if isinstance(sequencer, str) and len(sequencer) <= 64 else None
    except ValueError:
        return None


def _decoded(text: Any, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise MessageError(f"{where} is no base64 (received {text!r:.80}).") from None


def _unfit(uri: str) -> str:
    """Why an address is not one that a run should be given; "" if it is.

    A segment of dots would lie elsewhere for a program that reads addresses as paths.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("gs", "s3", "minio"):
        return "an address of no known store"
    if len(uri.encode("utf-8", "replace")) > MAX_NAME or not uri.isprintable():
        return "a name that is too long, or holds characters that cannot be printed"
    if any(part in ("", ".", "..") for part in _segments(rest)):
        return "a name with empty or dotted segments"
    return ""


def _segments(rest: str) -> Iterator[str]:
    yield from rest.removesuffix("/").split("/")
