import dataclasses

import numpy as np
import pytest

from ingest.phantom import PhantomSpec, SpecError
from schema.errors import CortexflowError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("preset", "hard"),
        ("subjects", (1, 2, 3)),
        ("subjects", (1, 2, 3, -1)),
        ("subjects", (0, 0, 0, 0)),
        ("slices", 0),
        ("slices", 129),
        ("size", 63),
        ("size", 225),
        ("site", 3),
        ("site", ()),
        ("site", (0, 7)),
        ("seed", -1),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(SpecError, match=f"Phantom {field} must be .* Received: {field}=") as error:
        PhantomSpec(**{field: value})
    assert isinstance(error.value, CortexflowError)


def test_specs_are_frozen_and_lists_become_tuples():
    spec = PhantomSpec(subjects=[1, 2, 3, 4], site=[0, 2])
    assert spec == PhantomSpec(subjects=(1, 2, 3, 4), site=(0, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.seed = 1


def test_every_field_changes_the_fingerprint():
    base = PhantomSpec()
    others = [
        PhantomSpec(preset="easy"),
        PhantomSpec(subjects=(45, 45, 45, 44)),
        PhantomSpec(slices=9),
        PhantomSpec(size=65),
        PhantomSpec(site=1),
        PhantomSpec(seed=8),
    ]
    assert len({spec.fingerprint() for spec in [base, *others]}) == len(others) + 1


def test_the_generator_version_changes_the_fingerprint(monkeypatch):
    before = PhantomSpec().fingerprint()
    monkeypatch.setattr("ingest.phantom.spec.GENERATOR_VERSION", -1)
    assert PhantomSpec().fingerprint() != before


def test_equal_specs_have_equal_fingerprints():
    assert PhantomSpec(site=0).fingerprint() == PhantomSpec(site=(0,)).fingerprint()
    assert PhantomSpec(subjects=[1, 1, 1, 1]) == PhantomSpec(subjects=(1, 1, 1, 1))


def test_json_brings_back_the_spec():
    spec = PhantomSpec("easy", (3, 2, 1, 0), 12, 96, (0, 2), 5)
    assert PhantomSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(SpecError, match="colour"):
        PhantomSpec.from_dict({**spec.to_dict(), "colour": 1})


@pytest.mark.parametrize("slices", [1, 2, 8, 31, 32, 40])
def test_positions_are_even_and_within_the_stack(slices):
    positions = PhantomSpec(slices=slices).positions
    assert len(np.unique(positions)) == slices
    assert positions.min() >= 0
    assert positions.max() <= 31
    if slices > 1:
        steps = np.diff(positions)
        assert steps.max() - steps.min() <= 1
    if slices <= 32:
        assert (positions == positions.round()).all()


def test_members_alternate_between_the_stages():
    members = PhantomSpec(subjects=(3, 1, 2, 0)).members()
    assert members == [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]
