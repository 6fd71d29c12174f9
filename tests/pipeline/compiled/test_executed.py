"""The compiled pipeline, executed: every node through TFX's container entrypoint."""

import json
import os
from pathlib import Path

import pytest
import yaml

from registry.local import LocalRegistry
from tests.emulators import spec_runner, zygote
from tests.pipeline.conftest import TINY, assignments

pytestmark = pytest.mark.slow
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
FLOAT = 1e-6


@pytest.fixture(scope="module")
def forking():
    with zygote.started(QUIET) as process:
        yield process


def compiled(cortexflow, folder: Path, *settings: str) -> dict:
    path = folder / "compiled.yaml"
    done = cortexflow(
        "compile", "quickstart", *assignments(*settings), "--out", str(path), workspace=None
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return next(yaml.safe_load_all(path.read_text()))


def executed(spec, workspace: Path, folder: Path, forking, **parameters):
    [dataset] = (workspace / "data").iterdir()
    return spec_runner.run_spec(
        spec,
        parameters={"dataset": str(dataset), "registry": str(folder / "registry"), **parameters},
        root=str(folder / "root"),
        run_id="run-1",
        zygote=forking,
        logs=str(folder),
    )


def decided(folder: Path) -> dict:
    return json.loads((folder / "decision.json").read_text())


def numbers(document, path=""):
    """Every number of a document by its place."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in items:
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(document, int | float):
        yield path, document


def test_the_quickstart_ends_as_it_does_here(cortexflow, tmp_path, forking):
    """Same data, same seed: every metric of every model is the local run's, and it is pushed."""
    done = cortexflow("run", "quickstart", workspace=tmp_path / "workspace")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = executed(compiled(cortexflow, tmp_path), tmp_path / "workspace", tmp_path, forking)
    assert {name: it.error for name, it in found.items() if it.state != "ran"} == {}
    [artifact] = found["ModelGate"].outputs["decision"]
    there = decided(Path(artifact["uri"]))
    gates = tmp_path / "workspace" / "pipelines" / "quickstart" / "ModelGate" / "decision"
    [folder] = gates.iterdir()
    here = decided(folder)
    assert there["outcome"] == here["outcome"] == "passed"
    expected = dict(numbers(here["metrics"]))
    assert len(expected) > 300
    assert dict(numbers(there["metrics"])) == pytest.approx(expected, abs=FLOAT, nan_ok=True)
    registry = LocalRegistry(tmp_path / "registry", "phantom")
    assert registry.live().number == 1
    registry.verify(1)
    assert os.listdir(registry.path(1)) == os.listdir(
        LocalRegistry(tmp_path / "workspace" / "registry", "phantom").path(1)
    )
    [metrics] = found["RunView"].outputs["metrics"]
    assert metrics["metadata"]["student_macro_auc"] == pytest.approx(
        here["metrics"]["student"]["subject"]["macro_auc"], abs=FLOAT
    )


def test_a_refusal_skips_the_pusher_and_names_its_reason(cortexflow, tmp_path, forking):
    """Trained for one epoch only, by runtime parameters: the gate says no, the view is there."""
    done = cortexflow(
        "run", "quickstart", *assignments(*TINY, "pretrain=null", "teacher.backbone={}"),
        "--set", "teacher.epochs=1", "--set", "student.epochs=1", "--set",
        "teacher.fine_tune_after_block=-1", workspace=tmp_path / "workspace",
    )  # fmt: skip
    assert done.returncode in (2, 3), done.stdout[-2000:]
    spec = compiled(cortexflow, tmp_path, *TINY, "gate.macro_auc_floor=0.95")
    short = {f"{stage}_epochs": 1 for stage in ("pretrain", "teacher", "student")}
    found = executed(spec, tmp_path / "workspace", tmp_path, forking, **short)
    [artifact] = found["ModelGate"].outputs["decision"]
    outcome = decided(Path(artifact["uri"]))["outcome"]
    stop = {"refused": "StopOnRefusal", "insufficient evidence": "StopOnInsufficientEvidence"}
    failed = {name for name, it in found.items() if it.state == "failed"}
    assert failed == {stop[outcome]}
    assert outcome == "refused"
    assert "Refused: " in found["StopOnRefusal"].error
    assert found["RegistryPusher"].state == "skipped"
    assert found["RunView"].state == "ran"
    assert not (tmp_path / "registry" / "models.config").exists()
    epochs = json.loads(
        (Path(found["Student"].outputs["model"][0]["uri"]) / "bundle" / "history.json").read_text()
    )
    assert len(epochs) == 1, "the runtime parameter decides, not the compiled setting"
