"""The nodes that show a run, executed from a compiled spec as Kubeflow's launcher would."""

import json
from pathlib import Path

import pytest

from components.run_view_outputs import INPUTS, OF_DATA
from pipeline.config import PipelineConfig
from pipeline.facts import Facts
from pipeline.view import add_data_view, add_view
from tests.emulators.spec_runner import run_spec


def imported(artifacts) -> dict:
    """A spec in which importers bring artifacts in the place of the nodes that make them."""
    spec = {
        "pipelineInfo": {"name": "seen"},
        "components": {},
        "deploymentSpec": {"executors": {}},
        "root": {
            "dag": {"tasks": {}},
            "inputDefinitions": {"parameters": {"dataset": {"parameterType": "STRING"}}},
        },
    }
    for name, folder in artifacts.items():
        node, key = INPUTS[name]
        spec["components"][node] = {
            "executorLabel": node,
            "outputDefinitions": {
                "artifacts": {key: {"artifactType": {"schemaTitle": "system.Artifact"}}}
            },
        }
        importer = {"artifactUri": {"constant": str(folder)}}
        spec["deploymentSpec"]["executors"][node] = {"importer": importer}
        spec["root"]["dag"]["tasks"][node] = {
            "componentRef": {"name": node},
            "taskInfo": {"name": node},
        }
    return spec


@pytest.mark.slow  # two containers, each a process that loads TensorFlow
def test_both_views_run_from_the_spec(refused_artifacts, tmp_path):
    spec = imported(refused_artifacts)
    config = PipelineConfig(name="seen")
    add_data_view(spec, config, Facts(), "kubeflow")
    add_view(spec, config, Facts(), "kubeflow")
    logs = tmp_path / "logs"
    logs.mkdir()
    found = run_spec(
        spec,
        parameters={"dataset": "phantom-of-old"},
        root=str(tmp_path),
        run_id="run-5",
        logs=str(logs),
    )
    for view in ("DataView", "RunView"):
        assert found[view].state == "ran", (logs / f"{view}.txt").read_text()[-2000:]
    shown = found["RunView"].outputs
    assert shown["metrics"][0]["metadata"]["outcome"] == "refused"
    assert "confusionMatrix" in shown["confusion_matrix"][0]["metadata"]
    report = Path(shown["report"][0]["uri"]).read_text()
    assert "Run run-5" in report
    assert "data phantom-of-old" in report  # counted from the answers: there is no such folder
    checks = Path(found["DataView"].outputs["data_checks"][0]["uri"]).read_text()
    assert "Nothing is trained on these data" in checks
    assert set(spec["root"]["dag"]["tasks"]["DataView"]["inputs"]["artifacts"]) == set(OF_DATA)
    assert json.dumps(shown, allow_nan=False)
