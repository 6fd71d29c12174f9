import json

import numpy as np
import pytest
import tensorflow as tf

from trainer import architectures, bundle
from trainer.architectures import EncoderArchitecture, StudentArchitecture, TeacherArchitecture
from trainer.bundle import Description
from trainer.config import BackboneSettings, InputSettings, ProjectionSettings
from trainer.errors import BundleError

INPUT = InputSettings(image_size=32)
BACKBONE = BackboneSettings(width=0.125)
ARCHITECTURES = {
    "encoder": EncoderArchitecture(backbone=BACKBONE),
    "teacher": TeacherArchitecture(backbone=BACKBONE, ft_proj_selector=1, classes=3),
    "student": StudentArchitecture(filters=(4, 8), dense=8, classes=3),
}


def describe(kind: str) -> Description:
    architecture = ARCHITECTURES[kind].model_dump(mode="json")
    return Description(kind=kind, architecture=architecture, input=INPUT, classes=("a", "b", "c"))


def saved(folder, kind: str):
    model = architectures.build(kind, ARCHITECTURES[kind], INPUT, seed=1)
    bundle.save(folder / "bundle", model, describe(kind), [{"epoch": 1, "loss": 0.5}])
    return model


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_loads_what_was_saved(tmp_path, kind):
    model = saved(tmp_path, kind)
    loaded = bundle.load(tmp_path / "bundle", kind=kind)
    images = tf.random.stateless_uniform((4, 32, 32, 1), seed=(0, 1))
    expected = tf.nest.flatten(model(images, training=False))
    received = tf.nest.flatten(loaded.model(images, training=False))
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.description == describe(kind)
    assert loaded.history == ({"epoch": 1, "loss": 0.5},)


def test_keeps_the_temperature(tmp_path):
    model = architectures.build("student", ARCHITECTURES["student"], INPUT)
    measured = {"nll_before": 1.0, "nll_after": 0.5}
    description = describe("student").model_copy(
        update={"temperature": 1.7, "calibration": measured}
    )
    bundle.save(tmp_path / "bundle", model, description, [])
    loaded = bundle.load(tmp_path / "bundle").description
    assert (loaded.temperature, loaded.calibration) == (1.7, measured)


def test_loads_a_bundle_older_than_temperatures(tmp_path):
    saved(tmp_path, "student")
    path = tmp_path / "bundle" / "model.json"
    document = json.loads(path.read_text())
    del document["temperature"], document["calibration"]
    path.write_text(json.dumps(document))
    assert bundle.load(tmp_path / "bundle").description.temperature == 1.0


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"classes": ["b", "a", "c"]}, True),
        ({"input": {"image_size": 33, "channels": 1}}, True),
        ({"architecture": {"cells": 0}}, True),
        ({"stage": {"epochs": 9}}, False),
        ({"temperature": 2.0}, False),
    ],
)
def test_digest_tells_whatever_a_later_stage_takes_over(tmp_path, change, counts):
    saved(tmp_path, "student")
    path, stored = tmp_path / "bundle" / "model.json", b"weights"
    before = Description.model_validate_json(path.read_bytes())
    document = json.loads(path.read_text())
    for name, value in change.items():
        merge = isinstance(value, dict)
        document[name] = document[name] | value if merge else value
    after = Description.model_validate(document)
    assert (bundle._digest(before, stored) != bundle._digest(after, stored)) == counts
    assert bundle._digest(before, b"others") != bundle._digest(before, stored)
    assert bundle.load(path.parent).digest == bundle._digest(
        before, path.with_name("weights.npz").read_bytes()
    )


def test_weights_hold_no_pickle(tmp_path):
    saved(tmp_path, "student")
    with np.load(tmp_path / "bundle" / "weights.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype == np.float32 for name in stored.files)


def test_replaces_an_older_bundle_whole(tmp_path):
    saved(tmp_path, "student")
    (tmp_path / "bundle" / "stale").touch()
    saved(tmp_path, "teacher")
    assert not (tmp_path / "bundle" / "stale").exists()
    assert bundle.load(tmp_path / "bundle").description.kind == "teacher"


def test_refuses_a_missing_bundle(tmp_path):
    with pytest.raises(BundleError, match="No sound model bundle"):
        bundle.load(tmp_path / "bundle")


def test_refuses_another_kind(tmp_path):
    saved(tmp_path, "student")
    with pytest.raises(BundleError, match=r"starts from a teacher, but .* holds a student"):
        bundle.load(tmp_path / "bundle", kind="teacher")


def test_refuses_damaged_weights(tmp_path):
    saved(tmp_path, "student")
    weights = tmp_path / "bundle" / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BundleError, match="No sound model bundle"):
        bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "oracle", "holds a 'oracle'"),
        ("format", 99, "bundle format 99"),
        ("architecture", {"filters": "many"}, "describes no student"),
        ("architecture", {"filters": [4, 9], "dense": 8, "classes": 3}, "does not fit"),
    ],
)
def test_refuses_a_description_that_does_not_hold(tmp_path, field, value, message):
    saved(tmp_path, "student")
    path = tmp_path / "bundle" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(BundleError, match=message):
        bundle.load(tmp_path / "bundle")


def test_finds_the_bundle_beside_the_saved_model():
    assert str(bundle.beside("/artifact/Format-Serving/")) == "/artifact/bundle"


def test_layers_above_the_classifier_are_not_trained():
    frozen = architectures.build("teacher", ARCHITECTURES["teacher"], INPUT)
    whole = architectures.build(
        "encoder",
        EncoderArchitecture(backbone=BACKBONE, projection=ProjectionSettings(layers=1)),
        INPUT,
    )
    # One projection layer: a kernel and the normalisation's scale and offset; the classifier's two.
    backbone = len(whole.backbone.trainable_variables)
    assert len(frozen.trainable_variables) == backbone + 3 + 2
