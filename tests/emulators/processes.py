"""Starts the emulators as processes of their own, and steers them."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def program(module: str, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Runs a module that prints its port and ends with its standard input; gives the port."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} ended with {process.wait()} before it served")
        yield int(line)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


class VertexControl:
    """Steers an emulated Vertex AI; orders as in `tests.emulators.vertex.Vertex.control`."""

    def __init__(self, port: int):
        self.host = f"127.0.0.1:{port}"
        self._apply = grpc.insecure_channel(self.host).unary_unary("/Control/Apply")

    def __call__(self, **order) -> list[str]:
        """Carries out an order; returns the calls since the last one."""
        return json.loads(self._apply(json.dumps(order).encode()))["calls"]


class StorageControl:
    """Keeps and restores the state of an emulated object store; makes buckets and reads objects."""

    def __init__(self, port: int):
        self.port = port
        self.host = f"http://127.0.0.1:{port}"

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket."""
        body = json.dumps({"name": name}).encode()
        self._post("/storage/v1/b", body, {"Content-Type": "application/json"})

    def names(self, bucket: str) -> list[str]:
        """Names of all objects of a bucket."""
        found = json.loads(self._get(f"/storage/v1/b/{bucket}/o"))
        return [item["name"] for item in found.get("items", ())]

    def read(self, bucket: str, name: str) -> bytes:
        """An object's content."""
        quoted = urllib.parse.quote(name, safe="")
        return self._get(f"/download/storage/v1/b/{bucket}/o/{quoted}?alt=media")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.host + path, timeout=10) as answer:
            return answer.read()

    def keep(self, name: str) -> None:
        """Remembers the state under a name."""
        self._post(f"/keep?name={name}")

    def restore(self, name: str) -> None:
        """Brings the state back."""
        self._post(f"/restore?name={name}")

    def _post(self, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        request = urllib.request.Request(self.host + path, body, headers or {}, method="POST")
        urllib.request.urlopen(request, timeout=10).close()


@contextlib.contextmanager
def storage() -> Iterator[StorageControl]:
    """An object store."""
    with program("tests.emulators.storage") as port:
        yield StorageControl(port)


class KubeflowControl:
    """Steers an emulated Kubeflow Pipelines; orders as in `tests.emulators.kfp_api.Api.control`."""

    def __init__(self, port: int):
        self.address = f"127.0.0.1:{port}"

    def __call__(self, **order) -> dict:
        """Carries out an order; returns what was asked of the server since the last one."""
        request = urllib.request.Request(
            f"http://{self.address}/control", data=json.dumps(order).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def kubeflow(environment: Mapping[str, str] | None = None) -> Iterator[KubeflowControl]:
    """A Kubeflow Pipelines API server; nodes run with this environment over the process's own."""
    with program("tests.emulators.kfp_api", environment) as port:
        yield KubeflowControl(port)


@contextlib.contextmanager
def vertex(environment: Mapping[str, str] | None = None) -> Iterator[VertexControl]:
    """A Vertex AI; nodes run with this environment over the process's own."""
    with program("tests.emulators.vertex", environment) as port:
        yield VertexControl(port)
