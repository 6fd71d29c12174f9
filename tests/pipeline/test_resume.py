"""kill -9 in a stage, then --resume: finishes, repeats no finished node, keeps its checkpoints."""

import collections
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from pipeline import lineage
from tests.pipeline.conftest import ROOT, TINY, assignments, command

FLOOR = "gate.macro_auc_floor=0.5"


def newest_record(workspace: Path) -> dict:
    files = sorted(workspace.glob("runs/*/run.json"))
    return json.loads(files[-1].read_text()) if files else {"nodes": []}


def kill_in(node: str, arguments: list[str], workspace: Path, ready) -> None:
    """Starts the command and kills it once `node` is running and `ready()` holds."""
    process = subprocess.Popen(
        command(*arguments, workspace=workspace),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ),
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        states = {item["node"]: item["state"] for item in newest_record(workspace)["nodes"]}
        if states.get(node) == "running" and ready():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"{node} was never seen running (exit code {process.returncode}, {states})")


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
    start = ["run", "quickstart", *assignments(*TINY, FLOOR, "pretrain.epochs=40")]
    kill_in(
        "Pretrainer", start, tmp_path, lambda: any(tmp_path.glob("checkpoints/pretrain-*/epoch-*"))
    )
    [interrupted] = cortexflow("runs", workspace=tmp_path).stdout.strip().splitlines()[1:]
    assert "interrupted" in interrupted
    result = cortexflow("run", "quickstart", "--resume", workspace=tmp_path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    record = newest_record(tmp_path)
    assert record["attempts"] == 2
    log = (tmp_path / "runs" / record["id"] / "log.txt").read_text()
    assert "continues after epoch" in log
    [history] = [
        json.loads(path.read_text())
        for path in tmp_path.glob("pipelines/quickstart/Pretrainer/model/*/bundle/history.json")
    ]
    assert [epoch["epoch"] for epoch in history] == list(range(1, 41))


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
