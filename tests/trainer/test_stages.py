"""Each stage end to end, as TFX calls it, on blobs that a small network tells apart in seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from blob_dataset import CLASSES, blob_split, fn_args

from trainer import bundle, examples, metrics, preprocessing, validation
from trainer.config import (
    BackboneSettings,
    DistilSettings,
    FinetuneSettings,
    InputSettings,
    LiteRTSettings,
    OptimizerSettings,
    PretrainSettings,
)
from trainer.errors import BundleError, StageError, TrainingDataError, TrainingDiverged
from trainer.litert import CHECK, FLOAT, INT8
from trainer.loop import Workspace
from trainer.run_fn import run_fn
from trainer.stages.finetune import finetune

INPUT = InputSettings(image_size=32)
BACKBONE = BackboneSettings(width=0.125)
ADAMW = OptimizerSettings(name="adamw", learning_rate=3e-3)
PRETRAIN = PretrainSettings(
    input=INPUT, backbone=BACKBONE, epochs=2, batch_size=32,
    optimizer=OptimizerSettings(learning_rate=0.5),
)  # fmt: skip
FINETUNE = FinetuneSettings(
    input=INPUT, epochs=8, batch_size=16, augmentation="none", ft_proj_selector=1, optimizer=ADAMW
)
DISTIL = DistilSettings(
    input=INPUT, epochs=15, batch_size=16, augmentation="none", filters=(8, 16), dense=16,
    optimizer=OptimizerSettings(name="adamw", learning_rate=1e-2),
    litert=LiteRTSettings(int8_min_agreement=0.8),
)  # fmt: skip


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "bundle" / "history.json").read_text())


def serving(folder: Path) -> str:
    return str(folder / "Format-Serving")


@pytest.fixture(scope="module")
def chain(blobs, tmp_path_factory) -> dict[str, Path]:
    """Artifacts of the three stages, each on top of the one before."""
    root = tmp_path_factory.mktemp("chain")
    train, everything = [blobs.train], [blobs.train, blobs.unlabelled]
    plan = (
        ("encoder", PRETRAIN, everything, None),
        ("teacher", FINETUNE, train, "encoder"),
        ("student", DISTIL, everything, "teacher"),
    )
    for name, settings, files, base in plan:
        args = fn_args(
            root / name, settings, files, [blobs.val], base and serving(root / base),
            checkpoint_root=str(root / "checkpoints"),
        )  # fmt: skip
        run_fn(args)
    return {name: root / name for name, *_ in plan}


@pytest.fixture(scope="module")
def held_out(blobs) -> examples.Examples:
    return examples.read([blobs.val], INPUT, CLASSES)


def test_history_tells_loss_rate_and_speed_of_every_epoch(chain):
    for name, settings in (("encoder", PRETRAIN), ("teacher", FINETUNE), ("student", DISTIL)):
        epochs = history(chain[name])
        assert [entry["epoch"] for entry in epochs] == list(range(1, settings.epochs + 1))
        for entry in epochs:
            assert {"loss", "lr", "seconds", "images_per_second"} <= set(entry)
            assert np.isfinite(entry["loss"])


def test_pretraining_watches_for_collapse(chain):
    for entry in history(chain["encoder"]):
        assert 0.0 <= entry["contrastive_accuracy"] <= 1.0
        assert 0.02 < entry["embedding_std"] < 1.1


def test_pretrained_encoder_is_served_as_embeddings(chain, held_out):
    model = tf.saved_model.load(serving(chain["encoder"]))
    outputs = model.signatures["serving_default"].structured_outputs
    assert outputs["embeddings"].shape[1] == 64  # 512 filters of the last group, times 0.125


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_classifiers_rank_people_they_never_saw(chain, held_out, name):
    model = bundle.load(chain[name] / "bundle", kind=name).model
    logits = validation.predictor(model)(held_out.images)
    _, probabilities, labels = metrics.aggregate_by_subject(
        np.exp(validation.log_softmax(logits)), held_out.labels, held_out.subjects
    )
    area = metrics.macro_auc(probabilities, labels)
    assert area > 0.95
    assert area == pytest.approx(max(e["val_macro_auc"] for e in history(chain[name])))


def test_student_answers_as_the_teacher_does(chain, held_out):
    answers = [
        validation.predictor(bundle.load(chain[name] / "bundle").model)(held_out.images).argmax(1)
        for name in ("teacher", "student")
    ]
    assert np.mean(answers[0] == answers[1]) > 0.85
    agreements = [entry["teacher_agreement"] for entry in history(chain["student"])]
    assert agreements[-1] > agreements[0]


def test_tensorboard_and_one_state_per_stage_remain(chain):
    for folder in chain.values():
        assert list((folder / "run").glob("events.out.tfevents.*"))
    states = (next(iter(chain.values())).parent / "checkpoints").iterdir()
    assert sorted(path.name.split("-")[0] for path in states) == ["distil", "finetune", "pretrain"]


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_both_signatures_give_what_was_trained(chain, blobs, name):
    served = tf.saved_model.load(serving(chain[name]))
    records = tf.data.TFRecordDataset(examples.match([blobs.val]), "GZIP").batch(100)
    serialized = next(iter(records))
    images = tf.io.parse_example(serialized, {"image": tf.io.FixedLenFeature([], tf.string)})
    by_example = served.signatures["serving_default"](examples=serialized)
    by_image = served.signatures["predict_images"](images=images["image"])
    for output in ("probabilities", "logits"):
        np.testing.assert_array_equal(by_example[output], by_image[output])
    assert by_image["probabilities"].dtype == tf.float32
    np.testing.assert_allclose(by_image["probabilities"].numpy().sum(axis=1), 1.0, atol=1e-5)
    kept = bundle.load(chain[name] / "bundle")
    decoded = preprocessing.decode(images["image"], kept.description.input).numpy()
    trained = validation.predictor(kept.model)(decoded)
    np.testing.assert_allclose(by_image["logits"], trained, atol=1e-4)
    assert [text.decode() for text in served.class_names.numpy()] == list(CLASSES)


def test_litert_files_pass_their_check(chain):
    folder = chain["student"] / "Format-Serving" / "litert"
    report = json.loads((folder / CHECK).read_text())
    assert report[FLOAT]["max_difference"] < 1e-4
    assert report[FLOAT]["images"] == 45
    assert report[INT8]["mean_difference"] < 0.03
    assert report[INT8]["bytes"] < (folder / FLOAT).stat().st_size


def test_labels_that_images_cannot_tell_teach_nothing(tmp_path):
    train = blob_split(tmp_path, "train", 30, informative=False)
    val = blob_split(tmp_path, "val", 63, slices=1, informative=False)
    settings = FINETUNE.model_copy(
        update={"backbone": BACKBONE, "ft_proj_selector": 0, "epochs": 4}
    )
    seen, unseen = (examples.read([split], INPUT, CLASSES) for split in (train, val))
    taught = finetune(
        settings, seen, unseen, classes=CLASSES, base=None, workspace=Workspace(tmp_path)
    )
    areas = [entry["val_macro_auc"] for entry in taught.history]
    assert len(areas) == 4
    assert np.mean(areas) == pytest.approx(0.5, abs=0.15)


def test_an_unusable_learning_rate_ends_with_its_reason(tmp_path, blobs):
    settings = FINETUNE.model_copy(
        update={
            "backbone": BACKBONE, "ft_proj_selector": 0,
            "optimizer": OptimizerSettings(name="sgd", learning_rate=1e30),
        }
    )  # fmt: skip
    with pytest.raises(TrainingDiverged, match=r"loss is nan .* Lower optimizer.learning_rate"):
        run_fn(fn_args(tmp_path, settings, [blobs.train], [blobs.val]))
    assert not (tmp_path / "Format-Serving").exists()


@pytest.mark.slow  # tests/trainer/test_finetune.py asks the same of the stage alone
def test_a_head_for_other_classes_starts_anew(chain, blobs, tmp_path):
    args = fn_args(
        tmp_path, FINETUNE.model_copy(update={"epochs": 1}), [blobs.train], [blobs.val],
        serving(chain["teacher"]), classes=json.dumps([*CLASSES, "huge"]),
    )  # fmt: skip
    run_fn(args)
    model = bundle.load(tmp_path / "bundle").model
    assert model.head.kernel.shape[1] == 4


@pytest.mark.parametrize(
    ("settings", "base", "error", "message"),
    [
        (FINETUNE, None, StageError, "needs `backbone`"),
        (FINETUNE.model_copy(update={"backbone": BackboneSettings()}), "encoder", StageError,
         "this stage asks for"),
        (FINETUNE.model_copy(update={"ft_proj_selector": 9}), "encoder", StageError,
         "Choose 0 to 3"),
        (FINETUNE.model_copy(update={"input": InputSettings(image_size=48)}), "encoder",
         StageError, "same input"),
        (FINETUNE, "student", StageError, "received a student"),
        (DISTIL, None, StageError, "needs a teacher"),
        (DISTIL, "encoder", StageError, "received a encoder"),
        (DISTIL, "absent", BundleError, "No sound model bundle"),
        (PRETRAIN.model_copy(update={"augmentation": "none"}), None, TrainingDataError,
         "two different views"),
    ],
)  # fmt: skip
def test_refuses_what_does_not_fit(chain, blobs, tmp_path, settings, base, error, message):
    origin = base and serving(chain.get(base, tmp_path / "absent"))
    with pytest.raises(error, match=message):
        run_fn(fn_args(tmp_path, settings, [blobs.train], [blobs.val], origin))


def test_refuses_a_teacher_of_other_classes(chain, blobs, tmp_path):
    args = fn_args(
        tmp_path, DISTIL, [blobs.train], [blobs.val], serving(chain["teacher"]),
        classes=json.dumps(["x", "y", "z"]),
    )  # fmt: skip
    with pytest.raises(StageError, match="Train the teacher on this dataset first"):
        run_fn(args)


def test_refuses_validation_on_one_class(tmp_path, blobs):
    one = blob_split(tmp_path, "val", 1)
    settings = FINETUNE.model_copy(update={"backbone": BACKBONE, "ft_proj_selector": 0})
    with pytest.raises(TrainingDataError, match="one class"):
        run_fn(fn_args(tmp_path, settings, [blobs.train], [one]))


def test_refuses_a_job_without_settings(tmp_path, blobs):
    args = fn_args(tmp_path, FINETUNE, [blobs.train], [blobs.val], stage=None)
    with pytest.raises(StageError, match="lacks \\['stage'\\]"):
        run_fn(args)
