"""Settings: overrides, errors that help, data only."""

import pytest

from pipeline import presets
from pipeline.config import ConfigError, with_overrides
from schema.errors import CortexflowError


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_valid_and_described(name):
    assert presets.load(name).name == name
    assert f"cortexflow run {name}" in presets.describe(name)


def test_overrides_are_typed_and_leave_the_preset_alone():
    preset = presets.load("quickstart")
    config = with_overrides(preset, ["teacher.epochs=5", "data.source=/x=y", "pretrain=null",
                                     'teacher.backbone={"depth": 18, "width": 0.5}'])  # fmt: skip
    assert config.teacher.epochs == 5
    assert config.data.source == "/x=y"
    assert config.pretrain is None
    assert config.teacher.backbone.width == 0.5
    assert presets.load("quickstart") == preset


def test_shared_input_reaches_all_stages():
    config = with_overrides(presets.load("quickstart"), ["input.image_size=96"])
    sizes = {stage.input.image_size for stage in (config.pretrain, config.teacher, config.student)}
    assert sizes == {96}


def test_shared_execution_reaches_all_stages_that_there_are():
    config = with_overrides(
        presets.load("quickstart"),
        ["execution.precision=bfloat16", "teacher.execution.precision=float32"],
    )
    precisions = [s.execution.precision for s in (config.pretrain, config.teacher, config.student)]
    assert precisions == ["bfloat16", "float32", "bfloat16"]


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("teacher.epoch=5", "Did you mean 'teacher.epochs'"),
        ("teacher", "key=value"),
        ("teacher.epochs=-1", "greater than 0"),
        ("teacher.epochs=many", "received 'many'"),
        ("gate.macro_auc_floor=1.5", "less than or equal to 1"),
        ("student.input.image_size=32", "must be equal"),
        ("execution.stategy=mirrored", "Did you mean 'execution.strategy'"),
        ("pretrain=null", "nothing to fine-tune"),
        ("name=__import__('os')", "pattern"),
    ],
)
def test_mistakes_are_explained(assignment, words):
    with pytest.raises(ConfigError, match=r".") as caught:
        with_overrides(presets.load("quickstart"), [assignment])
    assert words in str(caught.value)


SCRATCH = ("pretrain=null", 'teacher.backbone={"width": 0.25}')


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["teacher.ft_proj_selector=4"], "pretrain.projection.layers=3"),
        (["execution.replicas=2"], "mirrored alone (received strategy=none)"),
        (
            ["teacher.batch_size=33", "execution.accumulate=2"],
            "teacher: batch_size=33 does not divide by 1 replica(s) × 2",
        ),
        (
            ["execution.strategy=mirrored", "execution.replicas=3"],
            "teacher, student: batch_size=32 does not divide by 3 replica(s) × 1 accumulated "
            "part(s). Set it to 30 or 33",
        ),
        ([*SCRATCH, "teacher.fine_tune_after_block=0"], "they would stay random"),
        (['teacher.backbone={"width": 0.5}'], "is not pretrain.backbone"),
        (["pretrain.batch_size=1"], "received batch_size=1 and"),
        (["pretrain.batch_size=4", "execution.accumulate=4"], "execution.accumulate=4). Raise"),
        (["pretrain.augmentation=none"], "two different views"),
        (["teacher.optimizer.rho=0.1"], "no effect with sharpness='none' (received rho=0.1)"),
        (
            ["execution.strategy=mirrored", "execution.replicas=2", "execution.xla=true"],
            "strategy=mirrored and 2 replicas): XLA cannot",
        ),
        (["execution.strategy=multi_worker", "execution.xla=true"], "strategy=multi_worker): XLA"),
        (["student.network=teacher", "student.cells=2"], "cells describe(s) a cnn only"),
        (["student.network=teacher", "student.dense=8", "student.pools=[1,1,1]"],
         "dense and pools"),
        (["teacher.execution.strategy=mirrored"], "must be equal for all stages"),
        (
            ["execution.strategy=mirrored", "pretrain.execution.replicas=2"],
            "pretrain: mirrored, replicas=2, teacher: mirrored, replicas=None",
        ),
        (["pretrain=null", "checkpoint=c", "input.image_size=16"], "Set input.image_size=32 or"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused_before_anything_runs(assignments, words):
    with pytest.raises(ConfigError) as caught:
        with_overrides(presets.load("quickstart"), assignments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "assignments",
    [
        ["teacher.ft_proj_selector=3"],
        ["execution.strategy=mirrored", "execution.replicas=2", "execution.accumulate=4"],
        ["execution.strategy=mirrored", "execution.xla=true"],  # of one GPU, perhaps
        ["pretrain.batch_size=8", "execution.accumulate=4"],
        ["pretrain=null", "checkpoint=c", "teacher.fine_tune_after_block=4"],
        SCRATCH,
        ["student.optimizer.sharpness=sam", "student.optimizer.rho=0.1"],
        ["student.network=teacher"],
        ["student.execution.precision=bfloat16", "teacher.execution.accumulate=2"],
    ],
)
def test_settings_that_go_together_are_taken(assignments):
    with_overrides(presets.load("quickstart"), assignments)


def test_what_all_stages_get_wrong_is_told_once():
    with pytest.raises(ConfigError) as caught:
        with_overrides(presets.load("quickstart"), ["execution.accumulate=0", "teacher.seed=-1"])
    message = str(caught.value)
    assert message.count("execution.accumulate") == 1
    assert "valid: execution.accumulate: Input" in message
    assert "; teacher.seed: Input should be greater" in message


def test_unknown_preset_lists_the_known():
    with pytest.raises(CortexflowError, match="quickstart"):
        presets.load("quickstrat")


def test_a_password_in_an_address_is_refused_and_not_repeated():
    address = "mysql://me:hunter2@h/db"  # pragma: allowlist secret
    with pytest.raises(CortexflowError, match="CORTEXFLOW_METADATA_PASSWORD") as told:
        with_overrides(presets.load("mri"), [f"metadata={address}"])
    assert "hunter2" not in str(told.value)
