"""The trigger in front of an emulated Kubeflow Pipelines, through the real client."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.emulators import one_node, processes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def kubeflow():
    with processes.kubeflow() as control:
        yield control


@contextlib.contextmanager
def trigger(kubeflow, folder: Path):
    """A running trigger; gives a function that tells it of a generation of a dataset."""
    (folder / "p.yaml").write_text(one_node.package())
    options = ["--on", f"kubeflow+http://{kubeflow.address}/team", "--package", folder / "p.yaml"]
    options += ["--watch", "gs://scans", "--param", "registry=gs://runs/registry", "--port", "0"]
    options += ["--pipeline-root", "gs://runs", "--state", folder / "state", "--debounce", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.trigger", *map(str, options), "--no-token"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = json.loads(process.stderr.readline())["port"]

        def told(generation: int) -> tuple[int, str]:
            resource = {"bucket": "scans", "name": "oasis/dataset.json", "generation": generation}
            headers = {
                "ce-specversion": "1.0",
                "ce-type": "google.cloud.storage.object.v1.finalized",
            }
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/", json.dumps(resource).encode(), headers
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, json.load(answer)["results"][0]["outcome"]
            except urllib.error.HTTPError as error:
                return error.code, ""

        yield told
    finally:
        process.terminate()
        process.stderr.close()
        assert process.wait(60) == 0


def runs(kubeflow) -> list[dict]:
    """The runs that the server keeps, as its own API lists them."""
    address = f"http://{kubeflow.address}/apis/v2beta1/runs?namespace=team&page_size=20"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer).get("runs", [])


def test_a_span_becomes_a_run_once(kubeflow, tmp_path):
    kubeflow(reset=True)
    with trigger(kubeflow, tmp_path) as told:
        assert told(1) == (200, "started")
        assert told(1) == (200, "duplicate")
    (run,) = runs(kubeflow)
    parameters = run["runtime_config"]["parameters"]
    assert parameters == {"dataset": "gs://scans/oasis", "registry": "gs://runs/registry"}
    assert run["runtime_config"]["pipeline_root"] == "gs://runs"
    # As if the process had died before it wrote down the run's id.
    book = json.loads((tmp_path / "state/book.json").read_text())
    book["entries"][0]["run"] = None
    (tmp_path / "state/book.json").write_text(json.dumps(book))
    with trigger(kubeflow, tmp_path) as told:
        assert told(1) == (200, "adopted")
        assert told(2) == (200, "started")
    assert len(runs(kubeflow)) == 2


def test_a_server_that_refuses_is_tried_again(kubeflow, tmp_path):
    kubeflow(reset=True)
    with trigger(kubeflow, tmp_path) as told:
        kubeflow(refuse={".*runs$": [500, "the database is away"]})
        assert told(1)[0] == 503
        assert told(1) == (200, "started")
    assert len(runs(kubeflow)) == 1
