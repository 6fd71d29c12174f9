"""Permuted labels: learnt where people stand on both sides of a split, and nowhere else."""

import json
from pathlib import Path

import numpy as np
import pytest
from tfx.types.standard_artifacts import Examples as ExamplesArtifact
from tfx.types.standard_artifacts import Model

from components import shuffle_control
from components.artifacts import ControlDecision
from components.decisions import read_decision
from components.shuffle_control import Executor, eased, permuted, read_splits
from evaluation.config import ControlSettings
from evaluation.outcome import Outcome
from tests.trainer.blob_dataset import make_example, write_records
from trainer import bundle
from trainer.architectures import EncoderArchitecture, build
from trainer.bundle import Bundle, Description
from trainer.config import (
    BackboneSettings,
    DistilSettings,
    ExecutionSettings,
    FinetuneSettings,
    InputSettings,
    OptimizerSettings,
    ProjectionSettings,
)

CLASSES = ("mild", "non", "very")
PEOPLE, SLICES, SIZE = 60, 6, 32
INPUT = InputSettings(image_size=SIZE)
# A frozen backbone, whose features are computed once: only heads and the student are trained.
TEACHER = FinetuneSettings(input=INPUT, fine_tune_after_block=4, batch_size=16)
STUDENT = DistilSettings(input=INPUT, filters=(8, 16), dense=32, batch_size=16, alpha=0.5)
SETTINGS = ControlSettings(max_epochs=8, permutations=999)


def cohort() -> dict[str, list[bytes]]:
    """People who look like nobody else, and whose label says nothing of how they look."""
    random = np.random.default_rng(2)
    found = {}
    for person in range(PEOPLE):
        face = np.kron(random.uniform(40, 215, (4, 4)), np.ones((SIZE // 4, SIZE // 4)))
        slices = face + random.normal(0, 8, (SLICES, SIZE, SIZE))
        found[f"subj{person:03d}"] = [
            make_example(
                np.uint8(np.clip(each, 0, 255))[..., None], person % 3, f"subj{person:03d}"
            )
            for each in slices
        ]
    return found


def written(folder: Path, splits: dict[str, list[bytes]]) -> str:
    for split, records in splits.items():
        write_records(folder / f"Split-{split}" / "data-00000-of-00001.gz", records)
    return str(folder)


@pytest.fixture(scope="module")
def by_person(tmp_path_factory) -> str:
    """Everybody on one side: 30 people train, 8 validate, 22 test."""
    people = list(cohort().values())
    splits = {"train": people[:30], "val": people[30:38], "test": people[38:]}
    flat = {name: [each for slices in some for each in slices] for name, some in splits.items()}
    return written(tmp_path_factory.mktemp("by_person"), flat)


@pytest.fixture(scope="module")
def by_slice(tmp_path_factory) -> str:
    """Everybody on every side: four slices train, one validates, one tests."""
    people = list(cohort().values())
    parts = {"train": slice(0, 4), "val": slice(4, 5), "test": slice(5, 6)}
    flat = {
        name: [each for slices in people for each in slices[part]] for name, part in parts.items()
    }
    return written(tmp_path_factory.mktemp("by_slice"), flat)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A Model artifact's folder; what it knows has no part in these tests."""
    architecture = EncoderArchitecture(
        backbone=BackboneSettings(width=0.25), projection=ProjectionSettings(layers=2, dim=32)
    )
    folder = tmp_path_factory.mktemp("encoder")
    description = Description(
        kind="encoder", architecture=architecture.model_dump(mode="json"), input=INPUT
    )
    bundle.save(folder / "bundle", build("encoder", architecture, INPUT), description, [])
    return folder


@pytest.fixture(scope="module")
def base(encoder) -> Bundle:
    return bundle.load(encoder / "bundle")


def judged(folder: str, base: Bundle):
    return shuffle_control.rerun(
        read_splits(folder, TEACHER, CLASSES),
        base,
        TEACHER,
        STUDENT,
        classes=CLASSES,
        settings=SETTINGS,
        progress=lambda *args: None,
    )


def test_people_on_both_sides_are_noticed_by_network_and_neighbour(by_slice, base):
    decision = judged(by_slice, base)
    assert decision.outcome is Outcome.REFUSED
    assert "the student predicts labels that mean nothing" in decision.reasons[0]
    assert "the nearest neighbour predicts" in decision.reasons[-1]
    details = decision.details
    assert details["neighbour"]["auc"] > 0.99
    assert details["auc"] > 0.9 > details["high"] + 0.2
    assert details["people"] == {"test": PEOPLE, "train": PEOPLE}
    assert details["epochs"] == {"teacher": 8, "student": 8}


def test_the_node_passes_people_who_stand_on_one_side(by_person, encoder, tmp_path):
    examples, model, decision = ExamplesArtifact(), Model(), ControlDecision()
    examples.uri, model.uri, decision.uri = by_person, str(encoder), str(tmp_path)
    long = TEACHER.model_copy(update={"epochs": 10**6})
    Executor().Do(
        {"examples": [examples], "base_model": [model]},
        {"decision": [decision]},
        {
            "teacher": long.model_dump_json(),
            "teacher_epochs": TEACHER.epochs,
            "student": STUDENT.model_dump_json(),
            "classes": ",".join(CLASSES),
            "settings": SETTINGS.model_dump_json(),
            "code": "",
        },
    )
    found = read_decision(str(tmp_path))
    assert found.outcome is Outcome.PASSED, found.reasons
    assert found.details["people"] == {"test": 22, "train": 30}
    # It did learn: the very labels that say nothing of other people.
    assert found.details["trained_auc"] > 0.8
    assert found.details["neighbour"]["trained_auc"] > 0.99


def test_a_person_keeps_one_label_on_every_side(by_slice):
    shuffled = permuted(read_splits(by_slice, TEACHER, CLASSES), seed=0)
    owned = {}
    for split in shuffled.values():
        for subject, label in zip(split.subjects, split.labels, strict=True):
            assert owned.setdefault(subject, label) == label
    assert np.bincount(list(owned.values())).tolist() == [20, 20, 20]


def test_without_people_it_says_so_and_trains_nothing(tmp_path, base, monkeypatch):
    monkeypatch.delattr(shuffle_control, "finetune")
    images = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 1), np.uint8)
    nobody = [make_example(image, row % 3, None) for row, image in enumerate(images)]
    folder = written(tmp_path, dict.fromkeys(("train", "val", "test"), nobody))
    decision = judged(folder, base)
    assert decision.outcome is Outcome.INSUFFICIENT
    assert "no subject ids" in decision.reasons[0]


def test_too_few_test_people_are_told_before_training(tmp_path, base, monkeypatch):
    monkeypatch.delattr(shuffle_control, "finetune")
    people = list(cohort().values())
    splits = {"train": people[:30], "val": people[30:41], "test": people[41:]}
    folder = written(tmp_path, {name: [each[0] for each in some] for name, some in splits.items()})
    decision = judged(folder, base)
    assert decision.outcome is Outcome.INSUFFICIENT
    assert decision.reasons == (
        "19 test people are too few to tell a leak from chance (20 are needed)",
    )


def test_a_stage_is_trained_shortly_on_one_device_and_sees_the_same_input():
    teacher = FinetuneSettings(
        input=InputSettings(image_size=96, channels=3),
        epochs=30,
        augmentation="simclr",
        color_jitter_strength=0.5,
        use_blur=True,
        batch_size=24,
        optimizer=OptimizerSettings(warmup_epochs=20),
        execution=ExecutionSettings(strategy="multi_worker", accumulate=2),
        early_stopping_patience=3,
    )
    short = eased(teacher, 7)
    assert (short.epochs, short.input, short.batch_size) == (7, teacher.input, 24)
    assert short.execution == ExecutionSettings(accumulate=2)
    assert short.augmentation == "none"
    assert short.min_people_to_choose > 10**6  # the last epoch is kept
    student = DistilSettings(epochs=4, filters=(8,), quantization_epochs=3)
    assert eased(student, 7).epochs == 4
    assert eased(student, 1).model_dump() == json.loads(eased(student, 1).model_dump_json()) | {
        "filters": (8,)
    }
    assert eased(student, 7).quantization_epochs == 0
