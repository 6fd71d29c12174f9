"""Students of other kinds: the teacher's own network, the predecessor's, one trained for int8."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from blob_dataset import CLASSES, SIZE, fn_args
from pydantic import ValidationError

from trainer import architectures, bundle, examples, litert, validation
from trainer.architectures import StudentArchitecture, TeacherArchitecture
from trainer.bundle import Bundle, Description
from trainer.config import (
    BackboneSettings,
    DistilSettings,
    ExecutionSettings,
    InputSettings,
    LiteRTSettings,
    ProjectionSettings,
)
from trainer.litert import CHECK, FLOAT, INT8
from trainer.preprocessing import scale
from trainer.run_fn import run_fn
from trainer.stages import distil

INPUT = InputSettings(image_size=SIZE)
ARCHITECTURE = TeacherArchitecture(
    backbone=BackboneSettings(width=0.0625), projection=ProjectionSettings(dim=16),
    ft_proj_selector=1, classes=len(CLASSES),
)  # fmt: skip
# Wiring is tested here, not learning: the teacher is a random one that tells blobs apart.
SETTINGS = DistilSettings(
    input=INPUT, epochs=2, batch_size=32, augmentation="none", filters=(8, 16), dense=16,
    litert=LiteRTSettings(
        calibration_images=30, int8_min_agreement=0.001, int8_max_mean_difference=1.0
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def teacher(blobs, tmp_path_factory):
    """A teacher's SavedModel folder, the bundle beside it."""
    folder = tmp_path_factory.mktemp("teacher")
    model = architectures.build("teacher", ARCHITECTURE, INPUT, seed=5)
    levels = examples.read([blobs.train], INPUT, CLASSES).images
    answers = validation.predictor(model)(levels)
    model.head.kernel.assign(model.head.kernel / answers.std(axis=0))
    model.head.bias.assign(-answers.mean(axis=0) / answers.std(axis=0))
    description = Description(
        kind="teacher", architecture=ARCHITECTURE.model_dump(mode="json"), input=INPUT,
        classes=CLASSES,
    )  # fmt: skip
    bundle.save(folder / "bundle", model, description, [])
    return str(folder / "Format-Serving")


def changed(**changes) -> DistilSettings:
    of_a_cnn = {"filters", "dense"} if changes.get("network") == "teacher" else set()
    return DistilSettings.model_validate({**SETTINGS.model_dump(exclude=of_a_cnn), **changes})


def distilled(folder, teacher: str, blobs, **changes):
    settings = changed(**changes)
    run_fn(fn_args(folder, settings, [blobs.train, blobs.unlabelled], [blobs.val], teacher))
    report = json.loads((folder / "Format-Serving" / "litert" / CHECK).read_text())
    return bundle.load(folder / "bundle"), report


@pytest.mark.slow
def test_a_student_of_the_teachers_own_network(blobs, tmp_path, teacher):
    student, report = distilled(tmp_path, teacher, blobs, network="teacher")
    origin = bundle.load(bundle.beside(teacher))
    assert student.description.kind == "teacher"
    assert student.model.architecture == ARCHITECTURE
    kernels = [model.backbone.stem.convs[0].kernel for model in (student.model, origin.model)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01  # learnt from scratch, not copied
    assert report[FLOAT]["max_difference"] < 1e-4
    assert report[INT8]["bytes"] < report[FLOAT]["bytes"]
    served = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    assert served.signatures["predict_images"].structured_outputs["probabilities"].shape[1] == 3


def test_training_for_int8_changes_one_file_only(blobs, tmp_path, teacher):
    student, report = distilled(tmp_path, teacher, blobs, quantization_epochs=2)
    assert [entry["epoch"] for entry in student.history] == [1, 2]
    assert report[FLOAT]["max_difference"] < 1e-4  # of the SavedModel
    before, after = report[INT8].pop("post_training"), report[INT8]
    assert {"agreement", "mean_difference", "max_difference", "images"} == set(before)
    assert after["mean_difference"] != before["mean_difference"]
    levels = examples.read([blobs.val], INPUT, CLASSES).images
    content = (tmp_path / "Format-Serving" / "litert" / FLOAT).read_bytes()
    logits = validation.predictor(student.model)(levels) / student.description.temperature
    received = litert.predict(content, levels.astype(np.float32) / 255)
    assert np.abs(received - np.exp(validation.log_softmax(logits))).max() < 1e-4


@pytest.mark.parametrize("name", [FLOAT, INT8])
def test_litert_files_apply_the_temperature(name):
    model = architectures.build("student", StudentArchitecture(filters=(4, 8), dense=8, classes=3),
                                INPUT)  # fmt: skip
    levels = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE, 1)).astype(np.uint8)
    model.logits.kernel.assign(model.logits.kernel * 20)
    images = levels.astype(np.float32) / 255
    files = litert.convert(model, INPUT, levels, temperature=2.5)
    wanted = tf.nn.softmax(model(images) / 2.5).numpy()
    plain = tf.nn.softmax(model(images)).numpy()
    received = litert.predict(files[name], images)
    assert np.abs(received - wanted).max() < (1e-5 if name == FLOAT else 0.03)
    assert np.abs(plain - wanted).max() > 0.1


def test_the_student_of_the_public_notebooks():
    architecture = StudentArchitecture(
        filters=(64, 128, 256), dense=512, classes=4, pools=(4, 4, 1), cells=1
    )
    colour = InputSettings(image_size=224, channels=3)
    model = architectures.build("student", architecture, colour)
    redundant = 64 + 128 + 256  # biases before a normalisation
    assert model.count_params() == 506_244 - redundant


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "teacher", "quantization_epochs": 1}, "trains a cnn only"),
        ({"pools": (2,)}, "one entry for each of filters"),
        ({"pools": (8, 8)}, "leaves nothing of"),
    ],
)
def test_refuses_students_that_cannot_be(changes, message):
    with pytest.raises(ValidationError, match=message):
        changed(**changes)


def test_the_teacher_is_held_twice_only_where_replicas_need_it(monkeypatch):
    build, made = architectures.build, []

    def recorded(*arguments, **settings):
        made.append(build(*arguments, **settings))
        return made[-1]

    base = Bundle(build("teacher", ARCHITECTURE, INPUT, seed=5), None, (), "")
    monkeypatch.setattr(architectures, "build", recorded)
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, (3, SIZE, SIZE, 1), dtype=np.uint8)
    shown = examples.Examples(levels, np.zeros(3, np.int32), None)
    wanted = validation.predictor(base.model)(levels)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    for augmentation in ("none", "mri"):
        for name in ("none", "mirrored"):
            settings = DistilSettings(
                augmentation=augmentation,
                execution=ExecutionSettings(strategy=name, precision="bfloat16"),
            )
            answer = distil._answers(settings, shown, base, SimpleNamespace(strategy=strategy))
            answers = answer(tf.range(3), scale(levels))
            assert answers.dtype == tf.float32
            np.testing.assert_allclose(answers, wanted, rtol=1e-5, atol=1e-5)
            assert len(made) == (augmentation == "mri" and name == "mirrored")
