"""Properties of the split: everybody once, deterministic, stable, stratified."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.splits import (
    SplitError,
    SplitSettings,
    SplitsFile,
    assign,
    quotas,
    read_splits,
    split_settings,
)

FRACTIONS = SplitSettings().fractions
people = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 3), max_size=60)


@given(people, st.integers())
def test_everybody_is_in_exactly_one_split(strata, seed):
    assigned = assign(strata, FRACTIONS, seed)
    assert assigned.keys() == strata.keys()
    assert set(assigned.values()) <= {"train", "val", "test"}


@given(people, st.integers())
def test_order_does_not_matter(strata, seed):
    backwards = dict(reversed(strata.items()))
    assert assign(strata, FRACTIONS, seed) == assign(backwards, FRACTIONS, seed)


@given(people, people)
def test_people_keep_their_split_when_others_come(first, more):
    before = assign(first, FRACTIONS, 0)
    after = assign({**more, **first}, FRACTIONS, 0, before)
    assert {name: after[name] for name in before} == before
    assert after.keys() == {**more, **first}.keys()


@given(people)
def test_every_class_has_its_share(strata):
    assigned = assign(strata, FRACTIONS, 0)
    for label in set(strata.values()):
        names = [name for name, found in strata.items() if found == label]
        found = Counter(assigned[name] for name in names)
        for split, quota in quotas(len(names), FRACTIONS).items():
            assert found[split] == quota
            if len(names) >= 3:
                assert found[split] >= 1
            assert abs(quota - FRACTIONS[split] * len(names)) <= max(1, 3 - len(names) / 10)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, (0, 0, 0)),
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (100, (65, 15, 20)),
    ],
)
def test_quotas(count, expected):
    given = quotas(count, FRACTIONS)
    assert tuple(given[name] for name in ("train", "val", "test")) == expected


def test_another_seed_draws_others():
    strata = {f"s{i}": 0 for i in range(50)}
    assert assign(strata, FRACTIONS, 0) != assign(strata, FRACTIONS, 1)


def test_newcomers_fill_what_is_missing():
    before = {f"s{i}": "train" for i in range(10)}
    strata = {f"s{i}": 0 for i in range(20)}
    found = Counter(assign(strata, FRACTIONS, 0, before).values())
    assert found == Counter(train=13, val=3, test=4)


def test_the_file_notices_a_person_who_was_moved(tmp_path):
    path = tmp_path / "splits.json"
    SplitsFile.of(SplitSettings(), {"a": "train", "b": "test"}).write(path)
    assert read_splits(path).assignment == {"a": "train", "b": "test"}
    document = json.loads(path.read_text())
    document["assignment"]["b"] = "train"
    path.write_text(json.dumps(document))
    with pytest.raises(SplitError, match="was changed after it was written"):
        read_splits(path)


def test_settings_leave_people_to_train_on():
    with pytest.raises(ValidationError, match="left to train on"):
        SplitSettings(val=0.5, test=0.5)
    with pytest.raises(SplitError, match="received val=0.9, test=None"):
        split_settings(0.9, None, 0, False)
    assert split_settings(None, 0.3, 5, False) == SplitSettings(test=0.3, seed=5)
