"""The comparators of the curated schema, as TFDV evaluates them."""

import numpy as np
import pytest

from schema import comparators, contract, features
from schema.descriptors import NAMES

ON_A_GRID = {"bbox_height", "bbox_width"}


def columns(seed, people=20, slices=1, **changes):
    rng = np.random.default_rng(seed)
    count = people * slices
    numbers = {features.DESCRIPTOR_PREFIX + name: rng.normal(0.5, 0.1, count) for name in NAMES}
    labels = np.arange(people).repeat(slices) % 4
    return numbers | {"label": labels, "site": np.full(count, "A")} | changes


def distances(one, other, kind, schema=None):
    pair = (comparators.statistics_of(side) for side in (one, other))
    found = comparators.distances(*pair, schema or contract.load(), kind)
    return {distance.feature: distance for distance in found}


@pytest.mark.parametrize("kind", ["drift", "skew"])
def test_the_curated_comparators_are_evaluated_and_quiet_on_the_smallest_groups(kind):
    found = distances(columns(0), columns(1), kind)
    expected = {features.DESCRIPTOR_PREFIX + name for name in NAMES if name not in ON_A_GRID}
    assert set(found) == expected | {"label", "site"}
    assert not any(distance.fired for distance in found.values())
    assert 0.1 < found["descriptor/entropy"].value < 0.6
    assert found["label"].value == 0


@pytest.mark.parametrize("kind", ["drift", "skew"])
def test_they_fire_where_nothing_is_alike(kind):
    other = columns(
        1,
        label=np.full(20, 2),
        site=np.full(20, "B"),
        **{"descriptor/entropy": np.random.default_rng(2).normal(3, 0.1, 20)},
    )
    found = distances(columns(0), other, kind)
    assert {name for name, distance in found.items() if distance.fired} == {
        "descriptor/entropy",
        "label",
        "site",
    }
    assert found["label"].value == pytest.approx(0.75)
    assert found["label"].measure == "L_INFTY"
    assert str(found["site"]) == "site (largest difference 1.000 > 0.500)"
    assert "divergence" in str(found["descriptor/entropy"])


def test_kinds_are_apart():
    schema = type(contract.load())()
    feature = schema.feature.add(name="descriptor/entropy", type=3)
    feature.drift_comparator.jensen_shannon_divergence.threshold = 0.1
    assert list(distances(columns(0), columns(1), "drift", schema)) == ["descriptor/entropy"]
    assert distances(columns(0), columns(1), "skew", schema) == {}


def test_a_column_that_is_missing_is_not_compared():
    empty = np.full(20, "")
    found = distances(columns(0, site=empty), columns(1, site=empty), "drift")
    assert "site" not in found or not found["site"].fired
    assert "label" in found


def test_every_descriptor_has_the_same_threshold_in_both_kinds():
    for feature in contract.load().feature:
        pair = [getattr(feature, f"{kind}_comparator") for kind in ("drift", "skew")]
        assert pair[0] == pair[1], feature.name
