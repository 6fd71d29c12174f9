"""The split between live and canary: exact, repeatable, and the table's answers."""

import math
from types import SimpleNamespace

import pytest

from serving.errors import ServingError
from serving.routing import Choice, Route, Table, takes_canary

IDS = [f"request-{number}" for number in range(100_000)]


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_the_share_is_within_binomial_error(percent):
    taken = sum(takes_canary("student", one, percent) for one in IDS)
    expected = len(IDS) * percent / 100
    assert abs(taken - expected) < 4 * math.sqrt(expected * (1 - percent / 100))


def test_an_id_always_goes_one_way_and_a_larger_share_only_adds():
    before: set[str] = set()
    for percent in (0, 1, 5, 20, 50, 80, 100):
        now = {one for one in IDS[:20_000] if takes_canary("student", one, percent)}
        assert now == {one for one in IDS[:20_000] if takes_canary("student", one, percent)}
        assert before <= now
        before = now
    assert len(before) == 20_000


def test_models_are_split_independently():
    taken = [{one for one in IDS[:50_000] if takes_canary(model, one, 20)} for model in ("a", "b")]
    both = len(taken[0] & taken[1])
    assert abs(both - 2000) < 4 * math.sqrt(2000 * 0.96)


def test_any_text_is_an_id():
    assert isinstance(takes_canary("student", "\udcff\0é", 50), bool)


def version(number: int) -> SimpleNamespace:
    return SimpleNamespace(number=number)


LIVE, CANARY, OLD = version(2), version(3), version(1)
TABLE: Table = Table(
    {
        "student": Route(
            LIVE,
            CANARY,
            20,
            {"live": LIVE, "canary": CANARY, "mine": OLD},
            {1: OLD, 2: LIVE, 3: CANARY},
            frozenset({4, "next"}),
        ),
        "empty": Route(None, None, 0, {}, {}, frozenset({1})),
    }
)


@pytest.mark.parametrize(
    ("number", "label", "wanted"),
    [
        (1, None, Choice(OLD, canary=False, routed=False)),
        (3, None, Choice(CANARY, canary=True, routed=False)),
        (None, "live", Choice(LIVE, canary=False, routed=False)),
        (None, "canary", Choice(CANARY, canary=True, routed=False)),
        (None, "mine", Choice(OLD, canary=False, routed=False)),
    ],
)
def test_a_named_version_answers_whatever_the_split(number, label, wanted):
    for one in IDS[:50]:
        assert TABLE.choose("student", number, label, one) == wanted


def test_what_names_nothing_is_split():
    for one in IDS[:200]:
        wanted = CANARY if takes_canary("student", one, 20) else LIVE
        assert TABLE.choose("student", None, None, one) == Choice(wanted, wanted is CANARY, True)


@pytest.mark.parametrize(
    ("model", "number", "label", "code"),
    [
        ("other", None, None, "not_found"),
        ("student", 9, None, "not_found"),
        ("student", 4, None, "unavailable"),
        ("student", None, "old", "not_found"),
        ("student", None, "next", "unavailable"),
        ("empty", None, None, "unavailable"),
        ("empty", 1, None, "unavailable"),
        ("empty", None, "live", "not_found"),
    ],
)
def test_says_what_is_not_there(model, number, label, code):
    with pytest.raises(ServingError) as caught:
        TABLE.choose(model, number, label, "r")
    assert caught.value.code == code
