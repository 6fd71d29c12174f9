"""`cortexflow serve` as typed: what it says, and what it refuses to start with."""

import json
import logging
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.serve import ServeError, app
from registry import serving_config
from registry.serving_config import ModelConfig
from tests.serving.fronts.memory_engine import MemoryEngine


def typed(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(words), catch_exceptions=False)


@pytest.fixture
def registry(tmp_path):
    model = ModelConfig("severity", str(tmp_path / "severity"), (1,), {"live": 1})
    (tmp_path / "models.config").write_text(serving_config.render([model]))
    return tmp_path


@pytest.fixture
def engine(monkeypatch):
    """What the command serves with, instead of the real engine."""
    import serving.engine

    made = MemoryEngine()
    monkeypatch.setattr(serving.engine, "ServingEngine", lambda settings: made)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield made
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


FREE = ("--rest-port", "0", "--grpc-port", "0", "--dry-run")


def test_dry_run_says_what_would_answer(registry, engine):
    result = typed("--registry", str(registry), *FREE)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("REST  http://127.0.0.1:")
    assert lines[1].startswith("gRPC  127.0.0.1:")
    assert "severity: version 1 is live, version 2 is its canary with 10 %" in lines
    assert any("curl" in line and "/v1/models/severity:predict" in line for line in lines)
    assert "Research use only, not for diagnosis." in lines
    assert not engine.up


def test_dry_run_fails_where_nothing_answers(registry, engine, monkeypatch):
    monkeypatch.setattr(MemoryEngine, "ready", property(lambda self: False))
    with pytest.raises(ServeError, match="does not answer"):
        typed("--registry", str(registry), *FREE)
    assert not engine.up


def test_a_workspace_has_a_registry(registry, engine, tmp_path):
    workspace = tmp_path / "workspace"
    (workspace / "registry").mkdir(parents=True)
    (registry / "models.config").rename(workspace / "registry" / "models.config")
    assert typed("--workspace", str(workspace), *FREE).exit_code == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No version is live: .*models.config does not exist"),
        ("model_config_list {}", "No version is live in"),
        ("nonsense", "models.config cannot be read"),
    ],
)
def test_nothing_to_serve(tmp_path, content, words):
    from schema.errors import CortexflowError

    if content is not None:
        (tmp_path / "models.config").write_text(content)
    with pytest.raises(CortexflowError, match=words):
        typed("--registry", str(tmp_path))


def test_no_registry(tmp_path):
    with pytest.raises(ServeError, match="There is no registry in .*nowhere"):
        typed("--registry", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("limits.max_instance=3", "limits.max_instance: Extra inputs"),
        ("limits.max_instances=0", "greater than 0"),
        ("limits", "form key=value"),
        ("host.name=x", "There is no setting host.name"),
    ],
)
def test_settings_that_are_none(registry, setting, words):
    with pytest.raises(ServeError, match=words):
        typed("--registry", str(registry), "--set", setting)


def test_a_setting_reaches_the_server(registry, monkeypatch):
    import serving.server

    seen = []
    monkeypatch.setattr(
        serving.server, "run", lambda settings, announce: seen.append(settings) or 0
    )
    chosen = ("--set", "limits.max_instances=3", "--no-input-gate", "--runtime", "litert-float")
    assert typed("--registry", str(registry), *chosen).exit_code == 0
    (settings,) = seen
    assert (settings.limits.max_instances, settings.input_gate) == (3, False)
    assert (settings.runtime, settings.rest_port) == ("litert-float", 8501)


def test_a_taken_port_is_the_last_line(registry):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        command = ["serve", "--registry", str(registry), "--rest-port", port, "--grpc-port", "0"]
        finished = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "cli.main", *command],
            capture_output=True,
            text=True,
            check=False,
        )
    assert finished.returncode == 1
    *before, last = finished.stderr.splitlines()
    assert last.startswith(f"Error: Cannot listen on 127.0.0.1:{port}")
    assert "--rest-port" in last
    loaded = {line.split("|")[2].strip() for line in before if line.startswith("import time:")}
    assert "serving.engine" in loaded
    assert not {"tensorflow", "keras", "tfx", "scipy", "pandas", "matplotlib"} & loaded
    told = [line for line in before if line.startswith("{")]
    assert all(json.loads(line)["logger"] for line in told)
