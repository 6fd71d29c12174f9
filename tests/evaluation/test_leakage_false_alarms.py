"""People kept apart pass, whatever the scanner and the preset; real people too."""

import re

import numpy as np
import pytest
from PIL import Image

from evaluation import leakage
from evaluation.config import LeakageSettings
from evaluation.outcome import Outcome
from tests.evaluation.leaking import by_person, by_slice, phantom, table


@pytest.mark.parametrize("preset", ["realistic", "easy", "null"])
@pytest.mark.parametrize("site", [0, 1, 2])
def test_phantoms_split_by_person_pass(preset, site):
    people = phantom(people=8, slices=32, preset=preset, site=site)
    decision = leakage.check(by_person(people), LeakageSettings()).decision
    assert decision.outcome is Outcome.PASSED, decision.reasons


@pytest.mark.parametrize("size", [64, 128])
def test_likeness_alone_notices_slices_of_another_scanner(size):
    """Site 2 is the noisiest: fewer neighbours are that alike, and still more than enough."""
    people = phantom(people=8, slices=32, size=size, stored=size, site=2)
    settings = LeakageSettings(image_size=size, ids=False)
    decision = leakage.check(by_slice(people), settings).decision
    assert decision.outcome is Outcome.REFUSED
    assert decision.details["found"]["correlation"] > 10


@pytest.fixture(scope="module")
def real(shared):
    """140 people of the public set × 32 slices of 128 pixels."""
    files = sorted((shared / "data" / "oasis140").glob("*/*.jpg"))
    names = [re.search(r"(subj\d+)_slice(\d+)", file.name).groups() for file in files]
    images = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
    subjects = np.array([subject for subject, _ in names])
    _, labels = np.unique([file.parent.name for file in files], return_inverse=True)
    index = np.array([int(index) for _, index in names])
    return lambda size: table(images, subjects, labels, index, size)


@pytest.mark.parametrize("size", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_real_people_kept_apart_pass_and_slices_dealt_at_random_do_not(real, size):
    people, settings = real(size), LeakageSettings(image_size=size)
    decision = leakage.check(by_person(people), settings).decision
    assert decision.outcome is Outcome.PASSED, decision.reasons
    assert decision.details["splits"]["test"] == {
        "images": 1120,
        "people": 35,
        "nameless": 0,
        "copies": 0,
        "unreadable": 0,
    }
    assert decision.details["noticed"] == 1.0
    alone = LeakageSettings(image_size=size, ids=False, pixels=False)
    leaks = leakage.check(by_slice(people), alone)
    assert leaks.decision.outcome is Outcome.REFUSED
    assert all(pair.a.subject == pair.b.subject for pair in leaks.pairs)
