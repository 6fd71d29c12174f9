"""What the gates leave in their artifacts is read as evidence."""

from types import SimpleNamespace

import numpy as np
import pytest

from components.report import gate_records
from components.report.reading import Reader
from trainer.input_gate import FILE
from trainer.input_gate_families import FAMILIES
from trainer.input_gate_fit import fit_and_measure

SIDE = 32


def slices(people: int, seed: int):
    """Two discs of grey on black for each person, uint8[2 × people, SIDE, SIDE]; who each is of."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = []
    for _ in range(people):
        centre, grey = rng.normal(16, 0.5, 2), rng.uniform(120, 180)
        disc = np.hypot((rows - centre[0]) / 1.3, columns - centre[1]) < rng.normal(9, 0.4)
        lower = disc * (rows > centre[0] + 3) * 40
        images += [(disc * grey + lower + rng.uniform(0, 6, disc.shape)) for _ in range(2)]
    return np.array(images).astype(np.uint8), np.repeat(np.arange(people), 2).astype(str)


@pytest.fixture
def model(tmp_path):
    """An artifact as a Trainer leaves it, without a gate."""
    (tmp_path / "Format-Serving").mkdir()
    return SimpleNamespace(uri=str(tmp_path), gate=tmp_path / "Format-Serving" / FILE)


def test_an_input_gate_is_read_with_what_was_measured(model):
    gate = fit_and_measure(*slices(24, 0), slices(8, 1)[0])
    gate.save(model.gate)
    found = gate_records.input_gate(Reader(), model)
    assert (found.people, found.images, found.validation_images) == (24, 48, 16)
    assert found.target == 0.005
    assert found.cross_fitted == gate.report["false_rejection"]["cross_fitted"]
    assert found.false_rejection == gate.report["held_out"]["false_rejection"]
    assert found.turns == gate.report["turns"]
    assert {of.family: of.caught for of in found.families} == {
        name: of["caught"] for name, of in gate.report["held_out"]["families"].items()
    }
    assert len(found.families) == len(FAMILIES) <= gate_records.MAX_FAMILIES


def test_a_gate_measured_on_nobody_has_no_families(model):
    gate = fit_and_measure(*slices(24, 0), [])
    gate.save(model.gate)
    found = gate_records.input_gate(Reader(), model)
    assert (found.validation_images, found.false_rejection, found.families) == (0, None, ())


@pytest.mark.parametrize("content", [None, b"", b"no archive"], ids=["none", "empty", "damaged"])
def test_a_model_without_a_gate_that_can_be_used_has_none(model, content):
    if content is not None:
        model.gate.write_bytes(content)
    assert gate_records.input_gate(Reader(), model) is None
