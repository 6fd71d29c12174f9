"""The real pipeline, compiled and submitted, executed by the emulated services: minutes."""

import contextlib
import re

import pytest

from registry.opening import open_registry
from tests.emulators import processes, tls
from tests.pipeline.conftest import LENIENT, TINY, assignments

pytestmark = pytest.mark.slow
BUCKET = "cortexflow-test"
FAST = ["--wait", "--interval", "1"]
UNREACHABLE = "gate.macro_auc_floor=0.999"


@contextlib.contextmanager
def bucket(folder):
    """An object store under Google's own names; gives the environment in which it is found."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    with processes.storage() as control:
        client = storage.Client(
            project="research",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": control.host},
        )
        client.create_bucket(BUCKET)
        with tls.google_storage(int(control.host.rpartition(":")[2]), folder) as environment:
            yield environment


def test_a_refusing_gate_on_kubeflow_exits_with_2(cortexflow, tmp_path):
    """Registry and pipeline root are folders that every node has."""
    with processes.kubeflow() as server:
        where = f"kubeflow+http://{server.address}"
        answer = cortexflow(
            *("submit", "quickstart", "--on", where, "--data", "phantom", *FAST),
            *assignments(*TINY, *LENIENT, UNREACHABLE),
            *("--pipeline-root", str(tmp_path / "root")),
            *("--param", f"registry={tmp_path / 'registry'}", "--experiment", "tiny"),
            workspace=tmp_path / "workspace",
        )
        assert answer.returncode == 2, answer.stdout + answer.stderr
        last = answer.stdout.splitlines()[-1]
        assert last.startswith("refused: StopOnRefusal: ")
        assert re.search(r"✓ Teacher +ran", answer.stdout)
        assert re.search(r"✗ StopOnRefusal +failed", answer.stdout)
        assert re.search(r"– RegistryPusher +skipped", answer.stdout)
        run_id = re.search(r"^run (\S+)$", answer.stdout, re.MULTILINE)[1]
        logged = cortexflow("logs", run_id, "StopOnRefusal", "--on", where, workspace=None)
        assert "macro AUC" in logged.stdout
    assert not list((tmp_path / "registry").glob("*/[0-9]*"))


def test_vertex_ai_with_a_bucket_pushes_a_version(cortexflow, tmp_path, monkeypatch):
    """Root, dataset and registry are in a bucket that TensorFlow and the clients share."""
    with bucket(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with processes.vertex(environment) as service:
            monkeypatch.setenv("CORTEXFLOW_VERTEX_EMULATOR_HOST", service.host)
            answer = cortexflow(
                *("submit", "quickstart", "--on", "vertex://research/europe-west4", *FAST),
                *("--data", "phantom", "--label", "commit=abc"),
                *assignments(*TINY, *LENIENT),
                *("--pipeline-root", f"gs://{BUCKET}/root"),
                *("--param", f"registry=gs://{BUCKET}/models"),
                workspace=tmp_path / "workspace",
            )
            assert answer.returncode == 0, answer.stdout + answer.stderr
            assert answer.stdout.splitlines()[-1] == "passed"
            assert re.search(r"✓ RegistryPusher +ran", answer.stdout)
        registry = open_registry(f"gs://{BUCKET}/models", "phantom")
        assert registry.traffic().live == 1
