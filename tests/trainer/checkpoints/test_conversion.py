"""From a checkpoint to a base model that all stages take, and on to a teacher."""

import json
import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf
from public_model import NARROW, PublicModel, objects, save_checkpoint

from trainer import bundle
from trainer.architectures import EncoderArchitecture, build
from trainer.bundle import Description
from trainer.checkpoints import conversion, fetching
from trainer.checkpoints.errors import CheckpointError
from trainer.config import (
    BackboneSettings,
    FinetuneSettings,
    InputSettings,
    OptimizerSettings,
    ProjectionSettings,
)
from trainer.run_fn import run_fn

INPUT = InputSettings(image_size=32, channels=1)
CLASSES = ("large", "none", "small")


def fetch(*arguments, **named):
    return fetching.fetch(*arguments, **named).folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def converted(saved_model, cache):
    return fetch(str(saved_model), cache, INPUT)


def test_a_converted_checkpoint_is_an_encoder_like_a_pretrainer_s(converted, saved_model):
    loaded = bundle.load(converted / "bundle", kind="encoder")
    assert loaded.description.input == INPUT
    assert loaded.description.stage["checkpoint"] == str(saved_model)
    assert conversion.projection_layers(converted) == 3
    report = json.loads((converted / conversion.REPORT).read_text())
    assert report["verified"]
    assert report["used"][0]["how"] == "folded"
    served = tf.saved_model.load(str(converted / "Format-Serving"))
    image = tf.io.encode_png(tf.fill([40, 40, 1], tf.constant(90, tf.uint8)))
    embeddings = served.signatures["predict_images"](images=image[None])["embeddings"]
    level = tf.fill([1, 32, 32, 1], 90 / 255)
    np.testing.assert_allclose(embeddings, loaded.model(level)["embeddings"], rtol=1e-3, atol=1e-4)


def test_what_was_converted_is_found_by_its_content(converted, saved_model, cache, tmp_path):
    assert conversion.unverified(converted) == ""
    before = (converted / conversion.REPORT).stat().st_mtime_ns
    copy = shutil.copytree(saved_model, tmp_path / "elsewhere" / "saved_model")
    assert fetching.fetch(str(copy), cache, INPUT) == (converted, False)
    assert (converted / conversion.REPORT).stat().st_mtime_ns == before


@pytest.mark.slow
def test_every_variable_is_fine_tuned_and_saved(converted, blobs, tmp_path):
    """The whole way: public layout, base model, teacher; no variable stays as it was."""
    from blob_dataset import fn_args

    settings = FinetuneSettings(
        input=INPUT, epochs=2, batch_size=16, ft_proj_selector=3,
        optimizer=OptimizerSettings(name="adamw", learning_rate=1e-3, weight_decay=0.0),
    )  # fmt: skip
    run_fn(fn_args(tmp_path, settings, [blobs.train], [blobs.val],
                   str(converted / "Format-Serving")))  # fmt: skip
    teacher = bundle.load(tmp_path / "bundle", kind="teacher").model
    base = bundle.load(converted / "bundle").model
    for part in ("backbone", "projection"):
        pairs = zip(
            getattr(base, part).reference_variables(),
            getattr(teacher, part).reference_variables(),
            strict=True,
        )
        same = [b.name for b, t in pairs if np.array_equal(b.variable, t.variable)]
        assert same == []
    served = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    assert served.signatures["predict_images"].structured_outputs["logits"].shape[1] == 3


def test_gradients_through_the_transferred_network_reach_every_variable(converted):
    model = bundle.load(converted / "bundle").model
    images = tf.random.stateless_uniform([8, 32, 32, 1], seed=[0, 1])
    with tf.GradientTape() as tape:
        projections = model(images, training=True)["projections"]
        loss = tf.reduce_sum(tf.nn.softplus(3 * projections))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert len(gradients) == 71
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.slow
def test_a_head_whose_classes_are_named_is_kept(saved_model, public, cache):
    folder = fetch(str(saved_model), cache, INPUT, classes=CLASSES)
    teacher = bundle.load(folder / "bundle", kind="teacher")
    assert teacher.description.classes == CLASSES
    assert teacher.model.architecture.ft_proj_selector == 0
    np.testing.assert_array_equal(
        teacher.model.head.kernel, public.paths["supervised_head/linear_layer/dense/kernel"]
    )
    with pytest.raises(CheckpointError, match="the supervised head has 3 outputs"):
        fetch(str(saved_model), cache, INPUT, classes=("a", "b"))


def test_a_head_on_a_layer_that_is_not_there_is_left_behind_or_refused(tmp_path, cache):
    """Its logits cannot be compared, and need not be where no class names ask for it."""
    public = PublicModel(NARROW)
    for path in [path for path in public.paths if path.startswith("_projection_head")]:
        del public.paths[path]
    kernel = "supervised_head/linear_layer/dense/kernel"
    public.paths[kernel] = tf.Variable(np.ones([40, 3], "f4"), name=public.names[kernel][0])
    public.model = objects(public.paths)
    prefix = str(save_checkpoint(public, tmp_path / "ckpt-1"))
    assert bundle.load(fetch(prefix, cache, INPUT) / "bundle").description.kind == "encoder"
    with pytest.raises(CheckpointError, match=r"reads 40 features.*\[64\]"):
        fetch(prefix, cache, INPUT, classes=CLASSES)


def own(folder, settings, projection=None):
    architecture = EncoderArchitecture(
        backbone=BackboneSettings(width=0.125), projection=projection
    )
    model = build("encoder", architecture, settings, seed=3)
    description = Description(
        kind="encoder", architecture=architecture.model_dump(), input=settings
    )
    bundle.save(folder / "bundle", model, description, [{"epoch": 1, "loss": 1.0}])
    return folder


def test_what_nobody_can_verify_is_warned_of_every_time(public, tmp_path, caplog):
    prefix = save_checkpoint(public, tmp_path / "ckpt-7")
    for _ in range(2):
        caplog.clear()
        folder = fetch(str(prefix), tmp_path / "cache", INPUT)
        [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert f"{prefix} is not verified: a checkpoint without a model" in warning
    assert conversion.unverified(folder) in warning


def test_a_model_of_ours_is_taken_as_it_is(tmp_path):
    folder = own(tmp_path / "own", INPUT)
    assert fetching.fetch(str(folder), tmp_path / "cache", INPUT) == (folder, False)
    assert not (tmp_path / "cache" / "models").exists()
    assert conversion.projection_layers(folder) == 0


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_of_ours_takes_images_of_another_size_and_colour(tmp_path, channels):
    before = InputSettings(image_size=48, channels=4 - channels)
    folder = own(tmp_path / "own", before, ProjectionSettings(dim=8))
    after = InputSettings(image_size=32, channels=channels)
    made = fetch(str(folder), tmp_path / "cache", after)
    moved = bundle.load(made / "bundle", kind="encoder")
    assert moved.description.input == after
    assert moved.history == ({"epoch": 1, "loss": 1.0},)
    grey = tf.random.stateless_uniform([2, 40, 40, 1], seed=[0, 1])
    answers = [
        bundle.load(path / "bundle").model(tf.repeat(grey, count, axis=3))["projections"]
        for path, count in ((folder, 4 - channels), (made, channels))
    ]
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-4)


def test_what_cannot_be_a_base_model_is_refused(saved_model, tmp_path):
    with pytest.raises(CheckpointError, match="32 pixels or more"):
        fetch(str(saved_model), tmp_path, InputSettings(image_size=16))
    folder = own(tmp_path / "own", INPUT)
    for settings in (INPUT, InputSettings()):  # seen already, and others
        with pytest.raises(CheckpointError, match="knows the classes"):
            conversion.convert(folder, tmp_path, settings, classes=("a", "b"))
    with pytest.raises(CheckpointError, match="holds the backbone"):
        conversion.convert(folder, tmp_path, INPUT, expected=BackboneSettings(depth=50))
    (folder / "bundle" / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match="describes no model"):
        fetch(str(folder), tmp_path, INPUT)
    assert not list((tmp_path / "models").glob("[!.]*"))


def test_what_is_refused_leaves_nothing_behind(saved_model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "trainer")
    with pytest.raises(CheckpointError, match="does not hold the network"):
        conversion.convert(saved_model, tmp_path, INPUT, expected=BackboneSettings(stem="cifar"))
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
