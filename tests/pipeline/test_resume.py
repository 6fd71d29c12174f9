"""kill -9 or SIGTERM in a stage, then --resume: finishes, repeats no node, keeps its states."""

import collections
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from evaluation.outcome import Outcome
from pipeline import lineage
from tests.pipeline.conftest import ROOT, TINY, assignments, command

FLOOR = "gate.macro_auc_floor=0.5"

# A run whose model need not be any good: few people, and epochs enough to be killed between them.
BRIEF = (
    *TINY,
    "data.phantom.subjects=[10,10,10,10]",
    "data.test_fraction=0.3",
    "pretrain.epochs=20",
    "pretrain.probe_every_epochs=null",
    "teacher.epochs=1",
    "student.epochs=1",
)


def newest_record(workspace: Path) -> dict:
    files = sorted(workspace.glob("runs/*/run.json"))
    return json.loads(files[-1].read_text()) if files else {"nodes": []}


def strike_in(
    node: str, arguments: list[str], workspace: Path, ready, number: signal.Signals
) -> tuple[int, str]:
    """Starts the command and signals it once `node` is running and `ready()` holds.

    Returns:
        Its exit code and what it printed.
    """
    with (workspace / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command(*arguments, workspace=workspace),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(os.environ),
            start_new_session=True,
        )
    states: dict[str, str] = {}
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        states = {item["node"]: item["state"] for item in newest_record(workspace)["nodes"]}
        if states.get(node) == "running" and ready():
            os.killpg(process.pid, number)
            return process.wait(timeout=300), (workspace / "output.txt").read_text()
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"{node} was never seen running (exit code {process.returncode}, {states})")


def kill_in(node: str, arguments: list[str], workspace: Path, ready) -> None:
    """Starts the command and kills it once `node` is running and `ready()` holds."""
    strike_in(node, arguments, workspace, ready, signal.SIGKILL)


def completed_executions(workspace: Path) -> collections.Counter:
    """How often each node ended by its own work, cached answers not counted."""
    found: collections.Counter = collections.Counter()
    with lineage.opened(workspace / "metadata" / "quickstart.db") as store:
        for execution in store.get_executions():
            if execution.last_known_state == metadata_store_pb2.Execution.COMPLETE:
                contexts = store.get_contexts_by_execution(execution.id)
                [node] = [context.name for context in contexts if context.type == "node"]
                found[node] += 1
    return found


def test_training_goes_on_from_its_checkpoint(tmp_path, cortexflow):
    start = ["run", "quickstart", *assignments(*BRIEF)]
    kill_in(
        "Pretrainer", start, tmp_path, lambda: any(tmp_path.glob("checkpoints/pretrain-*/epoch-*"))
    )
    [interrupted] = cortexflow("runs", workspace=tmp_path).stdout.strip().splitlines()[1:]
    assert "interrupted" in interrupted
    result = cortexflow("run", "quickstart", "--resume", workspace=tmp_path)
    record = newest_record(tmp_path)
    # To the end, whatever the gate then says of 12 test people.
    assert record["status"] in list(Outcome), result.stdout[-3000:] + result.stderr[-3000:]
    assert result.returncode == Outcome(record["status"]).exit_code
    assert {node["node"]: node["state"] for node in record["nodes"]}["ModelGate"] == "ran"
    assert record["attempts"] == 2
    log = (tmp_path / "runs" / record["id"] / "log.txt").read_text()
    assert "pretrain continues after" in log
    [history] = [
        json.loads(path.read_text())
        for path in tmp_path.glob("pipelines/quickstart/Pretrainer/model/*/bundle/history.json")
    ]
    assert [epoch["epoch"] for epoch in history] == list(range(1, 21))


@pytest.mark.slow
def test_sigterm_in_a_training_keeps_its_step_and_the_run_is_resumed(tmp_path, cortexflow):
    start = ["run", "quickstart", *assignments(*TINY, FLOOR, "pretrain.epochs=40")]
    code, output = strike_in(
        "Pretrainer",
        start,
        tmp_path,
        lambda: any(tmp_path.glob("checkpoints/pretrain-*/epoch-*")),
        signal.SIGTERM,
    )
    assert code == 143, output
    last = output.strip().splitlines()[-1]
    assert last.startswith("Error: pretrain was stopped (SIGTERM) after ")
    assert last.endswith("`cortexflow run quickstart --resume` takes the run up again.")
    record = newest_record(tmp_path)
    assert record["status"] == "interrupted"
    assert {"node": "Pretrainer", "state": "failed"}.items() <= record["nodes"][-1].items()
    place = re.search("after (step .* of epoch|epoch) [0-9]+", last)[0]

    result = cortexflow("run", "quickstart", "--resume", workspace=tmp_path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    log = (tmp_path / "runs" / record["id"] / "log.txt").read_text()
    assert f"pretrain continues {place}" in log
    [table] = tmp_path.glob("pipelines/quickstart/Pretrainer/model_run/*/steps.csv")
    steps = [int(line.split(",")[0]) for line in table.read_text().splitlines()[1:]]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_sigterm_outside_of_a_training_leaves_a_record(tmp_path, cortexflow):
    start = ["run", "quickstart", *assignments(*TINY, FLOOR)]
    code, output = strike_in("StatisticsGen", start, tmp_path, lambda: True, signal.SIGTERM)
    assert code == 143, output
    record = newest_record(tmp_path)
    assert (record["status"], record["nodes"][-1]["state"]) == ("interrupted", "failed")
    assert "SIGTERM" in record["reason"]


@pytest.mark.slow
def test_kill_in_every_stage(tmp_path, cortexflow):
    stages = (
        "Phantom", "Ingest", "ImageExampleGen", "StatisticsGen", "Pretrainer", "Teacher",
        "Student", "Evaluator", "Predictor", "RegistryPusher",
    )  # fmt: skip
    arguments = ["run", "quickstart", *assignments(*TINY, FLOOR)]
    for stage in stages:
        kill_in(stage, arguments, tmp_path, lambda: True)
        arguments = ["run", "quickstart", "--resume"]
    result = cortexflow(*arguments, workspace=tmp_path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    repeated = {node: n for node, n in completed_executions(tmp_path).items() if n > 1}
    assert repeated == {}
    assert newest_record(tmp_path)["attempts"] == len(stages) + 1
