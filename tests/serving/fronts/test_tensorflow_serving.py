"""TensorFlow Serving itself in the server's place: same file, same requests, same answers.

Runs where the binary is installed; nothing on PyPI or in Debian brings it.
"""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.serving.engine.tiny_models import IMAGES

BINARY = shutil.which("tensorflow_model_server")

pytestmark = [
    pytest.mark.skipif(BINARY is None, reason="tensorflow_model_server is not installed"),
    pytest.mark.slow,
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def real(registry, tmp_path_factory):
    """The binary, started as kubeflow/serving/tensorflow-serving starts it."""
    rest, grpc = free_port(), free_port()
    words = tmp_path_factory.mktemp("tensorflow-serving") / "log"
    with (
        words.open("wb") as output,
        subprocess.Popen(
            [
                BINARY,
                f"--port={grpc}",
                f"--rest_api_port={rest}",
                f"--model_config_file={registry.root / 'models.config'}",
                "--model_config_file_poll_wait_seconds=1",
                "--allow_version_labels_for_unavailable_models=true",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        address = f"http://127.0.0.1:{rest}"
        for _ in range(120):
            assert process.poll() is None, words.read_text()
            try:
                ask(f"{address}/v1/models/{registry.name}/labels/live")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(1)
        yield address
        process.terminate()


def ask(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("where", ["labels/live", "labels/canary", "versions/1", "versions/2"])
def test_the_same_request_has_the_same_answer(real, command, where):
    body = {
        "signature_name": "predict_images",
        "instances": [{"b64": base64.b64encode(image).decode()} for image in IMAGES[:3]],
    }
    path = f"/v1/models/{command.name}/{where}:predict"
    theirs, ours = (
        np.array([row["probabilities"] for row in ask(place + path, body)["predictions"]])
        for place in (real, command.rest)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.03)  # int8 here, the SavedModel there


def test_states_and_signatures_are_told_alike(real, command):
    path = f"/v1/models/{command.name}"
    theirs, ours = (ask(place + path)["model_version_status"] for place in (real, command.rest))
    key = "version"
    assert sorted(theirs, key=lambda it: it[key]) == sorted(ours, key=lambda it: it[key])
    signatures = (
        ask(f"{place}{path}/labels/live/metadata")["metadata"]["signature_def"]["signature_def"]
        for place in (real, command.rest)
    )
    theirs, ours = (found.keys() for found in signatures)
    assert set(ours) <= set(theirs)
