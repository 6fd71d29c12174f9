"""Training on several replicas gives what one replica gives on the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
ONE = {"strategy": "none"}
TWO = {"strategy": "mirrored", "replicas": 2}
QUICK = {
    "labels": {},
    "contrastive": {"loss": "contrastive"},
}
SLOW = {
    "distillation": {"loss": "distillation"},
    "parts": {"accumulate": 2},
    "sam": {"optimizer": {"sharpness": "sam", "rho": 0.1, "name": "sgd"}},
    "asam": {"optimizer": {"sharpness": "asam", "rho": 0.5, "name": "sgd"}},
}


def case(execution, accumulate=1, **rest):
    return {"execution": execution | {"accumulate": accumulate}, **rest}


@pytest.fixture(scope="module")
def trained():
    """What became of the network of `replicas.py`, by way and number of replicas."""
    return run(
        {f"{way}-1": case(ONE, **rest) for way, rest in QUICK.items()}
        | {f"{way}-2": case(TWO, **rest) for way, rest in QUICK.items()}
    )


@pytest.fixture(scope="module")
def trained_slowly(trained):
    """The same of all ways."""
    return trained | run(
        {f"{way}-1": case(ONE, **rest) for way, rest in SLOW.items()}
        | {f"{way}-2": case(TWO, **rest) for way, rest in SLOW.items()}
        | {"host": case(TWO, accumulate=2, from_host=True)}
    )


def run(cases: dict) -> dict:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/trainer/replicas.py"), json.dumps(cases)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_equal(ours, expected):
    np.testing.assert_allclose(ours["losses"], expected["losses"], rtol=1e-5)
    for weight, other in zip(ours["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-3, atol=2e-5)
    assert ours["told"] == expected["told"]
    assert ours["steps"] == expected["steps"] == len(ours["losses"])


@pytest.mark.parametrize("way", QUICK)
def test_two_replicas_train_as_one(trained, way):
    """Negatives, statistics, counts of labels and gradients are of the batch."""
    assert_equal(trained[f"{way}-2"], trained[f"{way}-1"])


@pytest.mark.slow
@pytest.mark.parametrize("way", SLOW)
def test_two_replicas_train_as_one_in_other_ways(trained_slowly, way):
    """So are a teacher's answers, the parts of a batch, and the sharpest point."""
    assert_equal(trained_slowly[f"{way}-2"], trained_slowly[f"{way}-1"])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["parts", "sam", "asam"])
def test_ways_differ_from_the_plain_one(trained_slowly, way):
    losses, plain = (trained_slowly[f"{name}-1"]["losses"] for name in (way, "labels"))
    assert np.abs(np.subtract(losses, plain)).max() > 1e-4


@pytest.mark.slow
def test_views_made_on_the_host_train_alike(trained_slowly):
    """The way of a TPU, on replicas that are at hand."""
    assert_equal(trained_slowly["host"], trained_slowly["parts-1"])


def test_synchronised_statistics_keep_a_small_variance_beside_a_large_mean(trained):
    assert trained["moments"]["error"] < 0.02
    np.testing.assert_allclose(trained["moments"]["variance"], 1, atol=1e-3)
