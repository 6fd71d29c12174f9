"""The canary's watch: what takes one out, how often chance does, and what the engine does then."""

import asyncio
import math
import threading

import numpy as np
import pytest
from tiny_models import IMAGES, NAME, WHY, ask, running, until, variant

from registry.interface import RegistryError
from serving.bounds import jensen_shannon
from serving.canary import CanaryWatch, Comparison, Pair, Side
from serving.config import CanarySettings
from serving.errors import ServingError
from serving.interface import Observation

LIVE, CANARY = 1, 2
EVEN = np.full(4, 5.0)


def observation(number: int, code: str = "ok", answer=None, **changed) -> Observation:
    fields = {
        "model": NAME,
        "version": number,
        "canary": number == CANARY,
        "routed": True,
        "request_id": "r",
        "code": code,
        "seconds": 0.001,
        "images": 1,
        "probabilities": None if answer is None else np.asarray(answer, np.float32)[None],
    }
    return Observation(**(fields | changed))


class Trial:
    """A watch of one pair, and what it said."""

    def __init__(self, **settings):
        self.trips: list[tuple[str, int, str]] = []
        self.watch = CanaryWatch(CanarySettings(**settings), lambda *args: self.trips.append(args))
        self.watch.follow({NAME: Pair(LIVE, CANARY)})

    def run(self, requests, share, random, errors=(0.0, 0.0), answers=(EVEN, EVEN)) -> int | None:
        """Feeds requests; returns how many of the canary's it took to trip, None if it did not."""
        canaries = random.random(requests) < share
        failed = random.random(requests) < np.where(canaries, errors[1], errors[0])
        drawn = [random.dirichlet(one, requests) for one in answers]
        for number, canary in enumerate(canaries):
            version = CANARY if canary else LIVE
            if failed[number]:
                self.watch(observation(version, "internal"))
            else:
                self.watch(observation(version, answer=drawn[int(canary)][number]))
            if self.trips:
                return int(canaries[: number + 1].sum())
        return None


def test_a_canary_that_always_fails_goes_at_the_first_look():
    random = np.random.default_rng(0)
    assert Trial().run(2000, 0.1, random, errors=(0.0, 1.0)) == 50


def test_a_canary_that_fails_now_and_then_goes_soon():
    random = np.random.default_rng(0)
    needed = [Trial().run(8000, 0.2, random, errors=(0.0, 0.2)) for _ in range(20)]
    assert all(one is not None and one <= 200 for one in needed)


def test_a_canary_that_collapses_to_one_class_goes_soon():
    random = np.random.default_rng(0)
    answers = EVEN, np.array([100.0, 0.1, 0.1, 0.1])
    trial = Trial()
    assert trial.run(8000, 0.2, random, answers=answers) <= 200
    assert "drift" in trial.trips[0][2]


def test_a_fault_that_begins_late_is_seen_as_soon():
    random = np.random.default_rng(0)
    trial = Trial()
    assert trial.run(20_000, 0.5, random) is None
    assert trial.run(2_000, 0.5, random, errors=(0.0, 0.5)) <= 350


def test_what_hits_both_alike_is_not_the_canary_s_fault():
    random = np.random.default_rng(0)
    assert Trial().run(10_000, 0.3, random, errors=(0.3, 0.3)) is None


def alarms(random, lives, blocks, settings, errors, answers) -> int:
    """How many of so many canaries' lives, each of blocks of 50 requests a side, end by alarm."""
    shape = (lives, blocks, 2)
    failures = random.binomial(50, errors, shape)
    sums = np.stack([random.dirichlet(one, (lives, blocks, 50)).sum(2) for one in answers], 2)
    found = 0
    for life in range(lives):
        comparison = Comparison(settings)
        for block in range(blocks):
            sides = Side(), Side()
            for number, side in enumerate(sides):
                side.requests = side.answers = 50
                side.failures = int(failures[life, block, number])
                side.total = sums[life, block, number]
            if comparison.look(*sides):
                found += 1
                break
    return found


LEVEL, LIVES = 0.05, 200
BY_CHANCE = LEVEL * LIVES + 3 * math.sqrt(LIVES * LEVEL * (1 - LEVEL))


@pytest.mark.parametrize("errors", [(0.0, 0.0), (0.10, 0.12), (0.0, 0.02)])
def test_chance_takes_out_no_more_than_promised(errors):
    """At the very bound, 2 % above the live version's errors, and within it."""
    random = np.random.default_rng(3)
    found = alarms(random, LIVES, 16, CanarySettings(level=LEVEL), errors, (EVEN, EVEN))
    assert found <= BY_CHANCE


def test_chance_does_not_make_a_drift_at_the_bound():
    """True mean answers whose divergence is the bound; at a quarter of it they are surely apart."""
    random = np.random.default_rng(4)
    answers = np.array([8.0, 1, 0.5, 0.5]), np.array([2.6, 5.0, 1.2, 1.2])
    bound = jensen_shannon(*(one / one.sum() for one in answers))
    settings = CanarySettings(level=LEVEL, max_drift=bound)
    assert alarms(random, LIVES, 16, settings, (0.0, 0.0), answers) <= BY_CHANCE
    settings = CanarySettings(level=LEVEL, max_drift=bound / 4)
    assert alarms(random, 20, 16, settings, (0.0, 0.0), answers) == 20


@pytest.mark.parametrize(
    "ignored",
    [
        {"routed": False},
        {"code": "refused_image"},
        {"code": "overloaded"},
        {"model": "other"},
        {"version": 9},
    ],
)
def test_what_does_not_count(ignored):
    trial = Trial()
    for _ in range(500):
        trial.watch(observation(LIVE, answer=EVEN / 20))
        trial.watch(observation(CANARY, **({"code": "internal"} | ignored)))
    assert trial.trips == []


def test_says_it_once_and_starts_anew_with_another_pair():
    trial = Trial()
    for number in range(600):
        trial.watch(observation(LIVE, answer=EVEN / 20))
        trial.watch(observation(CANARY, "internal"))
        if number == 300:
            trial.watch.follow({NAME: Pair(LIVE, CANARY)})
    assert len(trial.trips) == 1
    trial.watch.follow({NAME: Pair(LIVE, 3)})
    for _ in range(100):
        trial.watch(observation(LIVE, answer=EVEN / 20))
        trial.watch(observation(3, "unavailable", canary=True))
    assert [one[1] for one in trial.trips] == [2, 3]
    assert "errors: 100.0%" in trial.trips[1][2]


def test_without_the_live_version_s_requests_nothing_is_compared():
    trial = Trial()
    for _ in range(1000):
        trial.watch(observation(CANARY, "internal"))
    assert trial.trips == []


def test_classes_that_differ_are_not_compared():
    trial = Trial()
    trial.watch.follow({NAME: Pair(LIVE, CANARY, comparable=False)})
    for _ in range(500):
        trial.watch(observation(LIVE, answer=[1.0, 0, 0, 0]))
        trial.watch(observation(CANARY, answer=[0.0, 1, 0]))
    assert trial.trips == []


# ---------------------------------------------------------------- in the engine


async def requests(engine, count: int) -> list[int | str]:
    """Versions that answered, or codes."""
    found: list[int | str] = []
    for number in range(count):
        try:
            image = IMAGES[number % len(IMAGES)]
            found.append((await engine.predict(ask([image], request_id=str(number)))).version)
        except ServingError as error:
            found.append(error.code)
    return found


@pytest.fixture
def split(registry):
    """Live 2 (`b`), canary 1 (`a`), whose answers are others altogether, at half the requests."""
    registry.set_traffic(1, 50, reason="test", who="test")
    return registry


TIGHT = {"min_requests": 20, "max_drift": 0.05}


def test_a_canary_that_drifts_is_taken_out_and_the_registry_knows(split):
    async def session():
        async with running(split, canary=TIGHT) as engine:
            found = await requests(engine, 400)
            assert {1, 2} == set(found)
            assert set(found[-200:]) == {2}
            await until(lambda: split.traffic().canary is None)
            assert split.traffic().live == 2
            last = split.history()[-1]
            assert (last.action, last.who) == ("set_traffic", "server")
            assert "drift" in last.reason
            await until(lambda: engine.models()[NAME].canary is None)
            assert engine.models()[NAME].live == 2

    asyncio.run(session())


def test_a_canary_goes_at_once_even_if_the_registry_cannot_be_written(split, caplog):
    called = threading.Event()

    def refuse(config, canary, reason):
        called.set()
        raise RegistryError("the disk is full")

    async def session():
        async with running(split, canary=TIGHT, end_canary=refuse) as engine:
            await requests(engine, 400)
            assert engine.models()[NAME].percent == 0
            assert await asyncio.to_thread(called.wait, 5)
            assert set(await requests(engine, 100)) == {2}
            # It is still configured, so those who name it get it; a new look changes nothing.
            assert (await engine.predict(ask(label="canary"))).version == 1
            pointer = split.root / "models.config"
            pointer.write_text(pointer.read_text() + "\n# touched\n")
            await asyncio.sleep(0.1)
            assert set(await requests(engine, 100)) == {2}
            # Ended and begun anew by a person, it is tried again.
            split.set_traffic(None, 0, reason="test", who="test")
            await until(lambda: engine.models()[NAME].canary is None)
            split.set_traffic(1, 50, reason="test", who="test")
            await until(lambda: engine.models()[NAME].percent == 50)

    asyncio.run(session())
    assert "the disk is full" in caplog.text


def test_a_good_canary_stays(registry, exported, tmp_path):
    folder = variant(exported["b"], tmp_path / "third")
    (folder / "note.txt").write_text("the same network")
    third = registry.push(folder, **WHY, make_live=False).number
    registry.set_traffic(third, 50, reason="test", who="test")

    async def session():
        async with running(registry, canary=TIGHT) as engine:
            found = await requests(engine, 400)
            assert engine.models()[NAME].percent == 50
            assert 130 < found.count(third) < 270

    asyncio.run(session())
