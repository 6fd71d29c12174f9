"""Versions come and go while requests are answered: nothing fails, nothing is torn."""

import asyncio
import os

import numpy as np
import pytest
from tiny_models import IMAGES, NAME, WHY, ask, golden, running, until, variant

from registry import serving_config
from registry.serving_config import ModelConfig
from serving.errors import ServingError


def config(registry, versions, **labels) -> ModelConfig:
    return ModelConfig(NAME, str(registry.root / NAME), tuple(versions), labels)


def write(registry, *models: ModelConfig) -> None:
    """Moves the pointer past the registry, as a hand or a restored backup would."""
    pointer = registry.root / "models.config"
    new = pointer.with_suffix(".new")
    new.write_text(serving_config.render(models))
    os.replace(new, pointer)


def promote(registry, number: int) -> None:
    registry.promote(number, reason="test", who="test")


def state(engine, number: int) -> str | None:
    """A version's state; None while it was not heard of."""
    return {one.version: one.state for one in engine.status(NAME)}.get(number)


async def expected(engine) -> dict[int, np.ndarray]:
    """Version → its answers to IMAGES, each alone."""
    return {
        number: np.concatenate(
            [
                (await engine.predict(ask([image], version=number))).outputs["probabilities"]
                for image in IMAGES
            ]
        )
        for number in (1, 2)
    }


def test_what_is_configured_is_loaded(registry):
    async def session():
        async with running(registry) as engine:
            assert engine.ready
            assert engine.models()[NAME].live == 2
            states = [(one.version, one.state) for one in engine.status(NAME)]
            assert states == [(2, "AVAILABLE"), (1, "AVAILABLE")]  # 1 is the way back
            assert engine.metadata(NAME).version == 2
            assert engine.metadata(NAME, label="live").version == 2
            assert engine.metadata(NAME, version=1).version == 1
            for wrong in ({"model": "other"}, {"model": NAME, "version": 7}):
                with pytest.raises(ServingError) as caught:
                    engine.status(**wrong)
                assert caught.value.code == "not_found"
        assert not engine.ready
        with pytest.raises(ServingError) as caught:
            await engine.predict(ask())
        assert caught.value.code == "unavailable"

    asyncio.run(session())


def test_promotes_under_load_fail_nobody_and_tear_nothing(registry):
    async def session():
        async with running(registry, batching={"threads": 2, "queue": 4096}) as engine:
            right = await expected(engine)
            assert np.abs(right[1] - right[2]).max(1).min() > 0.3  # the two cannot be confused
            stop = asyncio.Event()
            seen: dict[int, int] = {1: 0, 2: 0}

            async def client(seed: int) -> None:
                random = np.random.default_rng(seed)
                while not stop.is_set():
                    chosen = random.integers(0, len(IMAGES), random.integers(1, 4))
                    answer = await engine.predict(ask([IMAGES[one] for one in chosen]))
                    np.testing.assert_array_equal(
                        answer.outputs["probabilities"], right[answer.version][chosen]
                    )
                    seen[answer.version] += 1

            async with asyncio.TaskGroup() as group:
                for seed in range(16):
                    group.create_task(client(seed))
                for number in [1, 2] * 10:
                    await asyncio.to_thread(promote, registry, number)
                    await until(lambda number=number: engine.models()[NAME].live == number)
                    answer = await engine.predict(ask())
                    assert answer.version == number
                stop.set()
            assert min(seen.values()) > 20

    asyncio.run(session())


def test_a_new_version_is_loaded_beside_the_old_one_which_then_leaves(registry, exported, tmp_path):
    folder = variant(exported["a"], tmp_path / "third")
    (folder / "note.txt").write_text("other content, so a version of its own")

    async def session():
        async with running(registry) as engine:
            third = (await asyncio.to_thread(lambda: registry.push(folder, **WHY))).number
            await until(lambda: engine.models()[NAME].live == third)
            await until(lambda: engine.status(NAME, 1)[0].state == "END")
            states = {one.version: one.state for one in engine.status(NAME)}
            assert states == {3: "AVAILABLE", 2: "AVAILABLE", 1: "END"}
            with pytest.raises(ServingError) as caught:
                await engine.predict(ask(version=1))
            assert caught.value.code == "not_found"

    asyncio.run(session())


def corrupt(registry, number):
    file = registry.path(number) / "litert" / "model.int8.tflite"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def remove(registry, number):
    (registry.path(number) / "variables" / "variables.index").unlink()


def swap(registry, number):
    (registry.path(number) / "serving.json").rename(registry.path(number) / "aside.json")


@pytest.mark.parametrize("spoil", [corrupt, remove, swap])
@pytest.mark.parametrize("role", ["live", "canary"])
def test_a_version_that_is_not_what_was_pushed_takes_no_traffic(
    registry, exported, tmp_path, spoil, role
):
    folder = variant(exported["a"], tmp_path / "third")
    (folder / "note.txt").write_text("third")
    third = registry.push(folder, **WHY, make_live=False).number
    spoil(registry, third)
    labels = {"live": third} if role == "live" else {"live": 2, "canary": third, "traffic-50": 3}

    async def session():
        async with running(registry) as engine:
            write(registry, config(registry, (1, 2, third), **labels))
            await until(lambda: state(engine, third) == "END")
            status = engine.status(NAME, third)[0]
            assert status.error_code == "FAILED_PRECONDITION"
            assert str(registry.path(third)) in status.error_message
            assert engine.ready
            answers = [await engine.predict(ask(request_id=str(n))) for n in range(50)]
            assert {answer.version for answer in answers} == {2}
            for named in [{"version": third}] + [{"label": "canary"}] * (role == "canary"):
                with pytest.raises(ServingError) as caught:
                    await engine.predict(ask(**named))
                assert caught.value.code == "unavailable"

    asyncio.run(session())


def test_a_candidate_with_wrong_golden_answers_takes_no_traffic(registry, exported, tmp_path):
    folder = variant(exported["a"], tmp_path / "third")
    flat = np.full((4, 4), 0.25, np.float32)
    golden(folder, {"probabilities": flat, "int8": flat})

    async def session():
        async with running(registry) as engine:
            third = (await asyncio.to_thread(lambda: registry.push(folder, **WHY))).number
            await until(lambda: engine.status(NAME)[0].state == "END")
            assert "golden" in engine.status(NAME, third)[0].error_message
            assert (await engine.predict(ask())).version == 2

    asyncio.run(session())


def test_at_start_a_broken_live_version_leaves_the_one_beside_it(registry):
    corrupt(registry, 2)

    async def session():
        async with running(registry) as engine:
            assert (await engine.predict(ask())).version == 1
            assert engine.status(NAME, 2)[0].error_code == "FAILED_PRECONDITION"

    asyncio.run(session())


def test_a_broken_pointer_changes_nothing_until_it_is_mended(registry):
    pointer = registry.root / "models.config"
    good = pointer.read_text()
    contradiction = good.replace('key: "live"', 'key: "canary"')

    async def session():
        async with running(registry) as engine:
            for broken in ("model_config_list {", "\ud800", "", contradiction, None):
                if broken is None:
                    pointer.unlink()
                else:
                    pointer.write_text(broken, errors="surrogatepass")
                await asyncio.sleep(0.06)
                assert (await engine.predict(ask())).version == 2
            pointer.write_text(good)
            promote(registry, 1)
            await until(lambda: NAME in engine.models() and engine.models()[NAME].live == 1)

    asyncio.run(session())


def test_a_missing_pointer_is_waited_for(registry, tmp_path):
    pointer = registry.root / "models.config"
    aside = pointer.rename(tmp_path / "aside")

    async def session():
        async with running(registry) as engine:
            assert not engine.ready
            with pytest.raises(ServingError):
                await engine.predict(ask())
            aside.rename(pointer)
            await until(lambda: engine.ready)
            assert (await engine.predict(ask())).version == 2

    asyncio.run(session())


def test_a_version_drains_before_it_is_freed(registry):
    async def session():
        async with running(registry, batching={"threads": 1, "queue": 4096}) as engine:
            right = await expected(engine)
            waiting = [
                asyncio.create_task(engine.predict(ask([image] * 8, version=1)))
                for image in IMAGES
                for _ in range(4)
            ]
            await asyncio.sleep(0)
            write(registry, config(registry, (2,), live=2))
            await until(lambda: engine.status(NAME, 1)[0].state in ("UNLOADING", "END"))
            for number, task in enumerate(waiting):
                answer = await task
                assert answer.version == 1
                wanted = right[1][[number // 4] * 8]
                np.testing.assert_array_equal(answer.outputs["probabilities"], wanted)
            await until(lambda: engine.status(NAME, 1)[0].state == "END")

    asyncio.run(session())


def test_reload_serves_exactly_what_it_is_given_or_changes_nothing(registry, exported, tmp_path):
    folder = variant(exported["a"], tmp_path / "third")
    (folder / "note.txt").write_text("third")
    third = registry.push(folder, **WHY, make_live=False).number

    async def session():
        async with running(registry) as engine:
            await engine.reload([config(registry, (third,), live=third)])
            assert (await engine.predict(ask())).version == third
            assert engine.status(NAME, 2)[0].state == "END"
            for models, code in (
                ([config(registry, (2, 9), live=2)], "unavailable"),
                ([ModelConfig(NAME, str(tmp_path), (1,), {})], "invalid_request"),
                ([config(registry, (1, 2), canary=2)], "invalid_request"),
                ([config(registry, (1,)), config(registry, (2,))], "invalid_request"),
            ):
                with pytest.raises(ServingError) as caught:
                    await engine.reload(models)
                assert caught.value.code == code
                assert engine.models()[NAME].live == third
            promote(registry, 1)  # the file changes: it counts again
            await until(lambda: engine.models()[NAME].live == 1)

    asyncio.run(session())
