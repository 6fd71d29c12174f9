"""The gate that training leaves beside a model, and when it leaves none."""

import io
import logging

import pytest
from PIL import Image

from ingest.records import encode_example, write_records
from schema.descriptors import measure
from trainer import examples
from trainer.config import InputGateSettings
from trainer.input_gate import FILE, load
from trainer.input_gate_export import export


def written(folder, images, subjects):
    """Writes examples as a span's files are, and returns their pattern."""
    folder.mkdir()

    def record(image, subject):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        named = {"subject_id": str(subject).encode()} if subject else {}
        return encode_example({"image": buffer.getvalue(), "label": 0} | named)

    records = [record(image, subject) for image, subject in zip(images, subjects, strict=True)]
    write_records(folder / "a.gz", records[::2])
    write_records(folder / "b.gz", records[1::2])
    return str(folder / "*")


@pytest.fixture(scope="module")
def files(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return (
        [written(folder / "train", phantom.train, phantom.subjects)],
        [written(folder / "val", phantom.unseen[:40], phantom.unseen_subjects[:40])],
    )


def test_it_lies_beside_the_model_and_knows_its_images(files, phantom, tmp_path):
    made = export(tmp_path, *files, InputGateSettings())
    gate = load(tmp_path / FILE)
    assert gate.report == made.report
    assert gate.report["people"] == 60
    assert gate.report["held_out"]["images"] == 40
    known = measure(phantom.unseen)
    assert sum(one.accepted for one in gate.judge(*known)) >= 0.99 * len(phantom.unseen)


def test_it_is_the_same_whatever_the_order_of_the_files(files, phantom, tmp_path):
    first = export(tmp_path, *files, InputGateSettings(max_images=200))
    shuffled = written(tmp_path / "turned", phantom.train[::-1], phantom.subjects[::-1])
    second = export(tmp_path, [shuffled], files[1], InputGateSettings(max_images=200))
    assert second.report == first.report
    assert first.report["images"] == 200


@pytest.mark.parametrize(
    ("settings", "subjects", "said"),
    [
        ({"enabled": False}, None, ""),
        ({"min_people": 61}, None, "61 training people or more (received 60)"),
        ({}, "", "no training example names a subject"),
    ],
)
def test_there_is_none_and_the_log_says_why(
    files, phantom, tmp_path, caplog, settings, subjects, said
):
    train = files[0]
    if subjects is not None:
        train = [written(tmp_path / "nameless", phantom.train[:50], [""] * 50)]
    with caplog.at_level(logging.WARNING, logger="trainer.input_gate_export"):
        assert export(tmp_path, train, files[1], InputGateSettings(**settings)) is None
    assert said in caplog.text
    assert bool(caplog.text) is bool(said)
    assert not (tmp_path / FILE).exists()


def test_nameless_images_take_no_part(files, phantom, tmp_path):
    nameless = written(tmp_path / "nameless", 255 - phantom.train[:50], [""] * 50)
    gate = export(tmp_path, [*files[0], nameless], files[1], InputGateSettings())
    assert gate.report == export(tmp_path, *files, InputGateSettings()).report


def test_reading_keeps_the_smallest_digests(files):
    everything = examples.read_encoded(files[0], 10_000)
    some = examples.read_encoded(files[0], 50)
    assert len(everything.images) == 480
    assert some.images == everything.images[:50]
    assert some.subjects == everything.subjects[:50]
    assert examples.read_encoded(["/nowhere/*"], 9).images == ()
