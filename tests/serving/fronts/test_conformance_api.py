"""TF Serving's gRPC, asked by a client that is built on tensorflow-serving-api alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.serving.engine.tiny_models import IMAGES

pytestmark = pytest.mark.slow  # exports two models, and the client loads TensorFlow
PREDICT = "tensorflow/serving/predict"


@pytest.fixture(scope="module")
def answers(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for index, image in enumerate(IMAGES[:3]):
        paths.append(folder / f"{index}.png")
        paths[-1].write_bytes(image)
    base_path = str(command.registry.root / command.name)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    finished = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("api_client.py"))),
            *(command.grpc, command.name, base_path, *map(str, paths)),
        ],
        capture_output=True,
        text=True,
        timeout=170,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout)


def test_predict(answers):
    assert np.shape(answers["version 1"]) == (3, 4)
    assert answers["version of version 1"] == 1
    assert answers["version of canary"] == 2
    assert answers["canary"] != answers["version 1"]
    assert answers["examples"] == answers["version 1"]
    assert answers["signature"] == "predict_images"
    assert answers["filtered"] == ["probabilities"]


def test_states_and_metadata(answers):
    assert answers["states"] == [[2, "AVAILABLE"], [1, "AVAILABLE"]]
    assert answers["one state"] == [2]
    assert answers["metadata version"] == 1
    assert answers["signatures"] == {
        "predict_images": [["images"], ["probabilities"], PREDICT],
        "serving_default": [["examples"], ["probabilities"], PREDICT],
    }


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ("no model", "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        ("no version", "NOT_FOUND", "Servable not found for request: Specific("),
        ("no label", "INVALID_ARGUMENT", "Unrecognized servable version label: nope"),
        ("no signature", "INVALID_ARGUMENT", "Serving signature key"),
        ("no input", "INVALID_ARGUMENT", "Inputs expected to be in the set {images}"),
        ("no output", "INVALID_ARGUMENT", "output tensor alias not found in signature"),
        ("floats", "INVALID_ARGUMENT", "to be string"),
        ("no status", "NOT_FOUND", "Could not find any versions of model nope"),
        ("no status of a version", "NOT_FOUND", "Could not find version 9 of model"),
        ("no metadata field", "INVALID_ARGUMENT", "at least one metadata_field"),
        ("classify", "UNIMPLEMENTED", ""),
        ("regress", "UNIMPLEMENTED", ""),
        ("multi", "UNIMPLEMENTED", ""),
    ],
)
def test_errors(answers, asked, status, words):
    assert answers[asked][0] == status
    assert words in answers[asked][1]


def test_reload(answers):
    assert (answers["reload"], answers["after reload"]) == (0, 2)
    assert answers["label after reload"][0] == "INVALID_ARGUMENT"
    assert answers["bad reload"][0] not in ("OK", "INTERNAL", "UNKNOWN")
    assert answers["after bad reload"] == 2
    assert answers["reload back"] == 0
    assert answers["back"] == answers["version 1"]
