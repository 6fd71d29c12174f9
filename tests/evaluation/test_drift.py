"""The comparison of two groups of people, held against brute force and against known answers."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from evaluation import drift
from evaluation.config import DriftSettings
from evaluation.drift import DriftError, compare, holm
from evaluation.histograms import Group
from evaluation.outcome import Outcome

QUICK = DriftSettings(permutations=999, min_people=5)


def group(name, values, prefix=None, **categorical):
    """People × images of one number, or of several by name; categories one per person."""
    numeric = values if isinstance(values, dict) else {"x": values}
    people, images = next(iter(numeric.values())).shape
    names = np.array([f"{prefix or name}{number:03d}" for number in range(people)])
    return Group(
        name,
        np.repeat(names, images),
        {key: np.asarray(column).ravel() for key, column in numeric.items()},
        {key: np.repeat(np.asarray(column), images) for key, column in categorical.items()},
    )


def normal(seed, people, images=4, shift=0.0):
    """Images scatter about their person, people about each other."""
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=(people, 1)) + 0.5 * rng.normal(size=(people, images))


def only(comparison):
    [feature] = comparison.features
    return feature


def test_divergence_is_scipy_s_distance_squared():
    one, other = normal(0, 12), normal(1, 30, shift=0.8)
    found = only(compare(group("a", one), group("b", other), QUICK))
    assert len(found.reference) == len(found.bins) + 1 == 10
    assert sum(found.reference) == pytest.approx(1)
    expected = jensenshannon(found.reference, found.current, base=2) ** 2
    assert found.divergence == pytest.approx(expected, abs=1e-12)
    assert found.before == pytest.approx(one.mean())
    assert found.after == pytest.approx(other.mean())


def test_divergence_runs_from_zero_to_one():
    low, high = normal(0, 9), normal(1, 9, shift=50)
    assert only(compare(group("a", low), group("b", high), QUICK)).divergence == pytest.approx(1)
    same = only(compare(group("a", low), group("b", low), QUICK))
    assert same.divergence == 0
    assert same.p == 1


def test_p_is_that_of_every_possible_dealing():
    """6 against 6 people: all 924 dealings, one by one."""
    one, other = normal(2, 6), normal(3, 6, shift=1.2)
    settings = DriftSettings(permutations=9999, min_people=6, bins=4)
    found = only(compare(group("a", one), group("b", other), settings))
    edges = np.array(found.bins)
    counts = [
        np.bincount(np.searchsorted(edges, v, "right"), minlength=4) / 4 for v in [*one, *other]
    ]
    counts = np.array(counts)

    def divergence(chosen):
        rest = np.setdiff1d(np.arange(12), chosen)
        return jensenshannon(counts[chosen].mean(0), counts[rest].mean(0), base=2) ** 2

    null = [divergence(np.array(chosen)) for chosen in itertools.combinations(range(12), 6)]
    exact = np.mean(np.array(null) >= divergence(np.arange(6)) - 1e-12)
    assert 0.005 < exact < 0.5
    assert found.p == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 9999) + 2e-4)


def test_each_person_weighs_the_same():
    one, other = normal(0, 10), normal(1, 10, shift=0.5)
    whole = group("b", other)
    first = np.flatnonzero(whole.people == "b000")
    rows = np.concatenate([np.arange(40), np.repeat(first, 25)])
    talkative = Group("b", whole.people[rows], {"x": whole.numeric["x"][rows]})
    reference = group("a", one)
    plain, loud = (compare(reference, g, QUICK) for g in (whole, talkative))
    assert only(loud).divergence == pytest.approx(only(plain).divergence, abs=1e-9)
    assert only(loud).after == pytest.approx(only(plain).after)


def test_the_order_of_images_does_not_matter():
    reference, current = group("a", normal(0, 20)), group("b", normal(1, 20, shift=0.6))
    order = np.random.default_rng(0).permutation(current.images)
    shuffled = Group("b", current.people[order], {"x": current.numeric["x"][order]})
    one, other = (only(compare(reference, g, QUICK)) for g in (current, shuffled))
    assert one.p == other.p
    assert one.divergence == pytest.approx(other.divergence)


def test_slices_of_a_person_are_no_further_evidence():
    """Forty copies of each image change nothing; a test of slices would cry drift."""
    one, other = normal(4, 20, images=1), normal(5, 20, images=1)
    few, many = (
        only(compare(group("a", one.repeat(n, 1)), group("b", other.repeat(n, 1)), QUICK))
        for n in (1, 40)
    )
    assert few.p == many.p
    assert not many.drifted


def test_p_values_are_uniform_where_nothing_drifts():
    p = np.array([
        only(compare(group("a", normal(2 * s, 10)), group("b", normal(2 * s + 1, 10)),
                     DriftSettings(permutations=199, min_people=5, seed=s))).p
        for s in range(300)
    ])  # fmt: skip
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(
            level, abs=3.5 * np.sqrt(level * (1 - level) / 300)
        )


def test_a_feature_alone_drifts_from_the_divergence_that_is_told():
    answers = [
        only(compare(group("a", normal(s, 15)), group("b", normal(100 + s, 15, shift=1)), QUICK))
        for s in range(25)
    ]
    assert {answer.drifted for answer in answers} == {True, False}
    assert all(answer.drifted == (answer.divergence > answer.seen_from) for answer in answers)


def test_holm():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    assert holm(np.empty(0)).shape == (0,)


def test_correction_counts_what_can_differ():
    columns = {f"x{n}": normal(n, 20) for n in range(8)} | {"constant": np.zeros((20, 4))}
    moved = {name: values + 0.4 * (name == "x0") for name, values in columns.items()}
    moved |= {name: normal(50 + n, 20) for n, name in enumerate(columns) if name[0] == "x" and n}
    found = compare(group("a", columns), group("b", moved), QUICK)
    by_name = {feature.name: feature for feature in found.features}
    smallest = min(found.features, key=lambda feature: feature.p)
    assert smallest.adjusted_p == pytest.approx(min(8 * smallest.p, 1))
    assert by_name["constant"].adjusted_p == by_name["constant"].p == 1
    assert by_name["constant"].reference == pytest.approx((1.0,))
    seen = sorted(feature.seen_from for feature in found.features if feature.name != "constant")
    assert f"divergences from {seen[0]:.3f} to {seen[-1]:.3f} would show" in found.reason


@pytest.mark.parametrize(("before", "after"), [(19, 40), (40, 19), (3, 4), (0, 30)])
def test_too_few_people_are_never_no_drift(before, after):
    settings = DriftSettings(permutations=99)
    answer = compare(group("a", normal(0, before)), group("b", normal(1, after)), settings)
    assert answer.outcome is Outcome.INSUFFICIENT
    assert answer.features == ()
    assert "needs at least 20 people" in answer.reason
    assert "not a finding of no drift" in answer.reason
    assert str(min(before, after)) in answer.reason


def test_without_people_there_is_no_comparison():
    known = group("a", normal(0, 30))
    unknown = dataclasses.replace(group("b", normal(1, 30)), people=None)
    answer = compare(known, unknown, QUICK)
    assert answer.outcome is Outcome.INSUFFICIENT
    assert "no subject ids" in answer.reason


def test_permutations_that_could_never_show_drift_are_refused():
    columns = {f"x{n}": normal(n, 20) for n in range(5)}
    reference, current = group("a", columns), group("b", columns)
    with pytest.raises(DriftError, match=r"cannot show drift in any of 5 features.*499 or more"):
        compare(reference, current, DriftSettings(permutations=498, min_people=5))
    compare(reference, current, DriftSettings(permutations=499, min_people=5))


def test_groups_must_have_the_same_features():
    with pytest.raises(DriftError, match=r"different numeric features.*y"):
        compare(group("a", normal(0, 9)), group("b", {"y": normal(1, 9)}), QUICK)
    nobody = Group("a", np.array(["a"]), {})
    with pytest.raises(DriftError, match="no features"):
        compare(nobody, nobody, QUICK)


def test_people_in_both_groups_keep_their_pairing():
    """What changed in all of the same people hides behind how people differ, were they others."""
    found = {"same": 0, "others": 0}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        base = rng.normal(size=(40, 1))
        first, second = (base + shift + 0.6 * rng.normal(size=(40, 8)) for shift in (0, 0.5))
        same = compare(group("a", first, "p"), group("b", second, "p"), QUICK)
        others = compare(group("a", first), group("b", second), QUICK)
        assert only(same).divergence == pytest.approx(only(others).divergence)
        assert (same.in_both, others.in_both) == (40, 0)
        assert "40 people stand in both" in same.reason
        found["same"] += bool(same.drifted)
        found["others"] += bool(others.drifted)
    assert found["same"] >= 6
    assert found["others"] <= 2


def test_the_same_people_unchanged_do_not_drift():
    p = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        base = 3 * rng.normal(size=(12, 1))
        first, second = (base + rng.normal(size=(12, 4)) for _ in range(2))
        settings = DriftSettings(permutations=199, min_people=5, seed=seed)
        p.append(only(compare(group("a", first, "p"), group("b", second, "p"), settings)).p)
    for level in (0.05, 0.2, 0.5):
        deviation = np.sqrt(level * (1 - level) / len(p))
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=3.5 * deviation)


def test_what_is_not_finite_is_a_bin_of_its_own():
    whole = normal(0, 20)
    holes = normal(1, 20)
    holes[:, 0] = np.nan
    found = only(compare(group("a", whole), group("b", holes), QUICK))
    assert found.drifted
    assert found.reference[-1] == 0
    assert found.current[-1] == pytest.approx(0.25)
    assert np.isfinite(found.after)
    gone = only(compare(group("a", whole), group("b", np.full((20, 4), np.inf)), QUICK))
    assert gone.after is None
    assert gone.divergence == pytest.approx(1)


def test_tied_values_stay_in_one_bin():
    ties = np.random.default_rng(0).integers(0, 3, (20, 4)).astype(float)
    found = only(compare(group("a", ties), group("b", ties[::-1]), QUICK))
    assert found.bins == (1.0, 2.0)
    assert found.reference == pytest.approx([(ties == v).mean() for v in range(3)])


def test_categories():
    few, many = ["ill"] * 4 + ["well"] * 36, ["ill"] * 20 + ["well"] * 20
    answer = compare(group("a", normal(0, 40), label=few), group("b", normal(1, 40), label=many),
                     QUICK)  # fmt: skip
    label = answer.features[-1]
    assert (label.kind, label.bins) == ("categorical", ("ill", "well"))
    assert label.reference == pytest.approx((0.1, 0.9))
    assert label.infinity_norm == pytest.approx(0.4)
    assert label.drifted
    assert label.divergence == pytest.approx(jensenshannon((0.1, 0.9), (0.5, 0.5), base=2) ** 2)
    assert "label ill 10% → 50%" in answer.reason


def cohort(seed, ill, shift):
    """50 people; illness widens `fluid` and touches nothing else, the scanner shifts `grey`."""
    rng = np.random.default_rng(seed)
    sick = np.arange(50) < ill
    fluid = rng.normal(size=(50, 1)) + 2.5 * sick[:, None] + 0.3 * rng.normal(size=(50, 4))
    columns = {"fluid": fluid, "grey": normal(seed + 1, 50) + shift}
    return group(f"cohort{seed}", columns, label=np.where(sick, "ill", "well"))


def test_a_change_of_people_is_told_from_a_change_of_scanner():
    settings = DriftSettings(permutations=1999)
    people = compare(cohort(1, 12, 0.0), cohort(3, 38, 0.0), settings)
    verdict = {f.name: (f.drifted, f.drifted_at_equal_mix) for f in people.features}
    assert verdict == {"fluid": (True, False), "grey": (False, False), "label": (True, None)}
    assert "at an equal mix of label none of the others drifts" in people.reason
    both = compare(cohort(1, 12, 0.0), cohort(3, 38, 1.5), settings)
    verdict = {f.name: (f.drifted, f.drifted_at_equal_mix) for f in both.features}
    assert verdict == {"fluid": (True, False), "grey": (True, True), "label": (True, None)}
    assert "there still drift: grey" in both.reason
    scanner = compare(cohort(1, 25, 0.0), cohort(3, 25, 1.5), settings)
    assert {f.name for f in scanner.drifted} == {"grey"}
    assert all(f.drifted_at_equal_mix is None for f in scanner.features)


def test_no_common_label_leaves_the_mix_unasked():
    answer = compare(cohort(1, 0, 0.0), cohort(3, 50, 0.0), DriftSettings(permutations=1999))
    assert {f.name for f in answer.drifted} >= {"fluid", "label"}
    assert all(f.drifted_at_equal_mix is None for f in answer.features)


def test_blocks_bound_memory_and_change_nothing(monkeypatch):
    reference, current = group("a", normal(0, 20)), group("b", normal(1, 20, shift=0.7))
    whole = only(compare(reference, current, QUICK))
    rows, deal = [], drift.Dealing.deal
    monkeypatch.setattr(drift, "BLOCK_VALUES", 4000)
    monkeypatch.setattr(
        drift.Dealing, "deal", lambda self, rng, count: rows.append(count) or deal(self, rng, count)
    )
    blocked = only(compare(reference, current, QUICK))
    assert max(rows) * (2 * 40 + 4 * 10) <= 4000
    assert sum(rows) == 999
    assert blocked.p == pytest.approx(whole.p, abs=0.02)
