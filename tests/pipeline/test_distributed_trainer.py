"""A trainer node with two workers, for real: TFX's executor, a TFJob, two processes that train."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from components import distributed_training
from components.training_jobs import TrainingJobError
from pipeline import distributed, presets
from pipeline.config import with_overrides
from tests.emulators.kubernetes_cluster import kubernetes
from trainer.config import (
    BackboneSettings,
    ExecutionSettings,
    FinetuneSettings,
    InputSettings,
    OptimizerSettings,
)
from trainer.errors import Preempted

pytestmark = pytest.mark.slow

TRAINERS = Path(__file__).resolve().parents[1] / "trainer"
# As tests/trainer/test_workers.py: a rate at which rounding stays rounding.
SETTINGS = FinetuneSettings(
    input=InputSettings(image_size=32),
    backbone=BackboneSettings(width=0.125),
    augmentation="none",
    epochs=2,
    batch_size=18,
    optimizer=OptimizerSettings(name="adamw", learning_rate=3e-4),
    execution=ExecutionSettings(strategy="multi_worker"),
)


@pytest.fixture(scope="module")
def operator():
    with kubernetes() as found:
        yield found


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """An Examples artifact with the splits `train` and `val`."""
    from tfx.types.standard_artifacts import Examples

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TRAINERS)
        from blob_dataset import blob_split
    folder = tmp_path_factory.mktemp("examples")
    for split, people in (("train", 30), ("val", 15)):
        blob_split(folder, split, people)
    artifact = Examples()
    artifact.uri = str(folder)
    artifact.split_names = json.dumps(["train", "val"])
    artifact.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    return artifact


def node(folder: Path, examples, stage: FinetuneSettings, **custom):
    """What the executor of a trainer node is given."""
    from tfx.types.standard_artifacts import Model, ModelRun
    from tfx.utils import json_utils

    model, run = Model(), ModelRun()
    model.uri, run.uri = str(folder / "model"), str(folder / "run")
    config = {
        "stage": stage.model_dump_json(),
        "classes": json.dumps(["large", "medium", "small"]),
        "severity": "null",
        "checkpoint_root": str(folder / "checkpoints"),
        **custom,
    }
    properties = {
        "train_args": json.dumps({"splits": ["train"]}),
        "eval_args": json.dumps({"splits": ["val"]}),
        "run_fn": "trainer.run_fn.run_fn",
        "custom_config": json_utils.dumps(config),
    }
    return {"examples": [examples]}, {"model": [model], "model_run": [run]}, properties


def told() -> dict:
    """As the compiler tells a node of two workers."""
    wanted = [f"cluster.nodes.{each}.workers=2" for each in distributed.STAGE_OF]
    config = with_overrides(
        presets.load("quickstart"), ["execution.strategy=multi_worker", *wanted]
    )
    return distributed.handover(config, "Teacher", "kubeflow")


def train(folder: Path, examples, stage: FinetuneSettings = SETTINGS, **custom) -> None:
    from components.distributed_trainer import Executor

    Executor().Do(*node(folder, examples, stage, **custom))


def losses(folder: Path) -> np.ndarray:
    return np.genfromtxt(folder / "run" / "steps.csv", delimiter=",", names=True)["loss"]


@pytest.fixture(scope="module")
def alone(examples, tmp_path_factory):
    """The same stage in this very process."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, examples, SETTINGS.model_copy(update={"execution": ExecutionSettings()}))
    return folder


@pytest.fixture
def cluster(operator, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed_training, "LOOK_SECONDS", 0.2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    operator.point_here(tmp_path, monkeypatch)
    return operator


def check_equal(folder: Path, alone: Path) -> None:
    assert len(losses(alone)) == 10
    np.testing.assert_allclose(losses(folder), losses(alone), rtol=0, atol=1e-3)
    with (
        np.load(folder / "model/bundle/weights.npz") as ours,
        np.load(alone / "model/bundle/weights.npz") as theirs,
    ):
        assert ours.files == theirs.files
        for name in ours.files:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-3)


def test_two_workers_train_what_one_process_does(cluster, examples, tmp_path, alone):
    train(tmp_path, examples, distributed=told())
    check_equal(tmp_path, alone)
    assert (tmp_path / "model/Format-Serving/saved_model.pb").is_file()
    assert {"chief 0 ended with 0", "worker 0 ended with 0"} <= set(cluster.told)


def test_a_worker_that_refuses_its_data_fails_the_node_with_its_words(cluster, examples, tmp_path):
    with pytest.raises(TrainingJobError, match=r"ended with 1: Error: Labels outside"):
        train(tmp_path, examples, classes=json.dumps(["large", "medium"]), distributed=told())


def test_a_stopped_node_goes_on_where_its_workers_were(cluster, examples, tmp_path, alone):
    def strike():
        while not list(tmp_path.glob("checkpoints/*/epoch-000001*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=strike, daemon=True).start()
    with pytest.raises(Preempted):
        train(tmp_path, examples, distributed=told())
    assert "deleted" in cluster.told
    assert not (tmp_path / "model" / "bundle").exists()
    train(tmp_path, examples, distributed=told())
    check_equal(tmp_path, alone)
