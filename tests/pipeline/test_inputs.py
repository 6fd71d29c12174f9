"""What a run is given: data made ready, facts of the dataset, nothing that does not fit."""

import json
import shutil

import pytest

import ingest
from ingest.phantom import PhantomSpec, generate
from pipeline import presets
from pipeline.config import with_overrides
from pipeline.inputs import (
    code_digest,
    pinned_checkpoint,
    prepare_dataset,
    schema_text,
    training_inputs,
)
from pipeline.workspace import Workspace
from registry.local import LocalRegistry
from schema.errors import CortexflowError
from schema.features import ALZHEIMER_CLASSES

MRI = presets.load("mri")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    spec = PhantomSpec(subjects=(4, 4, 4, 4), slices=2)
    return generate(spec, tmp_path_factory.mktemp("phantoms")) / "images"


@pytest.fixture
def place(tmp_path) -> Workspace:
    return Workspace.at(tmp_path / "workspace")


def with_data(source, *settings):
    return with_overrides(
        MRI, [f"data.source={source}", r"data.subject_regex=(subj\d+)", *settings]
    )


def prepared(config, place, states=None):
    observe = (lambda state: None) if states is None else states.append
    return prepare_dataset(config.data, place, observe)


def test_without_data_the_user_is_told_what_to_give(place):
    with pytest.raises(CortexflowError, match="--data"):
        prepared(MRI, place)


def test_images_are_imported_once(images, place):
    config = with_data(images)
    states = []
    first = prepared(config, place, states)
    assert [state.state for state in states] == ["running", "ran"]
    assert prepared(config, place, states) == first
    assert states[-1].state == "cached"


def test_a_dataset_that_has_grown_is_read_whole_or_by_its_latest_span(images, place, tmp_path):
    source = tmp_path / "images"
    shutil.copytree(images, source)
    held_back = tmp_path / "later"
    for file in sorted(source.glob("*/subj000[1-4]_*")):
        target = held_back / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(file, target)
    config = with_data(source)
    dataset = prepared(config, place)
    shutil.copytree(held_back, source, dirs_exist_ok=True)
    assert prepared(config, place) == dataset
    assert len(ingest.datasets.read_dataset(dataset).info.spans) == 2
    whole = training_inputs(config, place, dataset)
    assert whole.facts.splits == ("train", "val", "test")
    for file in (dataset / "span-2" / "test").glob("data-*"):
        file.unlink()
    assert training_inputs(config, place, dataset).fingerprint != whole.fingerprint
    with pytest.raises(CortexflowError, match=r"split\(s\) test.*data.spans=all"):
        training_inputs(with_data(source, "data.spans=latest"), place, dataset)


def test_a_live_model_of_other_classes_is_not_compared_with(images, place, tmp_path):
    config = with_data(images)
    dataset = prepared(config, place)
    assert training_inputs(config, place, dataset).live_version == ""
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"model")
    registry = LocalRegistry(place.registry, config.model_name)
    push = {"metrics": {}, "reason": "test", "who": "test"}
    registry.push(model, lineage={"classes": list(ALZHEIMER_CLASSES)}, **push)
    assert training_inputs(config, place, dataset).live_version.startswith("1:")
    (model / "saved_model.pb").write_bytes(b"another")
    registry.push(model, lineage={"classes": ["cat", "dog"]}, **push)
    with pytest.raises(CortexflowError, match="set model_name"):
        training_inputs(config, place, dataset)


def test_a_schema_is_read_as_text(tmp_path):
    mine = tmp_path / "mine.pbtxt"
    mine.write_text("feature {}")
    assert schema_text(str(mine)) == "feature {}"
    assert schema_text(None) is None
    assert "slice_index" in schema_text("curated")
    with pytest.raises(CortexflowError, match="cortexflow schema infer"):
        schema_text(str(tmp_path / "absent"))


def exported(folder, *, weights=b"1", image_size=96, projection=True):
    """What a Pretrainer leaves, as far as the pipeline looks at it."""
    (folder / "bundle").mkdir(parents=True, exist_ok=True)
    head = {"layers": 3, "dim": 128} if projection else None
    description = {
        "kind": "encoder",
        "architecture": {"projection": head},
        "input": {"image_size": image_size, "channels": 1},
    }
    (folder / "bundle" / "model.json").write_text(json.dumps(description))
    (folder / "bundle" / "weights.npz").write_bytes(weights)
    return with_overrides(MRI, ["pretrain=null", f"checkpoint={folder}"])


def test_a_checkpoint_is_known_by_its_weights(place, tmp_path):
    assert pinned_checkpoint(MRI, place) == (None, "")
    states = []
    path, first = pinned_checkpoint(exported(tmp_path / "a"), place, states.append)
    assert [(state.node, state.state) for state in states] == [
        ("Fetch", "running"), ("Fetch", "cached"),
    ]  # fmt: skip
    assert path == str(tmp_path / "a")
    _, second = pinned_checkpoint(exported(tmp_path / "a", weights=b"2"), place)
    assert first != second


def test_devices_are_divided_before_a_checkpoint_is_converted(place, tmp_path, monkeypatch):
    from trainer import execution
    from trainer.checkpoints import fetching

    order, fetch = [], fetching.fetch
    monkeypatch.setattr(execution, "Execution", order.append)
    monkeypatch.setattr(fetching, "fetch", lambda *a, **k: order.append("fetch") or fetch(*a, **k))
    config = exported(tmp_path / "a")
    pinned_checkpoint(config, place)
    assert order == [config.teacher.execution, "fetch"]


def test_a_checkpoint_that_is_not_there_is_told(place, tmp_path):
    for text, hint in ((tmp_path, "No checkpoint at"), ("simclrv2/pretrained/r51", "Did you mean")):
        config = with_overrides(MRI, ["pretrain=null", f"checkpoint={text}"])
        with pytest.raises(CortexflowError, match=hint):
            pinned_checkpoint(config, place)


def test_a_checkpoint_without_the_projection_that_is_wanted_is_told_first(place, tmp_path):
    config = exported(tmp_path, projection=False)
    with pytest.raises(CortexflowError, match=r"Set teacher\.ft_proj_selector=0"):
        pinned_checkpoint(config, place)
    without = with_overrides(config, ["teacher.ft_proj_selector=0"])
    assert pinned_checkpoint(without, place)[0] == str(tmp_path)


def test_people_keep_their_split_whatever_else_is_set(images, place):
    """Limits and spans do not decide who is where; a new draw would mix train and test."""
    dataset = prepared(with_data(images), place)
    same = with_data(images, "data.max_quarantined=0.2", "data.spans=latest")
    assert prepared(same, place) == dataset
    other = with_data(images, "data.test_fraction=0.2")
    assert prepared(other, place) != dataset


def test_a_dataset_takes_no_settings_of_an_import(images, place):
    dataset = prepared(with_data(images), place)
    with pytest.raises(CortexflowError, match="would do nothing"):
        prepared(with_data(dataset), place)
    assert prepared(with_overrides(MRI, [f"data.source={dataset}"]), place) == dataset


def test_an_empty_split_is_told_before_anything_is_trained(images, place):
    config = with_data(images)
    dataset = prepared(config, place)
    shutil.rmtree(dataset / "span-1" / "test")
    with pytest.raises(CortexflowError, match=r"split\(s\) test"):
        training_inputs(config, place, dataset)


def test_a_resumed_run_keeps_its_baseline(images, place):
    config = with_data(images)
    dataset = prepared(config, place)
    assert training_inputs(config, place, dataset, baseline="").live_version == ""
    assert training_inputs(config, place, dataset, baseline="3:ab").live_version == "3:ab"


def test_edited_code_has_another_hash(tmp_path, monkeypatch):
    room = tmp_path / "someroom"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "a.py").write_text("1")
    monkeypatch.syspath_prepend(tmp_path)
    first = code_digest("someroom")
    assert first == code_digest("someroom")
    assert first != code_digest("someroom/__init__.py")
    (room / "a.py").write_text("2")
    assert first != code_digest("someroom")
