"""The main job end to end: every node, the outcome, the record; then again from the cache."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from cli.main import app
from registry.local import LocalRegistry
from tests.pipeline.conftest import LENIENT, TINY, assignments

# With the control: a run of these settings has every node that there is. It wants eight slices of
# each person, of which the nearest neighbour is another one; with four it tells nobody again.
SETTINGS = assignments(
    *TINY,
    *LENIENT,
    "data.phantom.slices=8",
    "teacher.epochs=8",
    "student.epochs=10",
    "control.shuffle=true",
    "control.max_epochs=2",
)

NODES = [
    "Phantom",
    "Ingest",
    "ImageExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "CuratedSchema",
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
    "ServingCheck",
    "Evaluator",
    "Predictor",
    "ModelGate",
    "StopOnRefusal",
    "StopOnInsufficientEvidence",
    "RegistryPusher",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def first(cortexflow, workspace):
    return passed(cortexflow("run", "quickstart", *SETTINGS, workspace=workspace))


def passed(result):
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def here(*words: str, workspace) -> str:
    """What a command that starts no run prints; no process of its own."""
    runner = CliRunner(env={"COLUMNS": "160"})
    answer = runner.invoke(app, [*words, "--workspace", str(workspace)], prog_name="cortexflow")
    assert answer.exit_code == 0, answer.output
    return answer.stdout


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


def test_the_control_was_judged(first, workspace):
    [path] = workspace.glob("pipelines/quickstart/ShuffleControl/decision/*/decision.json")
    told = json.loads(path.read_text())
    assert told["outcome"] == "passed"
    assert told["details"]["epochs"] == {"teacher": 2, "student": 2}
    [path] = workspace.glob("pipelines/quickstart/ModelGate/decision/*/decision.json")
    checks = {check["name"] for check in json.loads(path.read_text())["checks"]}
    assert "label-shuffle control" in checks


def test_predict_show_and_list(first, workspace):
    image = next(workspace.glob("phantoms/*/images/*/*"))
    fields = json.loads(here("predict", str(image), "--json", workspace=workspace))
    assert sum(fields["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert fields["version"] == 1
    shown = here("show", workspace=workspace)
    assert "Student" in shown
    assert "macro AUC" in shown
    assert "passed" in here("runs", workspace=workspace)


def test_again_it_trains_nothing_and_does_not_call_live_what_was_rolled_back(
    first, cortexflow, workspace
):
    models = LocalRegistry(workspace / "registry", "phantom")
    other = workspace / "other"
    shutil.copytree(models.path(1), other)
    (other / "litert" / "check.json").write_text("{}")
    push = {"metrics": {}, "lineage": models.show(1).lineage, "reason": "test", "who": "test"}
    models.push(other, **push)
    passed(cortexflow("run", "quickstart", *SETTINGS, workspace=workspace))
    record = records(workspace)[-1]
    states = {node["node"]: node["state"] for node in record["nodes"]}
    trained = {"ImageExampleGen", "StatisticsGen", "LeakageCheck", "DriftGate", "Pretrainer",
               "Teacher", "Student", "ShuffleControl", "ServingCheck"}  # fmt: skip
    assert {states[node] for node in trained} == {"cached"}
    assert record["pushed_version"] == 1, "the same model is the same version"
    assert models.live().number == 1
    # Now all comes from the cache, the push too: the run pushes nothing and must not say it did.
    models.rollback(2, reason="test", who="test")
    result = passed(cortexflow("run", "quickstart", *SETTINGS, workspace=workspace))
    assert (records(workspace)[-1]["pushed_version"], models.live().number) == (1, 2)
    assert "v2, not this one" in result.stdout


def test_refused_model_leaves_the_live_version_alone(first, cortexflow, workspace):
    before = (workspace / "registry" / "models.config").read_text()
    floor = ("--set", "gate.macro_auc_floor=1.0")
    result = cortexflow("run", "quickstart", *SETTINGS, *floor, workspace=workspace)
    assert result.returncode == 2
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("refused")
    assert "below the floor 1.000" in last
    assert (workspace / "registry" / "models.config").read_text() == before
    assert len(list(workspace.glob("runs/*/report.html"))) == len(records(workspace))
