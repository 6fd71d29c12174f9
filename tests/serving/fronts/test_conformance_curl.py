"""TF Serving's documented REST API, asked with curl of the command as a person starts it.

https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import json
import shutil
import subprocess

import numpy as np
import pytest

from tests.serving.engine.tiny_models import CLASSES, IMAGES

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
    pytest.mark.slow,  # exports two models
]

INSTANCES = [{"b64": base64.b64encode(image).decode()} for image in IMAGES[:3]]


@pytest.fixture
def curl(command, tmp_path):
    """A function of path and options: status, headers (lower case), body as JSON where it is."""

    def run(path, *options, body=None):
        if body is not None:
            (tmp_path / "body").write_bytes(
                body if isinstance(body, bytes) else json.dumps(body).encode()
            )
            options = ("--data-binary", f"@{tmp_path / 'body'}", *options)
        finished = subprocess.run(
            ["curl", "-s", "-D", str(tmp_path / "head"), *options, command.rest + path],
            capture_output=True,
            timeout=60,
            check=True,
        )
        first, *lines = (
            (tmp_path / "head").read_bytes().decode().split("\r\n\r\n")[-2].split("\r\n")
        )
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split()[1]), headers, json.loads(finished.stdout or "null")

    return run


def model(command, rest=""):
    return f"/v1/models/{command.name}{rest}"


def probabilities(answer):
    return np.array([row["probabilities"] for row in answer["predictions"]])


def test_the_command_says_how_to_ask(command, curl, tmp_path):
    assert f"{command.name}: version 1 is live, version 2 is its canary with 20 %" in command.said
    (example,) = (line for line in command.said if "curl" in line)
    words = example.split("curl ", 1)[1].replace("@slice.png", f"@{tmp_path / 'slice.png'}")
    (tmp_path / "slice.png").write_bytes(IMAGES[0])
    finished = subprocess.run(f"curl -s {words}", shell=True, capture_output=True, check=True)
    assert probabilities(json.loads(finished.stdout)).shape == (1, len(CLASSES))


def test_model_status(command, curl):
    status, _, answer = curl(model(command))
    assert status == 200
    ok = {"error_code": "OK", "error_message": ""}
    assert answer["model_version_status"] == [
        {"version": version, "state": "AVAILABLE", "status": ok} for version in ("2", "1")
    ]
    assert curl(model(command, "/versions/1"))[2]["model_version_status"][0]["version"] == "1"
    assert curl(model(command, "/labels/canary"))[2]["model_version_status"][0]["version"] == "2"


def test_model_metadata(command, curl):
    status, _, answer = curl(model(command, "/versions/2/metadata"))
    assert (status, answer["model_spec"]["version"]) == (200, "2")
    definitions = answer["metadata"]["signature_def"]["signature_def"]
    assert set(definitions) == {"predict_images", "serving_default"}
    assert definitions["predict_images"]["method_name"] == "tensorflow/serving/predict"
    assert answer["metadata"]["classes"] == list(CLASSES)


def test_predict_in_rows_and_columns(command, curl):
    path = model(command, "/versions/1:predict")
    status, headers, rows = curl(path, body={"instances": INSTANCES})
    assert (status, headers["x-model-version"]) == (200, "1")
    assert probabilities(rows).shape == (3, len(CLASSES))
    np.testing.assert_allclose(probabilities(rows).sum(axis=1), 1, atol=0.02)
    named = {"signature_name": "predict_images", "inputs": {"images": INSTANCES}}
    for body in ({"inputs": INSTANCES}, named):
        columns = curl(path, body=body)[2]["outputs"]["probabilities"]
        np.testing.assert_array_equal(columns, probabilities(rows))


def test_versions_and_labels_answer_for_themselves(command, curl):
    answers = {}
    for place in ("/versions/1", "/versions/2", "/labels/live", "/labels/canary"):
        _, headers, answer = curl(model(command, place + ":predict"), body={"instances": INSTANCES})
        answers[place] = headers["x-model-version"], probabilities(answer).tolist()
    assert answers["/labels/live"] == answers["/versions/1"]
    assert answers["/labels/canary"] == answers["/versions/2"]
    assert answers["/versions/1"][1] != answers["/versions/2"][1]


def test_one_id_goes_to_one_version_and_the_share_is_the_canarys(command, curl):
    def version(identity):
        return curl(
            model(command, ":predict"),
            *("-H", f"x-request-id: {identity}", "-H", "content-type: image/png"),
            body=IMAGES[0],
        )[1]["x-model-version"]

    chosen = [version(f"id-{index}") for index in range(60)]
    assert 2 <= chosen.count("2") <= 26  # 20 % of 60: outside by chance once in 10,000
    assert [version(f"id-{index}") for index in range(10)] == chosen[:10]


@pytest.mark.parametrize(
    ("rest", "body", "status", "error"),
    [
        ("/versions/9", None, 404, "Could not find version 9 of model"),
        ("/labels/nope", None, 400, "Unrecognized servable version label: nope"),
        ("/versions/9:predict", {"instances": INSTANCES}, 404, "Servable not found for request: S"),
        ("/labels/nope:predict", {"instances": INSTANCES}, 400, "Unrecognized servable version"),
        (":predict", {}, 400, "exactly one of 'instances'"),
        (":predict", b"instances = [1]", 400, "not JSON"),
        (":predict", {"instances": INSTANCES, "signature_name": "x"}, 400, "Serving signature key"),
        (
            ":predict",
            {"instances": INSTANCES, "signature_name": 100},
            400,
            "must be a string value",
        ),
        (":predict", {"instances": [[0.5]]}, 400, "PNG or JPEG"),
        (":predict", {"instances": [{"b64": "AAAA"}]}, 415, "neither PNG nor JPEG"),
        (":predict", {"instances": INSTANCES * 100}, 413, "the most is 256"),
        (":classify", {"examples": []}, 501, "use :predict"),
    ],
)
def test_errors(command, curl, rest, body, status, error):
    got, _, answer = curl(model(command, rest), body=body)
    assert got == status
    assert error in answer["error"]


def test_typing_errors_are_answered_in_words(command, curl):
    assert curl("/v1/model/" + command.name)[0] == 404
    assert curl(model(command, ":predict"))[0] == 405  # GET
    assert curl(model(command), "-X", "DELETE")[0] == 405
    assert curl(model(command, "/metadata/"))[0] == 404
    assert "Could not find any versions" in curl("/v1/models/studnet")[2]["error"]


def test_health(command, curl):
    assert curl("/healthz")[2] == {"status": "alive"}
    assert curl("/readyz")[2] == {"status": "ready"}


def test_what_was_served_is_in_the_log(command, curl):
    curl(model(command, ":predict"), "-H", "content-type: image/png", body=IMAGES[0])
    assert (command.log / ".open" / "span-1.tfrecord").exists() or list(command.log.glob("span-*"))
