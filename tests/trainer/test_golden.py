"""The golden batch: the same pictures everywhere, the model's answers, and no trust in files."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from schema.brain import GRID
from schema.descriptors import measure
from trainer import architectures, export, golden, input_gate_fit, litert
from trainer.architectures import StudentArchitecture
from trainer.config import InputSettings

INPUT = InputSettings(image_size=16)
CLASSES = ("a", "b", "c")
DIGEST = "e35df478711dd836c4a18583e8ebe04e8c0cac8e4bc11a726ddd0bb5072ad540"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A student of 16 × 16 pixels with its LiteRT files, as `_export` leaves them."""
    folder = tmp_path_factory.mktemp("golden") / "Format-Serving"
    architecture = StudentArchitecture(filters=(4,), dense=8, classes=3)
    model = architectures.build("student", architecture, INPUT, seed=1)
    export.save(folder, model, INPUT, CLASSES, 1.5)
    seen = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
    (folder / "litert").mkdir()
    for name, content in litert.convert(model, INPUT, seen, 1.5).items():
        (folder / "litert" / name).write_bytes(content)
    return folder, golden.record(folder, 16, 1)


def test_the_pictures_are_these_bytes():
    """A change makes batches of earlier versions no wrong ones; it is to be meant, that is all."""
    files = b"".join(golden.images())
    assert hashlib.sha256(files).hexdigest() == DIGEST


def test_the_pictures_are_files_that_other_decoders_read():
    pictures = [Image.open(io.BytesIO(file)) for file in golden.images(3)]
    assert len({picture.size for picture in pictures}) == len(pictures)
    assert [picture.mode for picture in pictures] == ["L"] * 7 + ["RGB"]
    for picture, file in zip(pictures, golden.images(3), strict=True):
        picture.load()
        decoded = tf.io.decode_png(file).numpy().squeeze()
        np.testing.assert_array_equal(decoded, np.asarray(picture))
    colour = np.asarray(Image.open(io.BytesIO(golden.images(1)[-1])))
    assert (colour == colour[..., :1]).all(), "a model of grey levels is asked for no luma"
    assert np.asarray(Image.open(io.BytesIO(golden.blank()))).max() == 0


def test_it_records_what_the_files_on_disk_answer(exported):
    folder, recorded = exported
    found = golden.read(folder / golden.FILE)
    assert found.images == recorded.images == golden.images(1)
    assert set(found.answers) == {"probabilities", "float", "int8"}
    assert found.gate is None
    for name, answer in found.answers.items():
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, recorded.answers[name])
        np.testing.assert_allclose(answer.sum(axis=1), 1, atol=0.02)
    wanted, exact = found.answers["probabilities"], found.answers["float"]
    np.testing.assert_allclose(wanted, exact, atol=1e-4)
    served = tf.saved_model.load(str(folder)).signatures["predict_images"]
    one = served(images=tf.constant(found.images[2:3]))["probabilities"].numpy()
    np.testing.assert_allclose(one, wanted[2:3], atol=1e-5)


def test_serving_json_tells_what_a_server_must_know(exported):
    folder, _ = exported
    told = json.loads((folder / export.DESCRIPTION).read_text())
    operations = told.pop("ops")
    assert operations == sorted(set(operations))
    in_graph, in_functions = {"VarHandleOp", "Placeholder"}, {"Conv2D", "DecodePng", "RestoreV2"}
    assert in_graph | in_functions <= set(operations)
    assert told == {
        "format": 1,
        "classes": list(CLASSES),
        "input": {"image_size": 16, "channels": 1},
        "temperature": 1.5,
    }


def test_it_records_what_the_input_gate_scores(tmp_path):
    draw = np.random.default_rng(0)
    slices = draw.integers(0, 60, (90, GRID, GRID), np.uint8)
    slices[:, 20:100, 30:90] += draw.integers(90, 130, (90, 1, 1), np.uint8)
    gate = input_gate_fit.fit(*measure(slices), np.repeat(np.arange(30), 3))
    gate.save(tmp_path / "input_gate.npz")
    scores = golden.gate_scores(tmp_path / "input_gate.npz", [*golden.images(), golden.blank()])
    assert scores.dtype == np.float32
    assert (scores > 1).all(), "no picture of the batch is of this kind"


def test_what_has_no_classes_is_served_by_nobody_and_not_described(tmp_path):
    architecture = StudentArchitecture(filters=(4,), dense=8, classes=3)
    export.save(tmp_path / "model", architectures.build("student", architecture, INPUT), INPUT)
    assert not (tmp_path / "model" / export.DESCRIPTION).exists()


def written(path, **changes) -> None:
    arrays = {
        "images": np.zeros((2, 5), np.uint8),
        "lengths": np.array([5, 3], np.int64),
        "probabilities": np.full((2, 3), 1 / 3, np.float32),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_a_batch_is_read_with_its_padding_off(tmp_path):
    written(tmp_path / "golden.npz", gate=np.array([2, 3], np.float32))
    found = golden.read(tmp_path / "golden.npz")
    assert [len(image) for image in found.images] == [5, 3]
    np.testing.assert_array_equal(found.gate, [2, 3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.array([["a"], ["b"]], object)}, "pickled Python objects"),
        ({"probabilities": None}, r"\['probabilities'\] too few"),
        ({"more": np.zeros(1)}, r"\['more'\] too many"),
        ({"lengths": np.array([5, 6], np.int64)}, "longer than its row"),
        ({"lengths": np.array([5, 0], np.int64)}, "longer than its row"),
        ({"lengths": np.array([5], np.int64)}, "differ in number"),
        ({"images": np.zeros((2, 5), np.int16)}, "no uint8"),
        ({"probabilities": np.zeros((2, 3))}, "no float32"),
        ({"probabilities": np.zeros((3, 3), np.float32)}, "differ in number"),
        ({"int8": np.zeros((2, 4), np.float32)}, "differs in shape"),
        ({"gate": np.zeros(3, np.float32)}, "the input gate's scores"),
    ],
)
def test_what_record_does_not_write_is_refused(tmp_path, changes, message):
    written(tmp_path / "golden.npz", **changes)
    with pytest.raises(golden.GoldenError, match=message):
        golden.read(tmp_path / "golden.npz")


@pytest.mark.parametrize("shape", [(1 << 40, 1 << 40), (1 << 62, 4), (-1, 5)])
def test_a_header_that_claims_more_than_is_there_allocates_nothing(tmp_path, shape):
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue() + b"12345")
    with pytest.raises(golden.GoldenError, match=r"an array of shape"):
        golden.read(tmp_path / "golden.npz")


def test_a_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(golden.MAX_BYTES + 1))
    with pytest.raises(golden.GoldenError, match="unpacks to more than 16 MiB"):
        golden.read(tmp_path / "golden.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(golden.GoldenError, match="golden.npz is no golden batch"):
        golden.read(tmp_path / "golden.npz")


def test_a_missing_batch_says_what_to_do(tmp_path):
    with pytest.raises(golden.GoldenError, match="is missing or cannot be read .No such file"):
        golden.read(tmp_path / "golden.npz")
