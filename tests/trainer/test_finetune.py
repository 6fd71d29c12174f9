"""What fine-tuning keeps, what it trains, and that features computed once change nothing."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from blob_dataset import CLASSES, draw_blob

from trainer import architectures
from trainer.architectures import EncoderArchitecture, TeacherArchitecture
from trainer.bundle import Bundle, Description
from trainer.config import (
    BackboneSettings,
    FinetuneSettings,
    InputSettings,
    OptimizerSettings,
)
from trainer.errors import StageError
from trainer.examples import Examples
from trainer.loop import Workspace
from trainer.optimizers import build_optimizer
from trainer.stages import finetune as stage
from trainer.stages.finetune import beginning, finetune

INPUT = InputSettings(image_size=32)
BACKBONE = BackboneSettings(width=0.0625)
ADAMW = OptimizerSettings(name="adamw", learning_rate=1e-2, weight_decay=0.1)
SETTINGS = FinetuneSettings(
    input=INPUT, epochs=4, batch_size=8, augmentation="none", ft_proj_selector=1,
    fine_tune_after_block=4, optimizer=ADAMW,
)  # fmt: skip
CONVOLUTIONS = {"stem": 1, "groups": (5, 5, 5, 5)}  # of a ResNet-18, shortcuts included


def people(count: int, seed: int) -> Examples:
    """Two slices of each of `count` people, classes in turn."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count) % len(CLASSES), 2).astype(np.int32)
    images = np.stack([draw_blob(int(label), random) for label in labels])
    subjects = np.repeat([f"{seed}-{number:02d}" for number in range(count)], 2).astype(object)
    return Examples(images, labels, subjects)


def base_of(kind: str, architecture, classes=()) -> Bundle:
    model = architectures.build(kind, architecture, INPUT, seed=7)
    description = Description(
        kind=kind, architecture=architecture.model_dump(mode="json"), input=INPUT, classes=classes
    )
    return Bundle(model, description, (), "digest")


@pytest.fixture(scope="module")
def encoder() -> Bundle:
    return base_of("encoder", EncoderArchitecture(backbone=BACKBONE))


@pytest.fixture(scope="module")
def teacher() -> Bundle:
    architecture = TeacherArchitecture(backbone=BACKBONE, ft_proj_selector=1, classes=3)
    return base_of("teacher", architecture, CLASSES)


def values(model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.weights]


def changed(before: list[np.ndarray], model) -> list[bool]:
    return [not np.array_equal(old, new) for old, new in zip(before, values(model), strict=True)]


def parts_of(teacher) -> dict[int, list]:
    """Stem (0), groups (1 to 4), and what stands on them (5)."""
    groups = dict(enumerate(teacher.backbone.groups, start=1))
    head = [teacher.projection.dense[0], teacher.projection.norms[0], teacher.head]
    return {0: [teacher.backbone.stem], **groups, 5: head}


@pytest.mark.parametrize(
    "after_block", [0, 2, 4, *(pytest.param(cut, marks=pytest.mark.slow) for cut in (-1, 1, 3))]
)
def test_frozen_parts_stay_and_the_others_learn(encoder, after_block):
    settings = SETTINGS.model_copy(update={"fine_tune_after_block": after_block})
    teacher = beginning(settings, CLASSES, encoder)
    optimizer = build_optimizer(ADAMW, model=teacher, steps_per_epoch=5, epochs=1, batch_size=6)
    before = {
        number: [(layer, values(layer)) for layer in layers]
        for number, layers in parts_of(teacher).items()
    }
    unused = [*teacher.projection.dense[1:], *teacher.projection.norms[1:]]
    before_unused = [(layer, values(layer)) for layer in unused]
    images = np.float32(people(3, seed=1).images) / 255
    for _ in range(3):  # the last scale of a residual block starts at 0: its kernels wait a step
        with tf.GradientTape() as tape:
            logits = teacher(images, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits([0, 0, 1, 1, 2, 2], logits)
            )
        variables = teacher.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    for number, layers in before.items():
        trains = number > after_block
        for layer, old in layers:
            assert changed(old, layer) == [trains] * len(old), f"part {number}: {layer.name}"
    for layer, old in before_unused:
        assert not any(changed(old, layer)), layer.name


@pytest.mark.parametrize("after_block", [pytest.param(-1, marks=pytest.mark.slow), 0, 2])
def test_no_gradient_is_computed_below_the_cut(encoder, after_block):
    settings = SETTINGS.model_copy(update={"fine_tune_after_block": after_block})
    teacher = beginning(settings, CLASSES, encoder)

    @tf.function
    def slopes(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(teacher(images, training=True))
        return tape.gradient(loss, teacher.trainable_variables)

    graph = slopes.get_concrete_function(tf.TensorSpec((2, 32, 32, 1))).graph
    backwards = [op for op in graph.get_operations() if op.type == "Conv2DBackpropFilter"]
    stem = CONVOLUTIONS["stem"] if after_block < 0 else 0
    assert len(backwards) == stem + sum(CONVOLUTIONS["groups"][max(after_block, 0) :])


def test_optimizers_hold_nothing_of_frozen_parts(encoder):
    teacher = beginning(SETTINGS, CLASSES, encoder)
    shapes = [tuple(variable.shape) for variable in teacher.trainable_variables]
    assert len(shapes) == 5  # kernel, scale and offset of the projection; the head's two
    for name, copies in (("lars", 1), ("sgd", 1), ("adamw", 2)):
        optimizer = build_optimizer(
            OptimizerSettings(name=name), model=teacher, steps_per_epoch=5, epochs=1, batch_size=6
        )
        slots = [tuple(slot.shape) for slot in optimizer.variables if len(slot.shape)]
        assert sorted(slots) == sorted(shapes * copies), name


def test_features_computed_once_train_the_same_teacher(encoder, monkeypatch):
    lars = OptimizerSettings(learning_rate=0.5)
    settings = SETTINGS.model_copy(update={"optimizer": lars, "epochs": 2})
    train, held_out = people(9, seed=2), people(12, seed=3)
    frozen = values(encoder.model.backbone)

    def train_once():
        return finetune(
            settings, train, held_out, classes=CLASSES, base=encoder, workspace=Workspace()
        )

    cached = train_once()
    monkeypatch.setattr(stage, "features_are_constant", lambda settings: False)
    computed = train_once()
    for one, other in zip(values(cached.model), values(computed.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    for one, other in zip(cached.history, computed.history, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_macro_auc"):
            assert one[name] == pytest.approx(other[name], abs=1e-4), name
    for trained in (cached, computed):
        assert not any(changed(frozen, trained.model.backbone))
    assert any(changed(values(beginning(settings, CLASSES, encoder).head), cached.model.head))


@pytest.mark.slow
def test_a_training_on_cached_features_resumes(encoder, tmp_path):
    train, held_out = people(9, seed=2), people(12, seed=3)

    def train_on(workspace: Workspace):
        return finetune(
            SETTINGS, train, held_out, classes=CLASSES, base=encoder, workspace=workspace
        )

    class Killed(Exception):
        pass

    def kill(name, epoch, epochs, metrics):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train_on(Workspace(checkpoints=tmp_path / "states", progress=kill))
    state = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    told = []
    resumed = train_on(
        Workspace(tmp_path / "states", progress=lambda name, epoch, *_: told.append(epoch))
    )
    whole = train_on(Workspace())
    assert told == [3, 4]
    for one, other in zip(values(resumed.model), values(whole.model), strict=True):
        np.testing.assert_array_equal(one, other)
    # What a state holds is what trains, not the backbone.
    assert state < sum(value.nbytes for value in values(encoder.model.backbone))


def test_says_when_frozen_features_cannot_be_cached(caplog):
    with caplog.at_level(logging.INFO):
        assert not stage.features_are_constant(SETTINGS.model_copy(update={"augmentation": "mri"}))
    assert "augmentation 'mri' shows it new views" in caplog.text
    assert stage.features_are_constant(SETTINGS)
    assert not stage.features_are_constant(SETTINGS.model_copy(update={"fine_tune_after_block": 3}))


@pytest.mark.parametrize(
    ("classes", "selector", "kept"),
    [
        (CLASSES, 1, True),
        (CLASSES, 0, False),  # the head stood on another layer
        pytest.param(CLASSES, 2, False, marks=pytest.mark.slow),
        (CLASSES[::-1], 1, False),  # the same number of outputs, with other meanings
        ((*CLASSES, "huge"), 1, False),
    ],
)
def test_a_head_is_kept_where_it_means_the_same(teacher, classes, selector, kept):
    settings = SETTINGS.model_copy(update={"ft_proj_selector": selector})
    begun = beginning(settings, classes, teacher)
    assert not any(changed(values(teacher.model.backbone), begun.backbone))
    if selector:
        assert not any(changed(values(teacher.model.projection), begun.projection))
    same = begun.head.kernel.shape == teacher.model.head.kernel.shape and np.array_equal(
        begun.head.kernel, teacher.model.head.kernel
    )
    assert same == kept
    assert begun.head.kernel.shape[1] == len(classes)


def test_refuses_projection_layers_that_the_base_model_lacks():
    architecture = TeacherArchitecture(backbone=BACKBONE, ft_proj_selector=0, classes=3)
    with pytest.raises(StageError, match="Choose 0: it has no such head"):
        beginning(SETTINGS, CLASSES, base_of("teacher", architecture, CLASSES))


def test_refuses_to_freeze_random_weights():
    settings = SETTINGS.model_copy(update={"backbone": BACKBONE})
    with pytest.raises(StageError, match="they would stay random"):
        beginning(settings, CLASSES, None)


@pytest.mark.slow
def test_rare_classes_weigh_as_much_with_logit_adjustment(encoder):
    """Twenty people of class 0 look like two of class 1: without adjustment all are class 0."""
    random = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], [20, 2, 2]).astype(np.int32)
    shown = np.where(labels == 2, 2, 0)
    images = np.stack([draw_blob(int(kind), random) for kind in shown])
    examples = Examples(images, labels, None)
    logits = {}
    for imbalance in ("none", "logit_adjustment"):
        settings = SETTINGS.model_copy(
            update={"imbalance": imbalance, "epochs": 60, "batch_size": 24, "calibrate": False}
        )
        trained = finetune(
            settings, examples, examples, classes=CLASSES, base=encoder, workspace=Workspace()
        )
        logits[imbalance] = trained.model(np.float32(images) / 255, training=False).numpy()
    lead = {
        name: float((found[:, 0] - found[:, 1])[labels < 2].mean())
        for name, found in logits.items()
    }
    # At the optimum log 10 apart (see test_logit_adjustment.py), here on the way there.
    assert lead["none"] - lead["logit_adjustment"] > np.log(10) / 4
