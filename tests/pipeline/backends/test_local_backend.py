"""Runs of this machine behind the calls of a cluster."""

import datetime
import os
import signal
import subprocess
import sys

import pytest

from pipeline import runs
from pipeline.backends.interface import BackendError
from pipeline.backends.local import CONSOLE, LocalBackend
from pipeline.backends.opening import named_run
from pipeline.runs import NodeState, RunFolder, RunRecord
from pipeline.workspace import Workspace
from tests.pipeline.backends import tiny


@pytest.fixture
def workspace(tmp_path):
    return Workspace.at(tmp_path / "workspace")


@pytest.fixture
def backend(workspace):
    return LocalBackend(workspace)


def recorded(workspace, run_id, **fields):
    """A run's folder, as `cortexflow run` leaves it."""
    folder = RunFolder(workspace.runs / run_id)
    folder.path.mkdir(parents=True)
    said = {"preset": "quickstart", "pipeline": "quickstart", "status": "passed", "pid": 1}
    said["started"] = datetime.datetime(2026, 1, 1, len(run_id), tzinfo=datetime.UTC)
    folder.write(RunRecord(id=run_id, **(said | fields)))
    return folder


def test_runs_are_told_in_the_words_of_a_cluster(workspace, backend):
    nodes = (NodeState(node="Teacher", state="failed", seconds=3.0),)
    recorded(workspace, "a", status="failed", reason="no space", nodes=nodes, seconds=4.0)
    recorded(workspace, "bb", status="interrupted", reason="stopped by the user")
    recorded(workspace, "ccc", status="insufficient evidence", reason="12 people")
    assert [(run.id, run.status) for run in backend.runs()] == [
        ("ccc", "insufficient evidence"),
        ("bb", "stopped"),
        ("a", "failed"),
    ]
    assert [run.id for run in backend.runs(limit=1)] == ["ccc"]
    run = backend.get("a")
    assert (run.seconds, run.tasks[0].error, tiny.states(run)) == (
        4.0,
        "no space",
        {"Teacher": "failed"},
    )
    assert named_run(backend, "latest") == "ccc"


def test_logs_end_with_the_run(workspace, backend):
    folder = recorded(workspace, "a")
    with pytest.raises(BackendError, match="There is no log"):
        list(backend.logs("a"))
    folder.log.write_text("one\ntwo")
    assert list(backend.logs("a")) == ["one", "two"]
    with pytest.raises(BackendError, match="one log for all nodes"):
        list(backend.logs("a", "Teacher"))
    recorded(workspace, "bb", status="running", pid=os.getpid())
    log = RunFolder(workspace.runs / "bb").log
    log.write_text("begun\nhalf a l")
    lines = backend.logs("bb", follow=True)
    assert next(lines) == "begun"
    with log.open("a") as file:
        file.write("ine\n")
    folder = RunFolder(workspace.runs / "bb")
    folder.write(folder.read().model_copy(update={"status": "passed"}))
    assert list(lines) == ["half a line"]


def test_a_run_is_stopped_by_a_signal_that_it_heeds(workspace, backend):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        recorded(workspace, "a", status="running", pid=process.pid)
        backend.stop("a")
        assert process.wait(timeout=20) == -signal.SIGTERM
    with pytest.raises(BackendError, match="has ended already: interrupted"):
        backend.stop("a")


def test_a_run_is_started_in_the_background(workspace, backend, tmp_path):
    started = backend.start(["quickstart", "--data", str(tmp_path / "nothing")])
    assert started.id.startswith("quickstart-")
    run = tiny.ended(backend, started.id)
    assert run.status == "failed"
    assert "nothing" in run.reason
    console = workspace.runs / run.id / CONSOLE
    tiny.until(lambda: "Error: " in console.read_text(), bool, "last words")
    assert not list(workspace.runs.glob(".submitted-*"))
    assert [record.id for record in runs.listed(workspace)] == [run.id]


def test_what_cannot_be_started_is_told_in_its_own_words(workspace, backend):
    with pytest.raises(BackendError, match="No setting 'teacher.epoch'. Did you mean"):
        backend.start(["quickstart", "--set", "teacher.epoch=3"])
    assert list(workspace.runs.iterdir()) == []
