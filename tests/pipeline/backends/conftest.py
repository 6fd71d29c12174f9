"""Emulated services, one process each for all tests of a worker."""

import os
import sys

import pytest

from pipeline.backends.opening import open_cluster
from tests.emulators import processes

LEFT_OUT = ("KF_PIPELINES", "CORTEXFLOW_KUBEFLOW", "CORTEXFLOW_BACKEND")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    """Nothing of the machine's own settings reaches a test."""
    for name in list(os.environ):
        if name.startswith(LEFT_OUT):
            monkeypatch.delenv(name)
    none = str(tmp_path / "no-kubeconfig")
    monkeypatch.setenv("KUBECONFIG", none)
    if library := sys.modules.get("kubernetes.config.kube_config"):  # it has read the variable
        monkeypatch.setattr(library, "KUBE_CONFIG_DEFAULT_LOCATION", none)


@pytest.fixture(scope="session")
def kfp_server():
    with processes.kubeflow() as control:
        yield control


@pytest.fixture
def kfp(kfp_server):
    """The server without runs."""
    kfp_server(reset=True)
    return kfp_server


@pytest.fixture
def kubeflow(kfp):
    """Our backend before it."""
    return open_cluster(f"kubeflow+http://{kfp.address}")


@pytest.fixture(scope="session")
def vertex_server():
    with processes.vertex() as control:
        yield control


@pytest.fixture
def vertex_ai(vertex_server, monkeypatch):
    """The service without jobs."""
    vertex_server(reset=True)
    monkeypatch.setenv("CORTEXFLOW_VERTEX_EMULATOR_HOST", vertex_server.host)
    return vertex_server


@pytest.fixture
def vertex(vertex_ai):
    """Our backend before it."""
    return open_cluster("vertex://research/europe-west4")
