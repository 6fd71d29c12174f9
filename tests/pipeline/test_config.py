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
        ("execution.stategy=mirrored", "Did you mean 'pretrain.execution.strategy'"),
        ("pretrain=null", "nothing to fine-tune"),
        ("name=__import__('os')", "pattern"),
    ],
)
def test_mistakes_are_explained(assignment, words):
    with pytest.raises(ConfigError, match=r".") as caught:
        with_overrides(presets.load("quickstart"), [assignment])
    assert words in str(caught.value)


def test_unknown_preset_lists_the_known():
    with pytest.raises(CortexflowError, match="quickstart"):
        presets.load("quickstrat")
