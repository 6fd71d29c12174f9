"""`cortexflow control shuffle` as it is typed, on a run whose artifacts are made by hand."""

import datetime
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from evaluation import control
from evaluation.control import People
from pipeline import controls, runs
from pipeline.config import PipelineConfig
from pipeline.runs import NodeState, RunFolder, RunRecord
from pipeline.workspace import Workspace
from tests.pipeline.finished import recorded

CLASSES = ["mild", "non"]
OUTPUTS = {
    "ImageExampleGen": ("examples", "Examples"),
    "Pretrainer": ("model", "Model"),
    "Teacher": ("model", "Model"),
    "Student": ("model", "Model"),
}
EPOCH = {"seconds": 2.0, "validation_seconds": 0.5}


def shuffle(place: Path, *arguments: str):
    runner = CliRunner(env={"COLUMNS": "160"})
    words = ["control", "shuffle", *arguments, "--workspace", str(place)]
    return runner.invoke(app, words, prog_name="cortexflow")


def told(*, leaks: bool) -> dict[str, dict[str, People]]:
    """What student, teacher and neighbour would say of 40 people."""
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, 40)
    knowing = People(np.eye(2)[labels], labels)
    ignorant = People(random.dirichlet(np.ones(2), 40), labels)
    test = knowing if leaks else ignorant
    return {name: {"test": test, "train": knowing} for name in control.JUDGED}


@pytest.fixture
def place(tmp_path) -> Path:
    """A workspace with one run, as far as a control looks at it."""
    workspace, config = Workspace.at(tmp_path), PipelineConfig(name="quickstart")
    database = workspace.metadata(config.name)
    database.parent.mkdir(parents=True)
    nodes = []
    for node, (key, kind) in OUTPUTS.items():
        (tmp_path / node).mkdir()
        execution = recorded(database, {key: (tmp_path / node, kind)})
        nodes.append(NodeState(node=node, state="ran", execution_id=execution))
    for split in ("train", "val", "test"):
        folder = tmp_path / "ImageExampleGen" / f"Split-{split}"
        folder.mkdir()
        (folder / "data.gz").write_bytes(b"")
    for stage in ("Teacher", "Student"):
        bundle = tmp_path / stage / "bundle"
        bundle.mkdir()
        (bundle / "model.json").write_text(json.dumps({"classes": CLASSES}))
        history = [{**EPOCH, "seconds": 5.0, "first_step_seconds": 3.0}, EPOCH, EPOCH]
        (bundle / "history.json").write_text(json.dumps(history))
    folder = RunFolder(workspace.runs / "quickstart-1")
    folder.path.mkdir(parents=True)
    folder.write_config(config)
    folder.write(
        RunRecord(
            id="quickstart-1", preset="quickstart", pipeline="quickstart", status="passed",
            started=datetime.datetime.now(datetime.UTC), pid=os.getpid(),
            nodes=tuple(nodes),
        )
    )  # fmt: skip
    return tmp_path


def test_a_dry_run_says_what_would_be_trained_and_how_long(place):
    answer = shuffle(place, "--dry-run", "--seed", "4")
    assert answer.exit_code == 0, answer.output
    assert "quickstart-1" in answer.stdout
    assert "seed 4" in answer.stdout
    assert "teacher     10 epochs from the run's encoder" in answer.stdout
    # Twice 3 s of compiling and 10 epochs of 2.5 s.
    assert "about 56 s" in answer.stdout
    assert not (place / "runs" / "quickstart-1" / "controls").exists()


@pytest.mark.parametrize(("leaks", "code", "word"), [(False, 0, "passed"), (True, 2, "refused")])
def test_the_verdict_is_the_exit_code_and_is_kept(place, monkeypatch, leaks, code, word):
    def rerun(found, progress):
        progress("finetune", 1, found.settings.max_epochs, {"loss": 1.0})
        return control.decide(told(leaks=leaks), found.settings, details={"seconds": 3.0})

    monkeypatch.setattr(controls, "rerun", rerun)
    answer = shuffle(place, "quickstart-1", "--epochs", "3")
    assert answer.exit_code == code, answer.output
    assert answer.stdout.strip().splitlines()[-1].startswith(word)
    assert "nearest neighbour" in answer.stdout
    folder = place / "runs" / "quickstart-1" / "controls"
    assert sorted(path.name for path in folder.iterdir()) == [
        "shuffle-seed0-epochs3.json", "shuffle-seed0-epochs3.png",
    ]  # fmt: skip
    kept = json.loads((folder / "shuffle-seed0-epochs3.json").read_text())
    assert kept["outcome"] == word
    assert f"{kept['details']['auc']:.3f}" in answer.stdout
    with Image.open(folder / "shuffle-seed0-epochs3.png") as picture:
        assert picture.size[0] > picture.size[1] > 300


def test_too_few_people_leave_no_picture_of_an_earlier_answer(place, monkeypatch):
    [check] = [control.untellable(dict.fromkeys(("train", "val", "test"), np.arange(9) % 2),
                                  PipelineConfig(name="x").control)]  # fmt: skip
    monkeypatch.setattr(controls, "rerun", lambda *_: control.concluded([check]))
    folder = place / "runs" / "quickstart-1" / "controls"
    folder.mkdir()
    (folder / "shuffle-seed0-epochs10.png").write_bytes(b"old")
    answer = shuffle(place)
    assert answer.exit_code == 3, answer.output
    assert "9 test people are too few" in answer.stdout
    assert [path.name for path in folder.iterdir()] == ["shuffle-seed0-epochs10.json"]


@pytest.mark.parametrize("gone", ["ImageExampleGen", "Pretrainer", "Student"])
def test_artifacts_that_were_removed_are_named(place, gone):
    shutil.rmtree(place / gone)
    answer = shuffle(place)
    assert answer.exit_code == 1
    assert f"What {gone} of quickstart-1 wrote is gone" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_split_without_files_is_named(place):
    (place / "ImageExampleGen" / "Split-val" / "data.gz").unlink()
    answer = shuffle(place)
    assert answer.exit_code == 1
    assert "no files of the split 'val'" in answer.stderr


def test_a_run_that_never_trained_is_told_apart(place):
    folder = runs.find(Workspace.at(place), "latest")
    record = folder.read()
    folder.write(record.model_copy(update={"nodes": record.nodes[:1]}))
    answer = shuffle(place)
    assert answer.exit_code == 1
    assert "quickstart-1 has no output of its node Pretrainer" in answer.stderr


def test_an_unknown_run_is_told(place):
    answer = shuffle(place, "absent")
    assert answer.exit_code == 1
    assert "No run 'absent'" in answer.stderr


def test_help_has_an_example():
    answer = CliRunner().invoke(app, ["control", "shuffle", "--help"], prog_name="cortexflow")
    assert "cortexflow control shuffle" in answer.stdout
