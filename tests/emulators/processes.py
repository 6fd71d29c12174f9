"""Starts the emulators as processes of their own, and steers them."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def program(module: str) -> Iterator[int]:
    """Runs a module that prints its port and ends with its standard input; gives the port."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
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
    """Keeps and restores the state of an emulated object store."""

    def __init__(self, port: int):
        self.host = f"http://127.0.0.1:{port}"

    def keep(self, name: str) -> None:
        """Remembers the state under a name."""
        self._post(f"/keep?name={name}")

    def restore(self, name: str) -> None:
        """Brings the state back."""
        self._post(f"/restore?name={name}")

    def _post(self, path: str) -> None:
        request = urllib.request.Request(self.host + path, data=b"", method="POST")
        urllib.request.urlopen(request, timeout=10).close()


@contextlib.contextmanager
def storage() -> Iterator[StorageControl]:
    """An object store."""
    with program("tests.emulators.storage") as port:
        yield StorageControl(port)


@contextlib.contextmanager
def vertex() -> Iterator[VertexControl]:
    """A Vertex AI."""
    with program("tests.emulators.vertex") as port:
        yield VertexControl(port)
