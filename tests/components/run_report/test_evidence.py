"""Evidence says only what can be true, and survives its folder."""

import dataclasses
import json

import numpy as np
import pytest

from components.report import storage
from components.report.evidence import (
    Dataset,
    Evidence,
    EvidenceError,
    Histogram,
    Predictions,
    Run,
    Sample,
)
from evaluation.outcome import Outcome
from tests.components.run_report import gates


def assert_equal(left: Evidence, right: Evidence) -> None:
    bare = {"predictions": None, "samples": ()}
    assert dataclasses.replace(left, **bare) == dataclasses.replace(right, **bare)
    assert left.samples == right.samples
    assert (left.predictions is None) == (right.predictions is None)
    if left.predictions is not None:
        for field in dataclasses.fields(Predictions):
            mine, theirs = (getattr(side.predictions, field.name) for side in (left, right))
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_complete_evidence_survives_its_folder(make_evidence, outcome, tmp_path):
    evidence = make_evidence(outcome=outcome, subjects=(3, 3, 3, 3), slices=2)
    storage.save(evidence, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence.json", "evidence.npz"]
    assert_equal(storage.load(tmp_path), evidence)


def test_the_picture_of_leaks_survives_without_predictions(stopped_at_data, tmp_path):
    found = dataclasses.replace(stopped_at_data, leakage=gates.leakage(2))
    storage.save(found, tmp_path)
    assert storage.load(tmp_path).leakage == found.leakage
    assert b"PNG" not in (tmp_path / storage.FILE).read_bytes()


def test_runs_from_before_checks_could_doubt_are_read(stopped_at_data, tmp_path):
    storage.save(stopped_at_data, tmp_path)
    path = tmp_path / storage.FILE
    document = json.loads(path.read_text())
    for name in ("leakage", "drift", "control", "serving", "input_gate", "override", "lineage"):
        del document[name]
    document["decision"] = {
        "outcome": "refused",
        "reasons": ["too low"],
        "checks": [
            {"name": "by subject", "passed": True, "value": None, "bound": None, "detail": "no"},
            {"name": "floor", "passed": False, "value": 0.6, "bound": 0.7, "detail": "too low"},
        ],
        "metrics": {},
    }
    path.write_text(json.dumps(document))
    found = storage.load(tmp_path)
    assert found.input_gate is None
    first, second = found.decision.checks
    assert (first.outcome, first.detail) == (Outcome.PASSED, "")
    assert (second.outcome, second.detail) == (Outcome.REFUSED, "too low")


def test_partial_evidence_needs_no_arrays(stopped_at_data, tmp_path):
    storage.save(stopped_at_data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.json"]
    assert_equal(storage.load(tmp_path), stopped_at_data)


def test_json_is_strict_and_numpy_is_written_plainly(tmp_path):
    evidence = Evidence(
        Run("r"),
        tfma={"auc": float("nan"), "n": np.int64(3), "loss": np.float32(0.5), "bound": np.inf},
        config={"filters": (32, 64)},
    )
    storage.save(evidence, tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads((tmp_path / storage.FILE).read_text(), parse_constant=refuse)
    assert document["tfma"] == {"auc": None, "n": 3, "loss": 0.5, "bound": None}
    assert document["config"] == {"filters": [32, 64]}


def test_arrays_read_without_pickle(evidence, tmp_path):
    storage.save(evidence, tmp_path)
    with np.load(tmp_path / storage.ARRAYS, allow_pickle=False) as arrays:
        assert arrays["student"].shape == (84 * 8, 4)
        assert arrays["sample_image_00"].tobytes() == evidence.samples[0].image


def test_saving_again_is_byte_equal(evidence, tmp_path):
    for name in ("first", "second"):
        storage.save(evidence, tmp_path / name)
    for file in (storage.FILE, storage.ARRAYS):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not evidence of format"),
        ({"surprise": 1}, "surprise"),
        ({"run": {"identity": "x"}}, "identity"),
        ({"arrays": "evidence.npz"}, "No evidence at"),
    ],
)
def test_loading_refuses_what_evidence_cannot_say(stopped_at_data, tmp_path, change, message):
    storage.save(stopped_at_data, tmp_path)
    path = tmp_path / storage.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EvidenceError, match=message):
        storage.load(tmp_path)


def test_loading_nothing_says_so(tmp_path):
    with pytest.raises(EvidenceError, match="No evidence at"):
        storage.load(tmp_path)


DATASET = Dataset("d", ("a", "b"))
LABELS = np.array([0, 1])
TABLE = np.eye(2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Predictions(LABELS, np.eye(3)), "one row per label"),
        (lambda: Predictions(LABELS.astype(float), TABLE), "labels int"),
        (lambda: Predictions(LABELS, TABLE, teacher=np.ones((2, 3))), "same images and classes"),
        (lambda: Predictions(LABELS, TABLE, subjects=np.array(["a", "b"], object)), "objects"),
        (lambda: Histogram((0.0, 1.0), (1.0, 2.0)), "n \\+ 1 edges"),
        (lambda: Dataset("d", ("a", "b"), severity=("a", "c")), "every class once"),
        (lambda: Evidence(Run("r"), predictions=Predictions(LABELS, TABLE)), "need a dataset"),
        (lambda: Evidence(Run("r"), samples=(Sample(0, b""),)), "there are none"),
        (
            lambda: Evidence(
                Run("r"),
                dataset=DATASET,
                predictions=Predictions(LABELS, TABLE),
                samples=(Sample(2, b""),),
            ),
            "row 2",
        ),
    ],
)
def test_inconsistent_evidence_is_refused(build, message):
    with pytest.raises(EvidenceError, match=message):
        build()


def test_order_is_the_order_of_severity():
    dataset = Dataset("d", ("mild", "none", "severe"), severity=("none", "mild", "severe"))
    assert dataset.order == (1, 0, 2)
    assert Dataset("d", ("b", "a")).order == (0, 1)
