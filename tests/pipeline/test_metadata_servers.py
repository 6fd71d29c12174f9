"""Whole runs whose ML Metadata lie in a database server, which may be shared, and may die."""

import concurrent.futures
import json
import os
import subprocess

import pytest

from pipeline import lineage, metadata, runs
from pipeline.workspace import Workspace
from tests.pipeline import servers
from tests.pipeline.conftest import LENIENT, ROOT, TINY, assignments, command

pytestmark = pytest.mark.slow

KILLED_AFTER = "LeakageCheck"  # when the server dies
SECONDS = 900


@pytest.fixture(params=[servers.MariaDB, servers.PostgreSQL], ids=lambda kind: kind.__name__)
def server(request):
    """A server with two empty databases."""
    if missing := request.param.missing():
        pytest.skip(missing)
    with servers.running(request.param, "one", "two") as running:
        yield running


def environment(server) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "160", metadata.PASSWORD: server.password}


def started(server, workspace, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        command("run", "quickstart", *words, workspace=workspace), cwd=ROOT, text=True,
        env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def settings(server) -> list[str]:
    return assignments(*TINY, *LENIENT, f"metadata={server.address('one')}")


def nodes_put_out(server, workspace, monkeypatch) -> set[str]:
    """Nodes of the latest run of which the server knows artifacts."""
    monkeypatch.setenv(metadata.PASSWORD, server.password)
    record = runs.find(Workspace.at(workspace), "latest").read()
    found = lineage.outputs_of_nodes(metadata.parsed(server.address("one")), record.nodes)
    return {node for node, artifacts in found.items() if artifacts}


def holds(folder, secret: str) -> list[str]:
    """Files of a workspace in which a secret stands."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


def test_two_runs_of_one_name_share_a_server(server, tmp_path, monkeypatch):
    places = [tmp_path / "first", tmp_path / "second"]
    both = [started(server, place, *settings(server)) for place in places]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        told = [run.result() for run in [pool.submit(it.communicate, None, SECONDS) for it in both]]
    for process, (output, _), place in zip(both, told, places, strict=True):
        assert process.returncode == 0, output[-3000:]
        assert output.rstrip().endswith("passed")
        [record] = runs.listed(Workspace.at(place))
        assert record.pushed_version == record.live_version == 1
        # The curated schema is the same file for both; all else is of a workspace's own data.
        states = {node.node: node.state for node in record.nodes if node.node != "CuratedSchema"}
        assert set(states.values()) == {"ran"}, states
        assert not (place / "metadata" / "quickstart.db").exists()
        assert {"Student", "ModelGate"} <= nodes_put_out(server, place, monkeypatch)
        report = (place / "runs" / record.id / "evidence" / "evidence.json").read_text()
        assert json.loads(report)["decision"]["outcome"] == "passed"
        assert holds(place, server.password) == []
        shown = subprocess.run(
            command("show", workspace=place), cwd=ROOT, env=environment(server),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "Student/model/" in shown.stdout


def test_a_server_that_dies_in_the_middle_costs_one_node(server, tmp_path):
    process = started(server, tmp_path, *settings(server))
    lines = []
    for line in process.stdout:
        lines.append(line)
        if KILLED_AFTER in line:
            server.kill()
            break
    rest, _ = process.communicate(timeout=SECONDS)
    output = "".join(lines) + rest
    assert process.returncode == 1, output[-3000:]
    error = output.rstrip().splitlines()[-1]
    assert f"ML Metadata at {server.address('one')} cannot be used" in error
    assert "Traceback" not in output
    [record] = runs.listed(Workspace.at(tmp_path))
    assert record.status == "failed"
    assert "cannot be used" in record.reason

    down = started(server, tmp_path, "--resume")
    told, _ = down.communicate(timeout=SECONDS)
    assert down.returncode == 1
    assert "cannot be used" in told.rstrip().splitlines()[-1]

    server.start()
    again = started(server, tmp_path, "--resume")
    told, _ = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, told[-3000:]
    [record] = runs.listed(Workspace.at(tmp_path))
    states = {node.node: node.state for node in record.nodes}
    assert record.attempts == 3
    assert states[KILLED_AFTER] == states["ImageExampleGen"] == "cached"
    assert states["Student"] == "ran"
    assert holds(tmp_path, server.password) == []


def test_a_wrong_password_is_told_before_anything_is_made(server, tmp_path):
    words = command("run", "quickstart", *settings(server), workspace=tmp_path)
    ended = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False,
        env={**environment(server), metadata.PASSWORD: "another"},  # pragma: allowlist secret
    )  # fmt: skip
    assert ended.returncode == 1
    assert f"{metadata.PASSWORD} is this user's password" in ended.stderr
    assert "another" not in ended.stdout + ended.stderr
    assert not (tmp_path / "phantoms").exists()
