"""What a version must show before it takes traffic, and what it answers then."""

import asyncio
import io

import numpy as np
import pytest
from tiny_models import CLASSES, IMAGES, NAME, WHY, ask, card, golden, running, variant

from registry.serving_config import ModelConfig
from serving.config import ServerSettings
from serving.loading import Loader, compare, read_golden
from serving.runtime import LoadError
from trainer.golden import GoldenError


def loader(registry, **changed) -> Loader:
    return Loader(ServerSettings(registry=registry.root, **changed), workers=2)


def entry(registry) -> ModelConfig:
    return ModelConfig(NAME, str(registry.root / NAME), (), {})


@pytest.mark.parametrize("runtime", ["litert-int8", "litert-float", "savedmodel"])
def test_all_runtimes_answer_as_the_exported_model(registry, exported, runtime):
    async def session():
        async with running(registry, runtime=runtime) as engine:
            return await engine.predict(ask(IMAGES)), engine.metadata(NAME)

    answer, metadata = asyncio.run(session())
    wanted = np.load(exported["b"].with_suffix(".npy"))
    allowed = {"litert-int8": 0.05, "litert-float": 1e-4, "savedmodel": 1e-5}[runtime]
    np.testing.assert_allclose(answer.outputs["probabilities"], wanted, atol=allowed)
    apart = np.abs(wanted[:, None] - wanted).max(2) + np.eye(len(wanted))
    assert apart.min() > 2e-4  # a row in the wrong place shows, but for int8
    assert (answer.version, tuple(answer.classes)) == (2, CLASSES)
    assert set(answer.outputs) == set(metadata.outputs)
    assert ("logits" in metadata.outputs) == (runtime == "savedmodel")


def test_without_serving_json_the_savedmodel_answers(registry, exported, tmp_path):
    folder = variant(exported["a"], tmp_path / "older")
    for name in ("serving.json", "golden.npz"):
        (folder / name).unlink()
    version = registry.push(folder, **WHY)
    loaded = loader(registry).load(entry(registry), version.number)
    assert loaded.runtime.name == "savedmodel"
    assert (tuple(loaded.runtime.classes), loaded.runtime.channels) == (CLASSES, 1)
    assert "not checked" in loaded.note


def test_a_golden_batch_is_checked_and_its_absence_is_told(registry, exported, tmp_path):
    assert loader(registry).load(entry(registry), 2).note == ""
    folder = variant(exported["a"], tmp_path / "plain")
    (folder / "golden.npz").unlink()
    version = registry.push(folder, **WHY)
    assert "not checked" in loader(registry).load(entry(registry), version.number).note


def wrong_answers(folder):
    flat = np.full((4, 4), 0.25, np.float32)
    golden(folder, {"probabilities": flat, "int8": flat})


def damaged_golden(folder):
    (folder / "golden.npz").write_bytes(b"PK\x03\x04 no archive")


def pickled_golden(folder):
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([{}], object), lengths=np.array([1]))
    (folder / "golden.npz").write_bytes(buffer.getvalue())


def no_card(folder):
    (folder / "serving.json").write_text("{")


def other_shape(folder):
    card(folder, input={"image_size": 64, "channels": 1})


def other_classes(folder):
    card(folder, classes=["Mild", "Non"])


def no_network(folder):
    (folder / "litert" / "model.int8.tflite").write_bytes(b"TFL3 nothing")


SPOILT = [
    (wrong_answers, "golden"),
    (damaged_golden, "no golden batch"),
    (pickled_golden, "pickled"),
    (no_card, "serving.json cannot be read"),
    (other_shape, r"takes \[1, 64, 64, 1\]"),
    (other_classes, r"gives \[1, 2\]"),
    (no_network, "cannot be loaded"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT, ids=[s.__name__ for s, _ in SPOILT])
def test_refuses_a_version_that_is_not_as_exported(registry, exported, tmp_path, spoil, message):
    folder = variant(exported["a"], tmp_path / "spoilt")
    spoil(folder)
    version = registry.push(folder, **WHY, make_live=False)
    with pytest.raises((LoadError, GoldenError), match=message):
        loader(registry).load(entry(registry), version.number)


def test_asks_for_what_a_version_has_not(registry, exported, tmp_path):
    folder = variant(exported["a"], tmp_path / "teacher")
    (folder / "litert" / "model.int8.tflite").unlink()
    version = registry.push(folder, **WHY, make_live=False)
    with pytest.raises(LoadError, match=r"litert-int8.*model\.int8\.tflite"):
        loader(registry, runtime="litert-int8").load(entry(registry), version.number)
    assert loader(registry).load(entry(registry), version.number).runtime.name == "savedmodel"


def test_answers_are_held_to_the_tolerance():
    wanted = np.array([[0.5, 0.5]], np.float32)
    compare(wanted + np.float32(0.01), wanted, (1, 2), 0.02)
    with pytest.raises(LoadError, match=r"0\.03"):
        compare(wanted + np.float32(0.03), wanted, (1, 2), 0.02)
    with pytest.raises(LoadError, match="finite"):
        compare(np.array([[np.nan, 0.5]], np.float32), None, (1, 2), 0.02)
    with pytest.raises(LoadError, match="shape"):
        compare(wanted, wanted[:, :1], (1, 2), 0.02)


def test_a_golden_batch_may_lack_a_runtime(tmp_path):
    golden(tmp_path, {"probabilities": np.zeros((4, 4), np.float32)})
    images, wanted = read_golden((tmp_path / "golden.npz").read_bytes(), "int8", 1)
    assert len(images) == 4
    assert images[0].shape == (40, 40)
    assert wanted is None
