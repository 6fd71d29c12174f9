"""Messages of every sender, and bodies that are none."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.trigger_events import Arrival, Message, MessageError, read


def packed(document) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def body(document) -> bytes:
    return json.dumps(document).encode()


ATTRIBUTES = {
    "eventType": "OBJECT_FINALIZE",
    "bucketId": "scans",
    "objectId": "oasis/dataset.json",
    "objectGeneration": "1700000000000001",
    "payloadFormat": "JSON_API_V1",
}
RESOURCE = {"bucket": "scans", "name": "oasis/dataset.json", "generation": "1700000000000001"}
EXPECTED = Arrival(
    "gs://scans/oasis/dataset.json",
    "gs://scans/oasis/dataset.json#1700000000000001",
    1700000000000001,
)
RECORD = {
    "eventSource": "aws:s3",
    "eventName": "ObjectCreated:Put",
    "s3": {
        "bucket": {"name": "scans"},
        "object": {"key": "my+set/dataset.json", "eTag": "d41d8", "sequencer": "0A1B2C"},
    },
}


@pytest.mark.parametrize(
    ("headers", "document"),
    [
        # Pub/Sub push of a Cloud Storage notification, with and without its payload
        ({}, {"message": {"attributes": ATTRIBUTES, "messageId": "1"}, "subscription": "s"}),
        ({}, {"message": {"attributes": {}, "data": packed(RESOURCE), "messageId": "1"}}),
        # Eventarc, binary and structured
        (
            {"ce-specversion": "1.0", "ce-type": "google.cloud.storage.object.v1.finalized"},
            RESOURCE | {"kind": "storage#object"},
        ),
        (
            {"content-type": "application/cloudevents+json; charset=utf-8"},
            {
                "specversion": "1.0",
                "type": "google.cloud.storage.object.v1.finalized",
                "data": RESOURCE,
            },
        ),
        (
            {"content-type": "application/cloudevents+json"},
            {
                "specversion": "1.0",
                "type": "google.cloud.storage.object.v1.finalized",
                "data_base64": packed(RESOURCE),
            },
        ),
        # Eventarc of a Pub/Sub topic
        (
            {"ce-specversion": "1.0", "ce-type": "google.cloud.pubsub.topic.v1.messagePublished"},
            {"message": {"attributes": ATTRIBUTES, "messageId": "1"}, "subscription": "s"},
        ),
    ],
)
def test_all_ways_of_cloud_storage_tell_the_same(headers, document):
    assert read(headers, body(document)) == Message((EXPECTED,))


@pytest.mark.parametrize("name", ["ObjectCreated:Put", "s3:ObjectCreated:CompleteMultipartUpload"])
def test_s3_and_minio(name):
    told = read({}, body({"EventName": name, "Records": [RECORD | {"eventName": name}]}))
    uri = "s3://scans/my set/dataset.json"
    assert told == Message((Arrival(uri, f"{uri}#0A1B2C", 0x0A1B2C),))


def test_s3_falls_back_on_the_version_then_on_the_content():
    thing = {"key": "a/dataset.json", "eTag": "d41d8", "versionId": "v9"}
    record = RECORD | {"s3": RECORD["s3"] | {"object": thing}}
    assert read({}, body({"Records": [record]})).arrivals[0].key.endswith("#v9")
    del thing["versionId"]
    (arrival,) = read({}, body({"Records": [record]})).arrivals
    assert (arrival.key, arrival.order) == ("s3://scans/a/dataset.json#d41d8", None)


def test_a_dataset_told_by_name():
    message = {"data": packed({"dataset": "gs://scans/oasis"}), "messageId": "77"}
    (arrival,) = read({}, body({"message": message})).arrivals
    assert arrival == Arrival("gs://scans/oasis", "gs://scans/oasis#message-77", None, whole=True)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"message": {"attributes": ATTRIBUTES | {"eventType": "OBJECT_DELETE"}}}, "OBJECT_DELETE"),
        ({"Records": [RECORD | {"eventName": "s3:ObjectRemoved:Delete"}]}, "ObjectRemoved"),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, "test event"),
        ({"message": {"data": packed(RESOURCE | {"name": "a/../b/dataset.json"})}}, "dotted"),
        ({"message": {"data": packed(RESOURCE | {"name": "a//dataset.json"})}}, "empty"),
        ({"message": {"data": packed(RESOURCE | {"name": "a\n/dataset.json"})}}, "printed"),
        ({"message": {"data": packed(RESOURCE | {"name": "a" * 1100})}}, "too long"),
        (
            {"message": {"data": packed({"dataset": "file:///etc"}), "messageId": "1"}},
            "no known store",
        ),
    ],
)
def test_what_is_of_no_concern_is_said_and_settled(document, reason):
    told = read({}, body(document))
    assert told.arrivals == ()
    assert reason in told.ignored[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"{}", "no message that is known"),
        (b'{"message": []}', "lacks message"),
        (b'{"message": {"attributes": [1]}}', "attributes"),
        (b'{"message": {"data": "%%%"}}', "no base64"),
        (b'{"message": {"data": 7}}', "no base64"),
        (body({"message": {"data": packed([1])}}), "no JSON object"),
        (body({"message": {"data": packed({"bucket": "b"})}}), "lacks name"),
        (body({"message": {"data": packed(RESOURCE | {"generation": "x"})}}), "generation"),
        (body({"message": {"data": packed({"dataset": "gs://b/d"})}}), "lacks messageId"),
        (b'{"Records": []}', "1 to 100"),
        (b'{"Records": {"a": 1}}', "1 to 100"),
        (b'{"Records": [7]}', "lacks eventName"),
        (b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": 3}}]}', "lacks bucket"),
        (
            body({"Records": [RECORD | {"s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}]}),
            "none of sequencer",
        ),
    ],
)
def test_a_body_that_is_no_message_is_refused_with_the_reason(content, reason):
    with pytest.raises(MessageError, match=reason):
        read({}, content)


def test_another_specification_is_refused():
    with pytest.raises(MessageError, match=r"CloudEvents 1\.0"):
        read({"ce-type": "x", "ce-specversion": "0.3"}, b"{}")


FIELDS = (
    *("message", "data", "attributes", "Records", "s3", "bucket", "object", "key", "name"),
    *("eventName", "eventType", "objectId", "generation", "dataset", "type"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([{}, {"ce-type": "google.cloud.storage.object.v1.finalized"}]))
def test_no_body_makes_it_fail_in_another_way(document, headers):
    with contextlib.suppress(MessageError):
        told = read(headers | {"ce-specversion": "1.0"} if headers else {}, body(document))
        assert told.arrivals or told.ignored
