"""The record of a run says how it ended, also when nobody was left to say so."""

import subprocess
import sys

import pytest

from pipeline import presets, runs
from pipeline.execution import Busy, locked
from pipeline.runs import NodeState, UnknownRun
from pipeline.workspace import Workspace

CONFIG = presets.load("quickstart")


@pytest.fixture
def place(tmp_path) -> Workspace:
    return Workspace.at(tmp_path)


def start(place):
    return runs.create(place, CONFIG, "quickstart", "cortexflow run quickstart")


def test_record_and_settings_survive_their_files(place):
    folder, record = start(place)
    record = record.with_node(NodeState(node="A", state="running"))
    record = record.with_node(NodeState(node="B", state="running"))
    record = record.with_node(NodeState(node="A", state="ran", seconds=1.5))
    folder.write(record)
    assert folder.read() == record
    assert [(node.node, node.state) for node in record.nodes] == [("A", "ran"), ("B", "running")]
    assert folder.read_config() == CONFIG


def test_runs_of_one_second_have_folders_of_their_own(place):
    ids = {start(place)[1].id for _ in range(3)}
    assert len(ids) == 3
    assert {record.id for record in runs.listed(place)} == ids


def test_a_run_whose_process_is_gone_was_interrupted_and_can_be_resumed(place):
    folder, record = start(place)
    assert folder.read().status == "running"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder.write(record.model_copy(update={"pid": gone.pid}))
    assert folder.read().status == "interrupted"
    assert runs.last_unfinished(place, "quickstart").path == folder.path
    reopened = runs.reopen(folder)
    assert reopened.attempts == 2
    assert reopened.nodes == (), "what an earlier attempt saw is not what this one made"
    with pytest.raises(UnknownRun, match="running"):
        runs.last_unfinished(place, "quickstart")


@pytest.mark.parametrize(
    ("status", "code"),
    [("passed", 0), ("refused", 2), ("insufficient evidence", 3), ("failed", 1),
     ("interrupted", 130)],
)  # fmt: skip
def test_exit_codes(place, status, code):
    folder, record = start(place)
    record = record.model_copy(update={"status": status})
    assert record.exit_code == code
    folder.write(record)
    if status in ("passed", "refused", "insufficient evidence"):
        with pytest.raises(UnknownRun, match=f"the last one, {record.id}, {status}"):
            runs.last_unfinished(place, "quickstart")


def test_unknown_runs_are_answered_with_the_known(place):
    with pytest.raises(UnknownRun, match="none yet"):
        runs.find(place, "latest")
    _, record = start(place)
    assert runs.find(place, "latest").path.name == record.id
    with pytest.raises(UnknownRun, match=record.id):
        runs.find(place, "nope")


def test_two_runs_of_one_pipeline_do_not_run_at_once(place):
    with locked(place, "quickstart"):
        with pytest.raises(Busy, match="going on"), locked(place, "quickstart"):
            pass
        with locked(place, "mri"):
            pass
    with locked(place, "quickstart"):
        pass
