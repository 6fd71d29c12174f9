"""The gate's file: small, without pickle, and believed only when it is whole and fits."""

import io
import zipfile

import numpy as np
import pytest

from schema.descriptors import measure
from trainer.input_gate import MAX_BYTES, InputGateError, load


@pytest.fixture(scope="module")
def path(gate, tmp_path_factory):
    file = tmp_path_factory.mktemp("file") / "input_gate.npz"
    gate.save(file)
    return file


def altered(path, folder, **arrays):
    """A copy of the file with some arrays replaced, or left out where None."""
    with np.load(path, allow_pickle=False) as stored:
        kept = {name: stored[name] for name in stored} | arrays
    copy = folder / path.name
    np.savez(copy, **{name: array for name, array in kept.items() if array is not None})
    return copy


def test_it_judges_as_before_it_was_saved(gate, path, phantom):
    known = measure(phantom.unseen[:40])
    assert load(path).judge(*known) == gate.judge(*known)
    assert load(path).report == gate.report


def test_it_is_small_and_needs_no_pickle(path):
    assert path.stat().st_size < 100_000
    with np.load(path, allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored)
    assert not path.with_name(path.name + ".partial").exists()


def test_equal_gates_are_equal_bytes(gate, path, tmp_path):
    gate.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_nobody_can_be_told_from_it(path, phantom):
    """No stored image is nearer to a training slice than an average over many people is."""
    from trainer.input_gate import thumbnails

    small = thumbnails(measure(phantom.train).grids)
    stored = load(path)
    nearest = np.sqrt(((small - stored.template) ** 2).mean(1))
    assert nearest.min() > 0.1
    people = len(np.unique(phantom.subjects))
    assert len(stored.components) <= people // 4
    overlap = np.abs((small / np.linalg.norm(small, axis=1)[:, None]) @ stored.components.T)
    assert overlap.max() < 0.6


NAN = np.full(22, np.nan)
WRONG = {
    "another format": {"format": np.int64(2)},
    "no format": {"format": None},
    "other descriptors": {"names": np.array(["x"] * 22)},
    "no mean": {"mean": None},
    "a mean of no numbers": {"mean": NAN},
    "a mean of text": {"mean": np.array(["1"] * 22)},
    "too few means": {"mean": np.zeros(21)},
    "no deviation": {"deviation": np.zeros(22)},
    "a limit too many": {"limits": np.ones(99)},
    "limits below what is typical": {"limits": np.full(8, -1e9)},
    "a turn that is none": {"turns": np.full(6, 7)},
    "another thumbnail": {"template": np.zeros(64, np.float32)},
    "no report": {"report": np.zeros(4, np.uint8)},
    "a report of a list": {"report": np.frombuffer(b"[1]", np.uint8)},
    "pickled": {"mean": np.array([{}] * 22, dtype=object)},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(path, tmp_path, name):
    with pytest.raises(InputGateError, match=r"input_gate.npz is no input gate .* Export"):
        load(altered(path, tmp_path, **WRONG[name]))


@pytest.mark.parametrize("tenths", range(10))
def test_a_cut_file_is_refused(path, tmp_path, tenths):
    data = path.read_bytes()
    copy = tmp_path / path.name
    copy.write_bytes(data[: len(data) * tenths // 10])
    with pytest.raises(InputGateError):
        load(copy)


def test_flipped_bytes_never_raise_anything_else(path, tmp_path):
    data = path.read_bytes()
    copy = tmp_path / path.name
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            changed[place] ^= 1 << int(rng.integers(8))
        copy.write_bytes(bytes(changed))
        try:
            load(copy)
        except InputGateError:
            continue


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputGateError):
        load(tmp_path / "none.npz")


def test_a_bomb_is_not_unpacked(path, tmp_path):
    copy = tmp_path / path.name
    array = io.BytesIO()
    np.save(array, np.zeros(MAX_BYTES, np.uint8))
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", array.getvalue())
    assert copy.stat().st_size < 10_000
    with pytest.raises(InputGateError, match="unpacks to"):
        load(copy)
