"""REST: TF Serving's paths, formats and errors; and what is ours beside them."""

import base64
import http.client
import json

import numpy as np
import pytest
from memory_engine import PNG, expected

from ingest.records import encode_example
from serving.errors import ServingError

IMAGES = [PNG + bytes([index]) * 20 for index in range(3)]


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def ask(front, method, path, body=None, headers=None):
    """Status, headers (lower case), body as JSON where it is, else bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", front.rest, timeout=20)
    try:
        content = json.dumps(body) if isinstance(body, dict | list) else body
        connection.request(method, path, content, headers or {})
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        data = response.read()
        if received["content-type"] == "application/json" and data:
            data = json.loads(data)
        return response.status, received, data
    finally:
        connection.close()


def predict(front, body, path="/v1/models/severity:predict", headers=None):
    return ask(front, "POST", path, body, headers)


def rows(document):
    return np.array([row["probabilities"] for row in document["predictions"]], np.float32)


WANTED = np.stack([expected(image) for image in IMAGES])


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(image) for image in IMAGES]},
        {"instances": [{"images": b64(image)} for image in IMAGES]},
        {"signature_name": "predict_images", "instances": [b64(image) for image in IMAGES]},
        {
            "signature_name": "serving_default",
            "instances": [b64(encode_example({"image": image})) for image in IMAGES],
        },
        {"instances": [{"examples": b64(encode_example({"image": i}))} for i in IMAGES]},
        {"instances": [b64(encode_example({"image": image})) for image in IMAGES]},
        {"instances": [{"b64": b64(image)["b64"].rstrip("=")} for image in IMAGES]},
    ],
)
def test_rows(front, body):
    status, headers, document = predict(front, body)
    assert status == 200
    np.testing.assert_array_equal(rows(document), WANTED)  # float32, to the last bit
    assert headers["x-model-version"] == "1"


@pytest.mark.parametrize("named", [False, True])
def test_columns(front, named):
    values = [b64(image) for image in IMAGES]
    status, _, document = predict(front, {"inputs": {"images": values} if named else values})
    assert status == 200
    np.testing.assert_array_equal(np.float32(document["outputs"]["probabilities"]), WANTED)


@pytest.mark.parametrize(
    "kind",
    ["image/png", "image/jpeg", "IMAGE/PNG; charset=x", "application/x-www-form-urlencoded", ""],
)
def test_an_image_as_the_body(front, kind):
    status, _, document = predict(front, IMAGES[0], headers={"Content-Type": kind})
    assert status == 200
    np.testing.assert_array_equal(rows(document), WANTED[:1])


@pytest.mark.parametrize(
    ("where", "version"), [("", "1"), ("/versions/2", "2"), ("/labels/canary", "2")]
)
def test_versions_and_labels(front, where, version):
    body = {"instances": [b64(IMAGES[0])]}
    status, headers, _ = predict(front, body, f"/v1/models/severity{where}:predict")
    assert (status, headers["x-model-version"]) == (200, version)


def test_status(front):
    _, _, document = ask(front, "GET", "/v1/models/severity")
    assert document == {
        "model_version_status": [
            {
                "version": version,
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for version in ("2", "1")
        ]
    }
    _, _, one = ask(front, "GET", "/v1/models/severity/labels/canary")
    assert [entry["version"] for entry in one["model_version_status"]] == ["2"]


def test_metadata(front):
    status, headers, document = ask(front, "GET", "/v1/models/severity/versions/2/metadata")
    assert (status, headers["x-model-version"]) == (200, "2")
    assert document["model_spec"] == {"name": "severity", "signature_name": "", "version": "2"}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["examples"]["dtype"] == "DT_STRING"
    shape = signatures["predict_images"]["outputs"]["probabilities"]["tensor_shape"]
    assert [one["size"] for one in shape["dim"]] == ["-1", "4"]
    assert document["metadata"]["classes"][0] == "Mild"
    assert "not for diagnosis" in document["metadata"]["intended_use"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "words"),
    [
        ("GET", "/v1/models/nope", 404, "not_found", "Could not find any versions of model nope"),
        ("GET", "/v1/models/severity/versions/9", 404, "not_found", "Could not find version 9"),
        ("GET", "/v1/models/severity/labels/x", 400, "invalid_request", "Unrecognized servable"),
        ("GET", "/v1/models/nope/metadata", 404, "not_found", "Servable not found for request"),
        ("GET", f"/v1/models/severity/versions/{2**64}", 400, "invalid_request", "Failed to conv"),
        ("GET", "/v1/models/severity/versions/" + "9" * 9999, 400, "invalid_request", "Failed"),
        ("GET", "/", 404, "not_found", "/v1/models/NAME"),
        ("GET", "/v1/models", 404, "not_found", "/v1/models/NAME"),
        ("GET", "/v1/models/severity/versions/x", 404, "not_found", "/v1/models/NAME"),
        ("GET", "/v1/models/..%2f..%2fetc", 404, "not_found", "/v1/models/NAME"),
        ("GET", "/v1/models/%00", 404, "not_found", "/v1/models/NAME"),
        ("GET", "/v1/models/severity:predict", 405, "method_not_allowed", "POST only"),
        ("POST", "/v1/models/severity", 405, "method_not_allowed", "GET or HEAD only"),
        ("DELETE", "/healthz", 405, "method_not_allowed", "GET or HEAD only"),
        ("POST", "/v1/models/severity:classify", 501, "unimplemented", "use :predict"),
        ("POST", "/v1/models/severity:regress", 501, "unimplemented", "use :predict"),
    ],
)
def test_errors_of_paths(front, method, path, status, code, words):
    got, headers, document = ask(front, method, path)
    assert (got, document["code"]) == (status, code)
    assert words in document["error"]
    assert headers["content-type"] == "application/json"
    if status == 405:
        assert headers["allow"] == ", ".join(document["details"]["allow"])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/nope:predict", "Servable not found for request: Latest(nope)"),
        ("/v1/models/severity/versions/9:predict", "for request: Specific(severity, 9)"),
    ],
)
def test_predictions_of_nothing(front, path, words):
    status, _, document = predict(front, {"instances": [b64(IMAGES[0])]}, path)
    assert status == 404
    assert words in document["error"]


@pytest.mark.parametrize("given", ["run-7", "a b/c:{}", "x" * 128])
def test_a_request_id_is_given_back(front, given):
    for path in ("/healthz", "/nowhere"):
        assert ask(front, "GET", path, headers={"X-Request-Id": given})[1]["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "caf\u00e9", "tab\there"])
def test_a_strange_request_id_is_replaced(front, given):
    headers = {"X-Request-Id": given.encode("latin1")}
    fresh = [ask(front, "GET", "/healthz", headers=headers)[1]["x-request-id"] for _ in range(2)]
    assert given not in fresh
    assert len(fresh[0]) == 32
    assert fresh[0] != fresh[1]


def test_every_answer_says_what_it_is_for(front):
    for path in ("/healthz", "/readyz", "/metrics", "/nowhere", "/v1/models/severity"):
        headers = ask(front, "GET", path)[1]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-intended-use"] == "research use only, not for diagnosis"
        assert "server" not in headers


def test_health_and_readiness(front):
    assert ask(front, "GET", "/readyz")[0] == 200
    front.engine.up = False
    try:
        status, headers, document = ask(front, "GET", "/readyz")
        assert (status, headers["retry-after"], document["code"]) == (503, "1", "unavailable")
        assert ask(front, "GET", "/healthz")[0] == 200
    finally:
        front.engine.up = True


def test_head_has_no_body(front):
    status, headers, data = ask(front, "HEAD", "/v1/models/severity")
    assert (status, data) == (200, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (ServingError("overloaded", "Full.", retry_after=3.2), 429),
        (ServingError("unavailable", "Loading."), 503),
        (ServingError("deadline_exceeded", "Late."), 504),
        (ServingError("out_of_distribution", "Odd.", details={"entropy": 9.5}), 422),
        (ValueError("secret-of-a-defect"), 500),
    ],
)
def test_what_the_engine_raises(front, problem, status):
    front.engine.problem = problem
    try:
        got, headers, document = predict(front, {"instances": [b64(IMAGES[0])]})
    finally:
        front.engine.problem = None
    assert got == status
    assert set(document) == {"error", "code", "details"}
    assert headers.get("retry-after") == {429: "3", 503: "1"}.get(status)
    assert "secret-of-a-defect" not in json.dumps(document)
    if status == 422:
        assert document["details"] == {"entropy": 9.5}


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_never_given(front, factor):
    front.engine.poison = np.float32(factor)
    try:
        status, _, document = predict(front, {"instances": [b64(IMAGES[0])]})
    finally:
        front.engine.poison = None
    assert (status, document["code"]) == (500, "internal")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "image/gif"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "image/png"}, 400),
        ({}, 400),
    ],
)
def test_bodies_that_are_none(front, headers, status):
    assert predict(front, b"", headers=headers)[0] == status


def test_metrics(front):
    predict(front, {"instances": [b64(IMAGES[0])]})
    predict(front, {"instances": []})
    _, headers, text = ask(front, "GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = text.decode().splitlines()
    for wanted in (
        'cortexflow_requests_total{code="ok",model="severity",version="1"}',
        'cortexflow_requests_total{code="invalid_request",model="severity",version=""}',
        'cortexflow_traffic_ratio{model="severity",role="canary",version="2"} 0.1',
        'cortexflow_version_available{model="severity",version="2"} 1.0',
        "cortexflow_ready 1.0",
        "cortexflow_queued_images 0.0",
        'cortexflow_answers_total{protocol="rest",status="200"}',
        'cortexflow_request_seconds_bucket{le="0.001",model="severity",version="1"}',
    ):
        assert any(line.startswith(wanted) for line in lines), wanted
