"""Bad data and bad models are refused by the whole command, and leave a report that says why."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ingest.datasets import read_dataset
from ingest.phantom import PhantomSpec, generate
from ingest.records import decode_example, encode_example, read_records, write_records
from tests.pipeline.conftest import TINY, assignments

COHORT = PhantomSpec(preset="easy", subjects=(30, 30, 30, 30), slices=4, seed=7)


def last_line(result) -> str:
    return result.stdout.strip().splitlines()[-1]


def report_of(workspace: Path) -> str:
    [report] = workspace.glob("runs/*/report.html")
    return report.read_text()


@pytest.mark.slow  # test_stop_on_bad_data.py says the same of the node
def test_data_outside_its_contract_stop_the_run_before_training(tmp_path, cortexflow):
    source = generate(COHORT, tmp_path / "phantoms") / "images"
    imported = cortexflow(
        "ingest", "images", str(source), str(tmp_path / "data"), "--subject-regex", r"(subj\d+)",
        workspace=None,
    )  # fmt: skip
    assert imported.returncode == 0, imported.stdout + imported.stderr
    for file in read_dataset(tmp_path / "data").files("train"):
        broken = []
        for record in read_records(file):
            features = decode_example(record)
            features["label"] = [9]
            broken.append(encode_example(features))
        file.unlink()
        write_records(file, broken)
    result = cortexflow(
        "run", "mri", "--data", str(tmp_path / "data"), workspace=tmp_path / "workspace"
    )
    assert result.returncode == 2, result.stdout[-3000:] + result.stderr[-3000:]
    assert last_line(result).startswith("refused")
    assert "label" in last_line(result)
    [record] = (tmp_path / "workspace").glob("runs/*/run.json")
    nodes = [node["node"] for node in json.loads(record.read_text())["nodes"]]
    assert nodes[-1] == "StopOnBadData"
    assert "Pretrainer" not in nodes
    assert "label" in report_of(tmp_path / "workspace")


@pytest.mark.slow
def test_shuffled_labels_are_refused(tmp_path, cortexflow):
    """People keep their slices and lose their labels: nothing is left to be learnt."""
    source = generate(COHORT, tmp_path / "phantoms") / "images"
    files = sorted(source.glob("*/*"))
    subjects = sorted({file.name.split("_")[0] for file in files})
    classes = [next(file for file in files if subject in file.name).parent.name
               for subject in subjects]  # fmt: skip
    shuffled = dict(zip(subjects, np.random.default_rng(3).permutation(classes), strict=True))
    for file in files:
        target = tmp_path / "shuffled" / shuffled[file.name.split("_")[0]]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    place = tmp_path / "workspace"
    result = cortexflow(
        "run", "quickstart", "--data", str(tmp_path / "shuffled"),
        "--subject-regex", r"(subj\d+)", *assignments(*TINY), workspace=place,
    )  # fmt: skip
    assert result.returncode == 2, result.stdout[-3000:] + result.stderr[-3000:]
    assert "below the floor 0.700" in last_line(result) or "same class" in last_line(result)
    assert not (place / "registry" / "models.config").exists()
    assert "Refused" in report_of(place)


@pytest.mark.slow
def test_a_model_that_knows_one_class_is_refused(tmp_path, cortexflow):
    """Nothing to learn and one class for most people: the best guess is that class for everyone."""
    one_class = (
        'data.phantom.preset="null"',
        "data.phantom.subjects=[60,6,6,6]",
        "teacher.imbalance=none",
        "teacher.epochs=6",
        "student.epochs=6",
        "student.alpha=1.0",
        "gate.macro_auc_floor=0.0",
    )
    result = cortexflow("run", "quickstart", *assignments(*TINY, *one_class), workspace=tmp_path)
    assert result.returncode == 2, result.stdout[-3000:] + result.stderr[-3000:]
    assert "same class" in last_line(result)
