"""A stranger's words appear in no log, metric or prediction log, and in no answer but as an id."""

import base64
import http.client
import io
import json
import logging

import grpc
import pytest
from memory_engine import serving

from ingest.records import encode_example, read_records
from serving import logs, protos

WORD = "kanarie"


@pytest.fixture
def sinks(tmp_path, monkeypatch):
    """A server, and a function that stops it and returns all that it wrote."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure(stream)
    with serving(tmp_path, prediction_log=tmp_path / "log") as front:
        yield front, lambda: collected(front, tmp_path / "log", stream)
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def collected(front, folder, stream):
    connection = http.client.HTTPConnection("127.0.0.1", front.rest)
    connection.request("GET", "/metrics")
    metrics = connection.getresponse().read().decode()
    connection.close()
    front.stop().result(30)
    records = [repr(record) for path in folder.rglob("*.gz") for record in read_records(path)]
    assert records
    return {
        "logs": stream.getvalue(),
        "metrics": metrics,
        "prediction log": "".join(records),
        "names": repr(sorted(map(str, folder.rglob("*")))),
        "manifest": (folder / "manifest.jsonl").read_text(),
    }


def text_chunk():
    import struct
    import zlib

    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", f"{WORD}-png")
    buffer = io.BytesIO()
    Image.new("L", (32, 32), 7).save(buffer, "PNG", pnginfo=info)
    assert struct.pack(">I", zlib.crc32(b"IEND")) in buffer.getvalue()
    return buffer.getvalue()


def test_rest(sinks):
    front, collect = sinks
    image = {"b64": base64.b64encode(text_chunk()).decode()}
    answers = []

    def send(path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", front.rest)
        connection.request("POST" if body else "GET", path, body, headers or {})
        response = connection.getresponse()
        answers.append(str(response.getheaders()) + response.read().decode())
        connection.close()

    predict = "/v1/models/severity:predict"
    good = json.dumps({"instances": [image], f"{WORD}-field": f"{WORD}-value"})
    send(predict, good, {"User-Agent": f"{WORD}-agent", "Cookie": f"a={WORD}-cookie"})
    send(predict, good, {"X-Request-Id": f"{WORD}-é".encode("latin1")})
    send(predict + f"?{WORD}-query=1", good)
    send(predict, json.dumps({"instances": [f"{WORD}-text"]}))
    send(predict, json.dumps({"instances": [{f"{WORD}-input": image}]}))
    send(predict, json.dumps({"instances": [image], "signature_name": f"{WORD}-signature"}))
    send(predict, f'{{"{WORD}-broken": NaN}}')
    send(predict, text_chunk(), {"Content-Type": f"image/{WORD}-type"})
    send(predict, text_chunk(), {"Content-Type": "image/png"})
    send(f"/v1/models/<{WORD}-name>")
    send(f"/{WORD}-page")
    send(f"/v1/models/severity/labels/%2e{WORD}-label")
    front.engine.problem = ValueError(f"{WORD}-defect")
    send(predict, good)
    front.engine.problem = None
    assert len(answers) == 13
    assert not [answer for answer in answers if WORD in answer]
    for sink, text in collect().items():
        assert WORD not in text, sink


def test_a_request_id_goes_back_to_who_gave_it_and_nowhere_else(sinks):
    front, collect = sinks
    connection = http.client.HTTPConnection("127.0.0.1", front.rest)
    headers = {"X-Request-Id": f"{WORD}-id", "Content-Type": "image/png"}
    connection.request("POST", "/v1/models/severity:predict", text_chunk(), headers)
    assert connection.getresponse().getheader("x-request-id") == f"{WORD}-id"
    connection.close()
    for sink, text in collect().items():
        assert WORD not in text, sink


def test_grpc(sinks):
    front, collect = sinks
    request = protos.PredictRequest()
    request.model_spec.name = f"<{WORD}-model>"
    request.model_spec.signature_name = f"{WORD}-signature"
    tensor = request.inputs[f"{WORD}-input"]
    tensor.dtype = protos.DT_STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(encode_example({f"{WORD}-feature": b"x"}))
    said = []
    with grpc.insecure_channel(f"127.0.0.1:{front.grpc}") as channel:
        ask = channel.unary_unary(f"/{protos.PREDICTION_SERVICE}/Predict")
        for edit in (
            lambda: None,
            lambda: setattr(request.model_spec, "signature_name", ""),
            lambda: setattr(request.model_spec, "name", "severity"),
            lambda: request.output_filter.append(f"{WORD}-output"),
        ):
            edit()
            with pytest.raises(grpc.RpcError) as caught:
                ask(request.SerializeToString(), metadata=(("x-canary", f"{WORD}-metadata"),))
            said.append(caught.value.details() + str(caught.value.trailing_metadata()))
        with pytest.raises(grpc.RpcError):
            ask(f"{WORD}-noise".encode())
    assert not [words for words in said if WORD in words]
    for sink, text in collect().items():
        assert WORD not in text, sink


def test_every_line_is_json(sinks):
    front, collect = sinks
    front.engine.problem = ValueError("x")
    connection = http.client.HTTPConnection("127.0.0.1", front.rest)
    headers = {"Content-Type": "image/png"}
    connection.request("POST", "/v1/models/severity:predict", text_chunk(), headers)
    connection.getresponse().read()
    connection.close()
    logging.getLogger("somebody.else").error("Received %s", WORD)
    try:
        raise OSError(WORD)
    except OSError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    entries = [json.loads(line) for line in collect()["logs"].splitlines()]
    events = {entry["event"]: entry for entry in entries}
    assert {"started", "stopping", "stopped", "Received %s"} <= set(events)
    assert events["request failed"]["exception"]["type"] == "ValueError"
    assert events["request failed"]["exception"]["at"][-1].startswith("memory_engine.py:")
    assert not any(WORD in json.dumps(entry) for entry in entries)
    assert all(entry["time"].endswith("+00:00") for entry in entries)
