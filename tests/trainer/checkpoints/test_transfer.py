"""Variables by name and by path, and what is refused by name."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from public_model import NARROW, PublicModel, Variant, objects, save_checkpoint, save_tf1

from trainer.checkpoints import conversion, verification
from trainer.checkpoints.aliases import architecture_of
from trainer.checkpoints.errors import CheckpointError, VerificationError
from trainer.checkpoints.inference import infer
from trainer.checkpoints.stored import read
from trainer.checkpoints.transfer import to_channels, transfer
from trainer.config import BackboneSettings, InputSettings
from trainer.errors import Preempted
from trainer.heads import SupervisedHead
from trainer.resnet import ResNet

COLOUR = InputSettings(image_size=64, channels=3)
GREY = InputSettings(image_size=64, channels=1)
BACKBONE = BackboneSettings(width=0.125)


def answers(transferred, images):
    pooled = transferred.encoder.backbone(images)["final_avg_pool"]
    given = {"final_avg_pool": pooled}
    if transferred.encoder.projection is not None:
        given["proj_head_output"] = transferred.encoder.projection(pooled)[-1]
    if transferred.head is not None:
        given["logits_sup"] = transferred.head(pooled)
    return given


def assert_answers(transferred, public, images):
    wanted = public(tf.constant(images), trainable=False)
    given = answers(transferred, images)
    for name, value in given.items():
        np.testing.assert_allclose(value, wanted[name], atol=1e-4 * np.abs(wanted[name]).max())
    assert given.keys() == {"final_avg_pool", "proj_head_output", "logits_sup"} & wanted.keys()


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 18, "stem": "cifar"},
        pytest.param({"depth": 34}, marks=pytest.mark.slow),
        {"depth": 18, "sk_ratio": 0.0625},
        pytest.param({"depth": 50, "width": 0.25, "sk_ratio": 0.5}, marks=pytest.mark.slow),
        pytest.param({"depth": 50, "width": 3, "sk_ratio": 0.0625}, marks=pytest.mark.slow),
        pytest.param({"depth": 101}, marks=pytest.mark.slow),
        pytest.param({"depth": 152, "sk_ratio": 0.0625}, marks=pytest.mark.slow),
        pytest.param({"depth": 200}, marks=pytest.mark.slow),
    ],
)
def test_the_network_is_told_by_the_shapes_of_its_kernels(settings):
    wanted = BackboneSettings(**{"width": 0.125} | settings)
    encoder = ResNet(wanted)
    encoder.compute_output_spec(keras.KerasTensor((1, 32, 32, 3)))
    shapes = [tuple(v.shape) for v in encoder.variables if len(v.shape) == 4]
    references = encoder.reference_variables()
    by_name = {r.name: tuple(r.variable.shape) for r in references}
    count = len(shapes)
    ordered = [by_name[f"base_model/conv2d{f'_{i}' if i else ''}/kernel"] for i in range(count)]
    assert sorted(shapes) == sorted(ordered)
    assert infer(ordered) == wanted
    assert infer(ordered[:3]) is None


def test_a_saved_model_is_matched_by_path_and_verified(saved_model, public, images):
    stored = read(saved_model)
    moved = transfer(stored, COLOUR)
    assert (stored.format, stored.by) == ("TensorFlow 2 SavedModel", "path")
    assert moved.architecture.backbone == BACKBONE
    assert_answers(moved, public, images)
    names = {variable.name for variable in moved.used}
    assert names == {name for name, _ in public.names.values()}
    assert (moved.unused, moved.missing) == ((), ())
    checked, selector = verification.against_saved_model(moved, stored.saved_model, 3)
    assert checked.errors.keys() == {"final_avg_pool", "proj_head_output", "logits_sup"}
    assert max(checked.errors.values()) < 1e-5
    assert selector == 0


def test_the_report_tells_everything_and_can_be_kept(saved_model):
    report = conversion.inspect(saved_model)
    document = json.loads(report.json())
    assert (document["verified"], len(document["used"])) == (True, 121)
    text = report.text(every=True)
    assert "base_model/conv2d_3/kernel  [3, 3, 8, 8]  copied  ← resnet/block_group1/" in text
    assert "verified on a probe batch" in text


@pytest.mark.parametrize("parent", [False, True])
def test_a_folder_may_hold_the_saved_model(saved_model, parent):
    assert read(saved_model.parent if parent else saved_model).origin == saved_model


def test_a_checkpoint_of_the_public_training_is_read_but_not_verified(public, images, tmp_path):
    prefix = save_checkpoint(public, tmp_path / "ckpt-7")
    for place in (prefix, tmp_path, prefix.with_name("ckpt-7.index")):
        stored = read(place)
        assert (stored.format, stored.by) == ("TensorFlow 2 checkpoint", "path")
    moved = transfer(stored, COLOUR)
    assert_answers(moved, public, images)
    assert [(each.shape, each.why) for each in moved.unused] == [
        ((), "an optimizer's or a counter's")
    ]
    checked, _ = verification.against_saved_model(moved, stored.saved_model, 3)
    assert not checked.verified
    assert str(checked).startswith("not verified: a checkpoint without a model")


def test_converted_objects_are_matched_by_their_names(images, tmp_path):
    """Names that count on from another model made before in the same process, and no paths."""
    public = PublicModel(dataclasses.replace(NARROW, first_number=53), as_objects=False)
    prefix = tf.train.Checkpoint(variables=public.all_of_them).write(str(tmp_path / "ckpt"))
    stored = read(tmp_path / "ckpt")
    assert prefix == str(stored.origin)
    assert (stored.by, stored.variables["base_model/conv2d/kernel"].name) == (
        "name", "resnet/conv2d_fixed_padding/conv2d_53/kernel",
    )  # fmt: skip
    assert_answers(transfer(stored, COLOUR), public, images)


@pytest.mark.parametrize("prefix", [pytest.param("", marks=pytest.mark.slow), "module"])
def test_names_of_tensorflow_1_are_read(images, tmp_path, prefix):
    public = PublicModel(NARROW)
    variables = {
        f"{prefix}/{public.names[path][1]}".strip("/"): variable.numpy()
        for path, variable in public.paths.items()
    }
    slots = {f"{name}/Momentum": value for name, value in variables.items() if "moving" not in name}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = [
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
            for name, value in (variables | slots).items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(made).save(session, str(tmp_path / "model.ckpt-7"))
    stored = read(tmp_path)
    assert (stored.format, stored.by) == ("TensorFlow 1 checkpoint", "name")
    moved = transfer(stored, COLOUR)
    assert_answers(moved, public, images)
    assert len(moved.unused) == len(slots)


@pytest.mark.slow
def test_a_tensorflow_1_module_is_called_and_verified(tmp_path):
    stored = read(save_tf1(NARROW, tmp_path / "hub", prefix="module"))
    assert (stored.format, stored.by) == ("TensorFlow 1 module", "name")
    checked, _ = verification.against_saved_model(transfer(stored, COLOUR), stored.saved_model, 3)
    assert checked.errors.keys() == {"final_avg_pool", "proj_head_output", "logits_sup"}


def test_grey_images_get_the_same_answer_from_folded_kernels(saved_model, public, images):
    grey = images[..., :1]
    stored = read(saved_model)
    moved = transfer(stored, GREY)
    assert moved.encoder.backbone.stem.convs[0].kernel.shape == (7, 7, 1, 8)
    assert [variable.how for variable in moved.used[:2]] == ["folded", "copied"]
    wanted = public(tf.constant(np.repeat(grey, 3, -1)), trainable=False)["final_avg_pool"]
    np.testing.assert_allclose(answers(moved, grey)["final_avg_pool"], wanted, rtol=1e-4, atol=1e-4)
    checked, _ = verification.against_saved_model(moved, stored.saved_model, 1)
    assert max(checked.errors.values()) < 1e-5


def test_kernels_spread_over_colours_and_folded_again_are_the_same():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 4)).astype(np.float32)
    spread, how = to_channels(kernel, 3)
    assert (spread.shape, how) == ((3, 3, 3, 4), "spread")
    np.testing.assert_allclose(to_channels(spread, 1)[0], kernel, rtol=1e-6)


def test_another_network_than_asked_for_is_refused(saved_model):
    wanted = BackboneSettings(depth=18, width=0.125, sk_ratio=0.0625)
    with pytest.raises(CheckpointError) as caught:
        transfer(read(saved_model), COLOUR, wanted)
    message = str(caught.value)
    assert "does not hold the network r18_0.125x_sk1" in message
    assert "base_model/conv2d/kernel needs the shape [3, 3, 3, 4]" in message
    assert "resnet/conv2d_fixed_padding/conv2d/kernel has [7, 7, 3, 8]" in message
    assert architecture_of(BACKBONE) in message


@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
def test_a_truncated_file_is_refused(saved_model, tmp_path, part):
    shutil.copytree(saved_model, tmp_path / "copy")
    file = tmp_path / "copy" / "variables" / f"variables.{part}"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if part == "index":
        with pytest.raises(CheckpointError, match=r"variables\.index cannot be read"):
            read(tmp_path / "copy")
        return
    with pytest.raises(CheckpointError, match=r"the value of (resnet|projec|head)\S+ \[.*trunc"):
        transfer(read(tmp_path / "copy"), COLOUR)


def test_a_missing_data_file_is_refused(saved_model, tmp_path):
    shutil.copytree(saved_model, tmp_path / "copy")
    (tmp_path / "copy/variables/variables.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"the value of \S+ .* and 120 more .*fetch it again"):
        transfer(read(tmp_path / "copy"), COLOUR)


def changed(change, tmp_path):
    """A checkpoint of the narrow model after a change of its variables by path."""
    public = PublicModel(NARROW)
    change(public.paths)
    public.model = objects(public.paths)
    return read(save_checkpoint(public, tmp_path / "changed"))


FIRST = "resnet_model/block_groups/0/layers/0/conv2d_bn_layers/0/conv2d/kernel"
LAST = "resnet_model/block_groups/3/layers/1/conv2d_bn_layers/0/conv2d/kernel"
HIDDEN = "_projection_head/linear_layers/1/dense/kernel"


def test_two_variables_that_changed_places_are_refused_with_both_shapes(tmp_path):
    def swap(paths):
        paths[FIRST], paths[LAST] = paths[LAST], paths[FIRST]

    with pytest.raises(CheckpointError) as caught:
        transfer(changed(swap, tmp_path), COLOUR)
    message = str(caught.value)
    assert "base_model/conv2d_2/kernel needs the shape [3, 3, 8, 8]" in message
    assert "conv2d_19/kernel has [3, 3, 64, 64] (1 more variables" in message


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (FIRST, "base_model/conv2d_2/kernel"),
        pytest.param(HIDDEN, "head_contrastive/nl_1/dense/kernel", marks=pytest.mark.slow),
        pytest.param(
            "supervised_head/linear_layer/dense/kernel",
            "head_supervised/linear_layer/dense/kernel",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_lost_variable_is_named(tmp_path, path, name):
    with pytest.raises(CheckpointError, match=rf"{name} \[[\d, ]+\] is missing"):
        transfer(changed(lambda paths: paths.pop(path), tmp_path), COLOUR)


def test_a_diverged_training_is_refused(tmp_path):
    def diverge(paths):
        paths[HIDDEN].assign(paths[HIDDEN] * np.nan)

    with pytest.raises(CheckpointError, match=r"nl_1/dense_1/kernel .* not finite"):
        transfer(changed(diverge, tmp_path), COLOUR)


def test_a_network_without_heads_gives_embeddings_alone(tmp_path):
    def strip(paths):
        for path in [path for path in paths if "head" in path]:
            del paths[path]

    moved = transfer(changed(strip, tmp_path), COLOUR)
    assert set(moved.encoder(tf.zeros([1, 64, 64, 3]))) == {"embeddings"}
    assert moved.missing == (
        "projection head (the network gives embeddings alone)", "supervised head",
    )  # fmt: skip


def test_two_networks_in_one_file_are_refused(tmp_path):
    twice = {f"{who}/base_model/conv2d/kernel": np.zeros([7, 7, 3, 8], "f4") for who in "ab"}
    variables = [tf.Variable(value, name=name) for name, value in twice.items()]
    tf.train.Checkpoint(variables=variables).write(str(tmp_path / "ckpt"))
    with pytest.raises(CheckpointError, match="holds two networks"):
        read(tmp_path / "ckpt")


def test_what_is_no_network_of_ours_is_refused(tmp_path):
    tf.train.Checkpoint(dense=tf.Variable([1.0], name="dense/kernel")).write(str(tmp_path / "c"))
    with pytest.raises(CheckpointError, match="holds no SimCLR backbone"):
        transfer(read(tmp_path / "c"), COLOUR)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "saved_model.pb").touch()
    with pytest.raises(CheckpointError, match="was not copied whole"):
        read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("part", "output"),
    [
        ("backbone", "final_avg_pool"),
        pytest.param("projection", "proj_head_output", marks=pytest.mark.slow),
    ],
)
def test_a_network_that_answers_otherwise_is_refused(saved_model, part, output):
    """Names and shapes may all be right, and the weights still not where they belong."""
    stored = read(saved_model)
    moved = transfer(stored, COLOUR)
    kernels = [v for v in getattr(moved.encoder, part).trainable_variables if v.name == "kernel"]
    kernels[1].assign(kernels[1][..., ::-1])
    with pytest.raises(VerificationError, match=f"does not reproduce the original's {output}"):
        verification.against_saved_model(moved, stored.saved_model, 3)


def test_a_graph_that_cannot_be_called_is_refused_and_its_weights_remain(saved_model, tmp_path):
    shutil.copytree(saved_model, tmp_path / "copy")
    (tmp_path / "copy" / "saved_model.pb").write_bytes(b"")
    stored = read(tmp_path / "copy")
    with pytest.raises(VerificationError, match="could not be called") as caught:
        verification.against_saved_model(transfer(stored, COLOUR), stored.saved_model, 3)
    advised = Path(str(caught.value).rpartition(" ")[2])
    assert read(advised).saved_model is None


def test_a_graph_that_gives_nothing_to_compare_is_refused(saved_model, monkeypatch):
    stored = read(saved_model)
    monkeypatch.setattr(verification, "_original", lambda folder, images: {"other": images})
    with pytest.raises(VerificationError, match=r"no final_avg_pool \(it gives other\)"):
        verification.against_saved_model(transfer(stored, COLOUR), stored.saved_model, 3)


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("r18_1x_sk0", Variant(classes=1000)),
        pytest.param("r50_1x_sk0", Variant(50, classes=1000), marks=pytest.mark.slow),
        pytest.param("r50_1x_sk1", Variant(50, sk_ratio=0.0625, classes=1000),
                     marks=pytest.mark.slow),
        pytest.param("r50_2x_sk0", Variant(50, 128, classes=1000), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_golden_answers_survive_the_public_layout(shared, images, tmp_path, variant, settings):
    """Golden weights, saved as the public code saves them, read back: the golden answers."""
    golden = np.load(shared / f"golden/simclr/{variant}.npz")
    names = json.loads((shared / f"golden/simclr/{variant}.json").read_text())
    public = PublicModel(settings)
    shapes = {name: list(public.paths[path].shape) for path, (name, _) in public.names.items()}
    assert shapes == {name: shape for name, shape, _ in names}
    moved = transfer(read(save_checkpoint(public, tmp_path / "ckpt")), COLOUR)
    assert architecture_of(moved.architecture.backbone) == variant
    given = answers(moved, images)
    for key, name in (("final_avg_pool",) * 2, ("projection", "proj_head_output")):
        scale = np.abs(golden[key]).max()
        np.testing.assert_allclose(given[name], golden[key], atol=5e-5 * scale)
    wanted = golden["logits_sup"]
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(given["logits_sup"][:, :64], wanted, atol=5e-5 * scale)


def test_what_ends_the_process_is_no_verdict_on_a_graph(saved_model, monkeypatch):
    def stop(folder, images):
        raise Preempted("stopped")

    stored = read(saved_model)
    monkeypatch.setattr(verification, "_original", stop)
    with pytest.raises(Preempted):
        verification.against_saved_model(transfer(stored, COLOUR), stored.saved_model, 3)


def test_a_head_that_answers_otherwise_matters_where_it_is_wanted(saved_model):
    stored = read(saved_model)
    moved = transfer(stored, COLOUR)
    moved.head.kernel.assign(moved.head.kernel[::-1])
    checked, _ = verification.against_saved_model(moved, stored.saved_model, 3, with_head=False)
    assert checked.errors.keys() == {"final_avg_pool", "proj_head_output"}
    with pytest.raises(VerificationError, match="does not reproduce the original's logits_sup"):
        verification.against_saved_model(moved, stored.saved_model, 3)
    moved = dataclasses.replace(moved, head=SupervisedHead(3))
    moved.head.build((None, 40))
    with pytest.raises(CheckpointError, match="reads 40 features"):
        verification.against_saved_model(moved, stored.saved_model, 3)
