"""The main job end to end: every node, the outcome, the record; then again from the cache."""

import json
import shutil

import pytest

from registry.local import LocalRegistry
from tests.pipeline.conftest import TINY, assignments

NODES = [
    "Phantom",
    "Ingest",
    "ImageExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "AnomalyGate",
    "LeakageCheck",
    "DriftGate",
    "StopOnBadData",
    "Pretrainer",
    "Teacher",
    "Student",
    "ShuffleControl",
    "LiveModel",
    "Evaluator",
    "Predictor",
    "ModelGate",
    "StopOnRefusal",
    "RegistryPusher",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def first(cortexflow, workspace):
    floor = "gate.macro_auc_floor=0.5"
    result = cortexflow("run", "quickstart", *assignments(*TINY, floor), workspace=workspace)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def records(workspace) -> list[dict]:
    files = sorted(workspace.glob("runs/*/run.json"))
    return [json.loads(path.read_text()) for path in files]


def test_passes_and_says_so_on_the_last_line(first):
    assert first.stdout.strip().splitlines()[-1].startswith("passed")


def test_shows_the_model_beside_the_baselines(first):
    for name in ("student", "teacher", "constant prior", "total CSF", "macro AUC"):
        assert name in first.stdout


def test_every_node_ran(first, workspace):
    record = records(workspace)[0]
    states = {node["node"]: node["state"] for node in record["nodes"]}
    assert set(states) == set(NODES)
    assert set(states.values()) == {"ran"}
    assert record["pushed_version"] == 1


def test_report_and_evidence_are_left(first, workspace):
    [run] = [path.parent for path in workspace.glob("runs/*/run.json")]
    html = (run / "report.html").read_text()
    assert "Research use only" in html
    assert (run / "evidence" / "evidence.json").is_file()


def test_second_run_trains_nothing(first, cortexflow, workspace):
    floor = "gate.macro_auc_floor=0.5"
    result = cortexflow("run", "quickstart", *assignments(*TINY, floor), workspace=workspace)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    record = records(workspace)[-1]
    states = {node["node"]: node["state"] for node in record["nodes"]}
    trained = {"ImageExampleGen", "StatisticsGen", "Pretrainer", "Teacher", "Student"}
    assert {states[node] for node in trained} == {"cached"}
    assert record["pushed_version"] == 1, "the same model is the same version"


def test_predict_show_and_list(first, cortexflow, workspace):
    image = next(workspace.glob("phantoms/*/images/*/*"))
    answer = cortexflow("predict", str(image), "--json", workspace=workspace)
    fields = json.loads(answer.stdout)
    assert sum(fields["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert fields["version"] == 1
    shown = cortexflow("show", workspace=workspace)
    assert "Student" in shown.stdout
    assert "macro AUC" in shown.stdout
    assert "passed" in cortexflow("runs", workspace=workspace).stdout


def test_a_version_that_was_rolled_back_is_not_called_live(first, cortexflow, workspace):
    """The same run answers from the cache and pushes nothing: it must not say that it did."""
    models = LocalRegistry(workspace / "registry", "phantom")
    other = workspace / "other"
    shutil.copytree(models.path(1), other)
    (other / "litert" / "check.json").write_text("{}")
    push = {"metrics": {}, "lineage": models.show(1).lineage, "reason": "test", "who": "test"}
    models.push(other, **push)
    again = ("run", "quickstart", *assignments(*TINY, "gate.macro_auc_floor=0.5"))
    assert cortexflow(*again, workspace=workspace).returncode == 0
    assert models.live().number == 1
    models.rollback(2, reason="test", who="test")
    result = cortexflow(*again, workspace=workspace)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (records(workspace)[-1]["pushed_version"], models.live().number) == (1, 2)
    assert "v2, not this one" in result.stdout
    models.promote(1, reason="test", who="test")


def test_refused_model_leaves_the_live_version_alone(first, cortexflow, workspace):
    before = (workspace / "registry" / "models.config").read_text()
    result = cortexflow(
        "run", "quickstart", *assignments(*TINY, "gate.macro_auc_floor=1.0"), workspace=workspace
    )
    assert result.returncode == 2
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("refused")
    assert "below the floor 1.000" in last
    assert (workspace / "registry" / "models.config").read_text() == before
    assert len(list(workspace.glob("runs/*/report.html"))) == len(records(workspace))
