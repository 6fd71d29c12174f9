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
from typer.testing import CliRunner

from cli.main import app
from evaluation.outcome import Outcome
from pipeline import lineage
from registry.local import LocalRegistry
from tests.pipeline.conftest import LENIENT, ROOT, TINY, assignments, command

# A run whose model need not be any good: few people, and epochs enough to be killed between them.
# Three test people of each class: a class needs five to be counted, and all of them twenty.
BRIEF = (
    *TINY,
    "data.phantom.subjects=[10,10,10,10]",
    "data.test_fraction=0.3",
    "pretrain.epochs=20",
    "pretrain.probe_every_epochs=null",
    "teacher.epochs=10",
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


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, cortexflow):
    """A workspace whose run was killed in its Pretrainer and taken up again, and what it said."""
    place = tmp_path_factory.mktemp("resumed")
    start = ["run", "quickstart", *assignments(*BRIEF)]
    kill_in("Pretrainer", start, place, lambda: any(place.glob("checkpoints/pretrain-*/epoch-*")))
    [interrupted] = cortexflow("runs", workspace=place).stdout.strip().splitlines()[1:]
    assert "interrupted" in interrupted
    return place, cortexflow("run", "quickstart", "--resume", workspace=place)


def test_training_goes_on_from_its_checkpoint(resumed):
    place, result = resumed
    record = newest_record(place)
    # To the end, whatever the gate then says.
    assert record["status"] in list(Outcome), result.stdout[-3000:] + result.stderr[-3000:]
    assert {node["node"]: node["state"] for node in record["nodes"]}["ModelGate"] == "ran"
    assert record["attempts"] == 2
    log = (place / "runs" / record["id"] / "log.txt").read_text()
    assert "pretrain continues after" in log
    [history] = [
        json.loads(path.read_text())
        for path in place.glob("pipelines/quickstart/Pretrainer/model/*/bundle/history.json")
    ]
    assert [epoch["epoch"] for epoch in history] == list(range(1, 21))


def test_twelve_test_people_are_insufficient_evidence_and_a_word_lifts_that(resumed):
    place, result = resumed
    told = result.stdout[-3000:] + result.stderr[-3000:]
    assert result.returncode == Outcome.INSUFFICIENT.exit_code, told
    assert result.stdout.strip().splitlines()[-1].startswith(Outcome.INSUFFICIENT.value)
    [path] = place.glob("pipelines/quickstart/ModelGate/decision/*/decision.json")
    decision = json.loads(path.read_text())
    assert decision["outcome"] == Outcome.INSUFFICIENT
    assert sum(decision["details"]["people"].values()) == 12
    assert not (place / "registry" / "models.config").exists()
    # What the nodes wrote is what an override reads; its other cases are in test_overrides.py.
    words = ["override", "latest", "--who", "R. Roe", "--reason", "test", "--workspace", str(place)]
    answer = CliRunner().invoke(app, words, prog_name="cortexflow")
    assert answer.exit_code == 0, answer.output
    live = LocalRegistry(place / "registry", "phantom").live()
    assert (live.number, live.lineage["override"]["who"]) == (1, "R. Roe")
    assert newest_record(place)["override"]["reason"] == "test"


@pytest.mark.slow
def test_sigterm_in_a_training_keeps_its_step_and_the_run_is_resumed(tmp_path, cortexflow):
    start = ["run", "quickstart", *assignments(*TINY, *LENIENT, "pretrain.epochs=40")]
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
    start = ["run", "quickstart", *assignments(*TINY, *LENIENT)]
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
    arguments = ["run", "quickstart", *assignments(*TINY, *LENIENT)]
    for stage in stages:
        kill_in(stage, arguments, tmp_path, lambda: True)
        arguments = ["run", "quickstart", "--resume"]
    result = cortexflow(*arguments, workspace=tmp_path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    repeated = {node: n for node, n in completed_executions(tmp_path).items() if n > 1}
    assert repeated == {}
    assert newest_record(tmp_path)["attempts"] == len(stages) + 1
