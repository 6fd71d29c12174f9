"""Pretraining on blobs: what it tells of its features, and what it must not learn from."""

import logging

import numpy as np
import pytest
from blob_dataset import CLASSES, blob_split, fn_args

from trainer import examples, representation
from trainer.config import BackboneSettings, InputSettings, OptimizerSettings, PretrainSettings
from trainer.errors import RepresentationCollapsed
from trainer.examples import Examples
from trainer.loop import Workspace
from trainer.run_fn import read_job, train_and_export
from trainer.stages.pretrain import pretrain

INPUT = InputSettings(image_size=32)
SETTINGS = PretrainSettings(
    input=INPUT, backbone=BackboneSettings(width=0.125), epochs=3, batch_size=32,
    optimizer=OptimizerSettings(learning_rate=0.5), probe_every_epochs=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def train(blobs) -> Examples:
    return examples.read([blobs.train], INPUT, CLASSES)


@pytest.fixture(scope="module")
def probed(blobs, train):
    return pretrain(SETTINGS, train, examples.read([blobs.val], INPUT, CLASSES), Workspace())


def test_every_epoch_tells_the_state_of_the_features(probed):
    for entry in probed.history:
        assert entry["embedding_std"] > representation.SUSPECT
        assert 1 <= entry["effective_rank"] <= 64
        assert 0 <= entry["alignment"] <= 4
        assert entry["uniformity"] <= 0
        assert "warning" not in entry


def test_probes_run_as_often_as_asked_and_at_the_end(probed):
    assert [entry["epoch"] for entry in probed.history if "probe_knn_auc" in entry] == [2, 3]
    for name in ("probe_knn_auc", "probe_linear_auc"):
        assert probed.history[-1][name] > 0.9  # blobs of three sizes are easy


@pytest.mark.slow
def test_images_without_labels_give_the_very_same_encoder(probed, tmp_path, blobs, caplog):
    """Neither labels nor probes have a part in what is learnt; nor need there be held-out files."""
    bare = blob_split(tmp_path, "train", 30, labelled=False)
    args = fn_args(tmp_path, SETTINGS, [bare], [], classes="[]")
    with caplog.at_level(logging.INFO, "trainer"):
        trained = train_and_export(read_job(args))
    assert [text for text in caplog.messages if text.startswith("No probes")] == [
        "No probes of the features: there are no held-out people"
    ]
    assert not any("probe" in name for entry in trained.history for name in entry)
    for ours, theirs in zip(trained.model.weights, probed.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_collapsed_encoder_is_warned_of_and_then_refused(train):
    """A decay that leaves nothing of the weights: one vector answers every image."""
    heard = []
    settings = SETTINGS.model_copy(
        update={
            "epochs": 2,
            "optimizer": OptimizerSettings(name="adamw", learning_rate=1e-2, weight_decay=100.0),
        }
    )
    workspace = Workspace(progress=lambda stage, epoch, epochs, metrics: heard.append(metrics))
    with pytest.raises(RepresentationCollapsed, match=r"same embedding .* Lower optimizer"):
        pretrain(settings, train, None, workspace)
    assert all("hardly tells images apart" in metrics["warning"] for metrics in heard)
