"""Servers for whole files of tests: one on an engine without models, one as a person starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from memory_engine import serving

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    (folder / "registry").mkdir()
    with serving(folder / "registry") as running:
        yield running


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """Two small exported classifiers: version 1 is live, version 2 its canary with 20 %."""
    from registry.local import LocalRegistry
    from tests.serving.engine.tiny_models import NAME, WHY, export_to

    folder = tmp_path_factory.mktemp("tiny")
    registry = LocalRegistry(folder / "registry", NAME)
    for favourite in (0, 1):
        export_to(folder / str(favourite), favourite)
        registry.push(folder / str(favourite), **WHY)
    registry.promote(1, reason="test", who="test")
    registry.set_traffic(2, 20, reason="test", who="test")
    return registry


@pytest.fixture(scope="module")  # a reload leaves its traces in what is known of versions
def command(registry, tmp_path_factory):
    """`cortexflow serve` on that registry, in a process of its own."""
    log = tmp_path_factory.mktemp("served") / "log"
    options = ["--rest-port", "0", "--grpc-port", "0", "--prediction-log", str(log)]
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", "--registry", str(registry.root), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        said = []
        while not said or not said[-1].startswith("Research use only"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said.append(line.rstrip("\n"))
        told = dict(line.split(maxsplit=1) for line in said[:2])
        yield SimpleNamespace(
            rest=told["REST"].removesuffix("/v1/models"),
            grpc=told["gRPC"],
            said=said,
            name=registry.name,
            registry=registry,
            log=log,
        )
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        for line in errors.splitlines():
            json.loads(line)
