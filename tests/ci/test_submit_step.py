"""The step that submits, with the real command, on an emulated Kubeflow Pipelines."""

import json
import shutil
import urllib.request

import pytest

from tests.ci.steps import ROOT, Runner, github_steps
from tests.emulators import one_node, processes

STEP = "workflows/run.yml: run: Submit, and let the outcome decide"


@pytest.fixture(scope="module")
def kubeflow():
    with processes.kubeflow() as control:
        yield control


@pytest.mark.parametrize(
    ("node", "command", "code", "word"),
    [
        ("StopOnRefusal", "false", 2, "refused"),
        ("RegistryPusher", "true", 0, "passed"),
        ("StopOnInsufficientEvidence", "false", 3, "insufficient evidence"),
        ("Teacher", "false", 1, "failed"),
    ],
)
def test_the_job_is_as_red_as_the_run(kubeflow, tmp_path, node, command, code, word):
    real = shutil.which("cortexflow", path=str(ROOT / ".venv/bin"))
    assert real is not None, "make setup installs the command"
    kubeflow(reset=True)
    runner = Runner(tmp_path)
    placed = runner.work / ".venv/bin/cortexflow"
    placed.unlink()
    placed.symlink_to(real)
    spec = runner.work / "build/compiled.yaml"
    spec.write_text(one_node.package(node, command))
    (step,) = (step for step in github_steps() if step.key == STEP)
    values = {
        "inputs.preset || vars.PRESET || 'quickstart'": "quickstart",
        "inputs.target || vars.TARGET || 'vertex'": "kubeflow",
        "inputs.data || vars.DATA": "gs://bucket/datasets/oasis",
        "inputs.parameters": "",
        "inputs.wait": "true",
        "inputs.keep": "true",
        "vars.IMAGE": "",
        "vars.PIPELINE_ROOT": str(tmp_path / "root"),
        "vars.REGISTRY": "gs://bucket/registry",
        "vars.NODE_SERVICE_ACCOUNT": "nodes",
        "steps.backend.outputs.uri": f"kubeflow+http://{kubeflow.address}/team",
        "steps.token.outputs.file": "",
    }
    process = runner.run(step, values)
    assert process.returncode == code, process.stdout + process.stderr
    assert f"quickstart on kubeflow: {word} (exit code {code})" in runner.summary
    assert f"Run: <http://{kubeflow.address}/" in runner.summary
    address = f"http://{kubeflow.address}/apis/v2beta1/runs?namespace=team"
    with urllib.request.urlopen(address, timeout=10) as answer:
        (run,) = json.load(answer)["runs"]
    assert run["service_account"] == "nodes"
    assert run["pipeline_version_reference"]["pipeline_version_id"]
    assert run["runtime_config"]["parameters"]["dataset"] == "gs://bucket/datasets/oasis"
