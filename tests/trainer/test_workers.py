"""The three stages on two replicas and on two workers, as TFX starts them, follow one process."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import cluster
import numpy as np
import pytest
from blob_dataset import fn_args

from trainer.config import (
    BackboneSettings,
    DistilSettings,
    ExecutionSettings,
    FinetuneSettings,
    InputSettings,
    LiteRTSettings,
    OptimizerSettings,
    PretrainSettings,
)
from trainer.errors import PREEMPTED_EXIT_CODE

pytestmark = pytest.mark.slow

STAGES = ("pretrain", "finetune", "distil")
# Twenty steps each, with the `mri` views. Few images and batch statistics make training chaotic:
# under LARS at usual rates, weights that differ by 1e-7 lose each other within ten steps of ONE
# process (measured, up to 1.0 in loss). AdamW at a low rate keeps rounding small.
SHARED = {
    "input": InputSettings(image_size=32),
    "epochs": 4,
    "batch_size": 18,
    "optimizer": OptimizerSettings(name="adamw", learning_rate=3e-4),
    "checkpoint_every_seconds": 1e9,  # states at the ends of epochs only, however slow the machine
}


def settings(execution: ExecutionSettings):
    shared = SHARED | {"execution": execution}
    return (
        PretrainSettings(
            backbone=BackboneSettings(width=0.125),
            temperature=0.5,
            probe_every_epochs=None,
            **shared,
        ),
        FinetuneSettings(**shared),
        DistilSettings(
            filters=(8, 16),
            dense=16,
            litert=LiteRTSettings(int8_min_agreement=0.0, int8_max_mean_difference=1.0),
            **shared,
        ),
    )


def write_jobs(folder: Path, blobs, execution: ExecutionSettings) -> list[Path]:
    """One job for each stage, each on top of the one before."""
    base, jobs = None, []
    for stage in settings(execution):
        args = fn_args(
            folder / stage.stage, stage, [blobs.train], [blobs.val], base,
            checkpoint_root=str(folder / "checkpoints"),
        )  # fmt: skip
        base = args.serving_model_dir
        jobs.append(folder / f"{stage.stage}.json")
        folder.mkdir(parents=True, exist_ok=True)
        jobs[-1].write_text(json.dumps(vars(args)))
    return jobs


def start(jobs: list[Path], workers: int, folder: Path) -> list[subprocess.Popen]:
    """Starts the processes of a training."""
    return cluster.start(
        [[sys.executable, cluster.ROOT / "tests/trainer/worker.py", *jobs]] * workers, folder
    )


def end(processes: list[subprocess.Popen], folder: Path) -> list[list[dict]]:
    """What each process told until its end; all must end well."""
    told = cluster.end(processes)
    for index, process in enumerate(processes):
        errors = (folder / f"stderr-{index}.txt").read_text()
        assert process.returncode == 0, errors[-3000:]
    return [[json.loads(line) for line in lines.splitlines()] for lines in told]


def losses(told: list[dict], stage: str) -> list[float]:
    return [news["loss"] for news in told if news["stage"] == stage and "loss" in news]


def train(folder: Path, blobs, execution: ExecutionSettings, workers: int = 1):
    jobs = write_jobs(folder, blobs, execution)
    return end(start(jobs, workers, folder), folder)


@pytest.fixture(scope="module")
def one(blobs, tmp_path_factory):
    return train(tmp_path_factory.mktemp("one"), blobs, ExecutionSettings())[0]


WORKERS = ExecutionSettings(strategy="multi_worker")


@pytest.fixture(scope="module")
def two_workers(blobs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    return folder, train(folder, blobs, WORKERS, workers=2)


@pytest.mark.parametrize("stage", STAGES)
def test_two_workers_follow_one_process(one, two_workers, stage):
    expected = losses(one, stage)
    assert len(expected) == 20
    assert np.ptp(expected) > 0.02
    for told in two_workers[1]:
        np.testing.assert_allclose(losses(told, stage), expected, atol=1e-3)


def test_the_chief_alone_exports(two_workers):
    folder, (chief, other) = two_workers
    for stage in STAGES:
        assert (folder / stage / "Format-Serving" / "saved_model.pb").is_file()
        history = json.loads((folder / stage / "bundle" / "history.json").read_text())
        assert len(history) == SHARED["epochs"]
    ends = [[news for news in told if "weights" in news] for told in (chief, other)]
    assert [news["chief"] for news in ends[0]] == [True] * 3
    assert [news["chief"] for news in ends[1]] == [False] * 3
    for ours, others in zip(*ends, strict=True):
        assert ours["weights"] == others["weights"]


def test_two_replicas_of_a_process_follow_one(one, blobs, tmp_path):
    (told,) = train(tmp_path, blobs, ExecutionSettings(strategy="mirrored", replicas=2))
    for stage in STAGES:
        np.testing.assert_allclose(losses(told, stage), losses(one, stage), atol=1e-3)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_other_and_both_resume(two_workers, blobs, tmp_path, victim):
    """The other says that it may be started again, and nothing is lost but the epoch under way."""
    jobs = write_jobs(tmp_path, blobs, WORKERS)[:1]
    processes = start(jobs, 2, tmp_path)
    try:
        steps = 0
        for line in processes[victim].stdout:
            steps += "loss" in json.loads(line)
            if steps == 12:
                break
        processes[victim].send_signal(signal.SIGKILL)
        assert processes[1 - victim].wait(timeout=cluster.PATIENCE) == PREEMPTED_EXIT_CODE
    finally:
        cluster.stop(processes)
    assert "Another worker" in (tmp_path / f"stderr-{1 - victim}.txt").read_text()
    resumed = end(start(jobs, 2, tmp_path), tmp_path)
    for told, uninterrupted in zip(resumed, two_workers[1], strict=True):
        expected = losses(uninterrupted, "pretrain")
        np.testing.assert_allclose(losses(told, "pretrain"), expected[10:], atol=1e-5)
