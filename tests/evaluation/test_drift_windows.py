"""False alarms and power on windows of phantom people, drawn from pools that are rendered once."""

import numpy as np
import pytest

from evaluation.config import DriftSettings
from evaluation.drift import compare
from evaluation.histograms import Group
from evaluation.outcome import Outcome
from ingest.phantom import PhantomSpec, render_subject
from schema.descriptors import describe
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY

SITES = (0, 1, 2)


class Pool:
    """People of one site, their descriptors and labels; no two pools share a person."""

    def __init__(self, site, per_class, slices):
        spec = PhantomSpec("standard", (per_class,) * 4, slices=slices, site=site, seed=100 + site)
        subjects = [render_subject(spec, index) for index in range(len(spec))]
        self.site, self.slices = site, slices
        self.labels = np.array([subject.label for subject in subjects])
        columns = [describe(subject.images) for subject in subjects]
        self.described = {name: np.stack([c[name] for c in columns]) for name in columns[0]}

    def __len__(self):
        return len(self.labels)

    def group(self, name, chosen):
        people = np.array([f"site{self.site}-{number}" for number in chosen])
        return Group(
            name,
            people.repeat(self.slices),
            {key: values[chosen].ravel() for key, values in self.described.items()},
            {"label": np.array(ALZHEIMER_CLASSES)[self.labels[chosen]].repeat(self.slices)},
        )

    def of_mix(self, rng, counts, without=()):
        """People in given numbers of each class, by severity."""
        free = np.setdiff1d(np.arange(len(self)), without)
        return np.concatenate(
            [
                rng.permutation(free[self.labels[free] == ALZHEIMER_CLASSES.index(name)])[:count]
                for name, count in zip(ALZHEIMER_SEVERITY, counts, strict=True)
            ]
        )


def window(pools, site, seed, people, settings):
    """People of the reference site against as many others, of this or of another site."""
    rng = np.random.default_rng([seed, site])
    order = rng.permutation(len(pools[0]))
    others = order[people:] if site == 0 else rng.permutation(len(pools[site]))
    reference = pools[0].group("reference", order[:people])
    return compare(reference, pools[site].group("current", others[:people]), settings)


def alarms(pools, site, windows, people, settings):
    answers = [window(pools, site, seed, people, settings) for seed in range(windows)]
    return sum(answer.outcome is Outcome.REFUSED for answer in answers)


@pytest.fixture(scope="session")
def few():
    """60, 24 and 24 people × 4 slices."""
    return [Pool(site, per_class, 4) for site, per_class in zip(SITES, (15, 6, 6), strict=True)]


@pytest.fixture(scope="session")
def many():
    """480, 200 and 60 people × 8 slices."""
    return [Pool(site, per_class, 8) for site, per_class in zip(SITES, (120, 50, 15), strict=True)]


QUICK = DriftSettings(permutations=2299)


def test_few_windows_behave(few):
    assert alarms(few, 0, 15, 24, QUICK) <= 1  # more has a chance of .01
    assert alarms(few, 1, 5, 24, QUICK) >= 4
    assert alarms(few, 2, 2, 24, QUICK) == 2


@pytest.mark.slow
def test_a_test_on_slices_would_cry_drift(many):
    """What dealing people is for: slices of one person are no independent evidence."""
    cried = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(many[0]))
        sides = [many[0].group("a", order[:50]), many[0].group("b", order[50:100])]
        loose = [
            Group(side.name, np.array([f"{side.name}{n}" for n in range(side.images)]),
                  side.numeric, side.categorical)
            for side in sides
        ]  # fmt: skip
        cried += compare(*loose, QUICK).outcome is Outcome.REFUSED
    print(f"a test on slices: {cried} false alarms of 20")
    assert cried >= 5


@pytest.mark.slow
def test_false_alarms_in_200_null_windows(many):
    """At most 1 %; 0 of 200 says below 1.5 % with 95 % confidence."""
    settings = DriftSettings()
    found = alarms(many, 0, 200, 50, settings)
    error = np.sqrt(settings.level * (1 - settings.level) / 200)
    print(f"false alarms: {found} of 200 (level {settings.level:.1%}, Monte Carlo ± {error:.1%})")
    assert found <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("site", "windows", "least"), [(1, 200, 180), (2, 50, 50)])
def test_a_changed_scanner_is_detected(many, site, windows, least):
    found = alarms(many, site, windows, 50, DriftSettings())
    print(f"site {site}: {found} of {windows} windows of 50 against 50 people")
    assert found >= least


@pytest.mark.slow
def test_a_changed_mix_of_people_is_told_from_a_changed_scanner(many):
    """Twice the healthy people: labels drift. What they change in the images is explained."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        reference = many[0].of_mix(rng, (13, 13, 12, 12))
        one = many[0].group("reference", reference)
        mixed = many[0].of_mix(rng, (35, 10, 3, 2), without=reference)
        people = compare(one, many[0].group("current", mixed), DriftSettings())
        drifted = {feature.name: feature.drifted_at_equal_mix for feature in people.drifted}
        assert "label" in drifted
        assert not any(drifted.values())
        moved = many[1].of_mix(rng, (35, 10, 3, 2))
        both = compare(one, many[1].group("current", moved), DriftSettings())
        by_name = {feature.name: feature for feature in both.features}
        assert by_name["label"].drifted
        assert by_name["high_frequency_energy"].drifted_at_equal_mix
