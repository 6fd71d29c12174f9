"""One request's way: the queue and its bounds, deadlines, neighbours that fail, who is told."""

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import IMAGES, NAME, ask, running

from serving.batching import Batcher
from serving.config import BatchingSettings
from serving.errors import ServingError


class Admitted(SimpleNamespace):
    descriptors = None


class Scripted:
    """A version whose admission and runtime do what the images say, in words."""

    batches = True

    def __init__(self):
        self.calls: list[list[bytes]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.loaded = SimpleNamespace(admission=self, runtime=self, brief=False)
        self.threads: list[str] = []

    def admit_many(self, batches):
        if any(b"break admission" in images for images in batches):
            raise RuntimeError("defect")
        return [
            ServingError("refused_image", "no") if b"refuse" in images else Admitted(pixels=images)
            for images in batches
        ]

    def run(self, worker, requests):
        images = [image for request in requests for image in request.pixels]
        self.calls.append(images)
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.open.wait(10)
        if b"break model" in images:
            raise RuntimeError(images)
        values = [np.nan if image == b"nan" else float(len(image)) for image in images]
        return {"probabilities": np.array(values, np.float32)[:, None]}


class Queue:
    """A batcher with a scripted version."""

    def __init__(self, **settings):
        fields = {"threads": 1, "max_batch": 8, "queue": 16} | settings
        self.batcher = Batcher(BatchingSettings(**fields), fields["threads"])
        self.version = Scripted()
        self.released = 0

    def release(self):
        self.released += 1

    def put(self, *images: bytes, deadline: float | None = None) -> asyncio.Future:
        return self.batcher.submit(self.version, images, deadline, self.release).future

    async def __aenter__(self):
        self.batcher.start()
        return self

    async def __aexit__(self, *_):
        self.version.open.set()
        self.batcher.stop()
        assert await asyncio.to_thread(self.batcher.join, 5)

    async def block(self) -> asyncio.Future:
        """Occupies the worker until `version.open` is set."""
        self.version.open.clear()
        self.version.entered.clear()
        first = self.put(b"first")
        assert await asyncio.to_thread(self.version.entered.wait, 5)
        return first


async def codes(futures) -> list[str]:
    answers = await asyncio.gather(*futures, return_exceptions=True)
    return [one.code if isinstance(one, ServingError) else "ok" for one in answers]


def test_what_waits_is_computed_together_in_order():
    async def session():
        async with Queue() as queue:
            first = await queue.block()
            waiting = [queue.put(b"x" * n, b"y" * n) for n in range(1, 7)]
            assert queue.batcher.queued == 12
            queue.version.open.set()
            results = await asyncio.gather(first, *waiting)
            assert [len(call) for call in queue.version.calls] == [1, 8, 4]
            for n, result in enumerate(results[1:], start=1):
                assert result.outputs["probabilities"].tolist() == [[n], [n]]
            assert (queue.released, queue.batcher.queued) == (7, 0)

    asyncio.run(session())


def test_a_request_alone_is_computed_at_once_whatever_its_size():
    async def session():
        async with Queue(queue=4) as queue:
            result = await queue.put(*[b"x"] * 30)
            assert len(result.outputs["probabilities"]) == 30

    asyncio.run(session())


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    async def session():
        async with Queue(queue=4) as queue:
            first = await queue.block()
            waiting = [queue.put(b"x", b"x"), queue.put(b"x", b"x")]
            with pytest.raises(ServingError) as caught:
                queue.put(b"x")
            assert caught.value.code == "overloaded"
            assert 1 <= caught.value.retry_after <= 30
            queue.version.open.set()
            assert await codes([first, *waiting]) == ["ok"] * 3
            assert (await queue.put(b"x")).outputs["probabilities"].shape == (1, 1)

    asyncio.run(session())


def test_late_and_cancelled_requests_are_not_computed():
    async def session():
        async with Queue() as queue:
            first = await queue.block()
            late = queue.put(b"late", deadline=time.monotonic() + 0.02)
            job = queue.batcher.submit(queue.version, (b"left",), None, queue.release)
            kept = queue.put(b"kept")
            job.dropped = True
            with pytest.raises(ServingError) as caught:
                await late  # is told while the worker is still busy
            assert caught.value.code == "deadline_exceeded"
            with pytest.raises(ServingError):
                queue.put(b"x", deadline=time.monotonic() - 1)
            queue.version.open.set()
            await asyncio.gather(first, kept)
            assert queue.version.calls == [[b"first"], [b"kept"]]
            assert queue.released == 4

    asyncio.run(session())


def test_the_server_s_deadline_counts_too():
    async def session():
        async with Queue(deadline_seconds=0.02) as queue:
            first = await queue.block()
            with pytest.raises(ServingError) as caught:
                await first
            assert caught.value.code == "deadline_exceeded"
            assert queue.released == 0  # a thread still uses the version

    asyncio.run(session())


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (b"refuse", "refused_image"),
        (b"break admission", "internal"),
        (b"break model", "internal"),
        (b"nan", "internal"),
    ],
)
def test_each_request_of_a_batch_fails_by_itself(word, code):
    async def session():
        async with Queue() as queue:
            first = await queue.block()
            waiting = [queue.put(b"x"), queue.put(b"xx", word), queue.put(b"xxx")]
            queue.version.open.set()
            assert await codes([first, *waiting]) == ["ok", "ok", code, "ok"]
            assert waiting[2].result().outputs["probabilities"].tolist() == [[3.0]]
            assert queue.released == 4

    asyncio.run(session())


def test_a_defect_is_logged_without_what_it_quotes(caplog):
    async def session():
        async with Queue() as queue:
            assert await codes([queue.put(b"break model")]) == ["internal"]

    asyncio.run(session())
    assert "RuntimeError" in caplog.text
    assert "break model" not in caplog.text


def test_answers_that_gain_nothing_together_are_told_one_by_one():
    async def session():
        async with Queue() as queue:
            queue.version.batches = False
            first = await queue.block()
            waiting = [queue.put(b"x"), queue.put(b"refuse"), queue.put(b"xx", b"xxx")]
            queue.version.open.set()
            assert await codes([first, *waiting]) == ["ok", "ok", "refused_image", "ok"]
            assert queue.version.calls == [[b"first"], [b"x"], [b"xx", b"xxx"]]
            assert queue.released == 4

    asyncio.run(session())


def test_the_event_loop_computes_a_small_image_when_nobody_else_asks():
    async def session():
        async with Queue() as queue:
            queue.version.loaded.brief = True
            loop = threading.current_thread().name
            for _ in range(2):
                assert await queue.put(IMAGES[0])
                await asyncio.sleep(0.01)
            assert await codes([queue.put(b"refuse")]) == ["refused_image"]
            await asyncio.sleep(0.01)
            together = [queue.put(IMAGES[0]) for _ in range(3)]
            several = queue.put(IMAGES[0], IMAGES[1])
            assert await codes([*together, several]) == ["ok"] * 4
            assert await queue.put(IMAGES[0])  # at once after another's answer
            await asyncio.sleep(0.01)
            assert await queue.put(b"x")  # no image that is known to be small
            here = [name == loop for name in queue.version.threads]
            assert here[:3] == [True] * 3
            assert not any(here[3:])
            assert (queue.released, queue.batcher.queued) == (9, 0)

    asyncio.run(session())


def test_threads_compute_beside_each_other_and_each_request_once():
    async def session():
        async with Queue(threads=3, max_batch=2, queue=1000) as queue:
            asked = [queue.put(b"x" * n) for n in range(1, 301)]
            found = [result.outputs["probabilities"] for result in await asyncio.gather(*asked)]
            assert [int(values[0, 0]) for values in found] == list(range(1, 301))
            assert sorted(len(image) for call in queue.version.calls for image in call) == list(
                range(1, 301)
            )
            assert (queue.released, queue.batcher.queued) == (300, 0)

    asyncio.run(session())


def test_stopping_answers_everyone():
    async def session():
        queue = Queue()
        queue.batcher.start()
        first = await queue.block()
        waiting = [queue.put(b"x") for _ in range(3)]
        queue.batcher.stop()
        assert await codes(waiting) == ["unavailable"] * 3
        queue.version.open.set()
        assert await codes([first]) == ["ok"]
        assert await asyncio.to_thread(queue.batcher.join, 5)

    asyncio.run(session())


def test_observers_are_told_of_every_answer(registry, tmp_path):
    async def session():
        seen = []
        async with running(registry, prediction_log=tmp_path / "log") as engine:

            def broken(_):
                raise RuntimeError("an observer's defect")

            engine.observe(broken)
            engine.observe(seen.append)
            await engine.predict(ask(IMAGES[:3]))
            await engine.predict(ask(version=1))
            for wrong in (
                ask([b"GIF89a"]),
                ask(model="<script>"),
                ask(version=9),
                ask(deadline=time.monotonic() - 1),
            ):
                with pytest.raises(ServingError):
                    await engine.predict(wrong)
            left = asyncio.create_task(engine.predict(ask()))
            await asyncio.sleep(0)
            left.cancel()
        told = [(one.model, one.version, one.routed, one.code, one.images) for one in seen]
        assert told == [
            (NAME, 2, True, "ok", 3),
            (NAME, 1, False, "ok", 1),
            (NAME, 2, True, "unsupported_media_type", 1),
            ("", None, False, "not_found", 1),
            (NAME, None, False, "not_found", 1),
            (NAME, 2, True, "deadline_exceeded", 1),
        ]
        assert seen[0].probabilities.shape == (3, 4)
        assert all(values.shape == (3,) for values in seen[0].descriptors.values())
        assert seen[2].probabilities is None

    asyncio.run(session())


def test_overload_is_refused_and_passes(registry):
    async def session():
        async with running(registry, batching={"threads": 1, "queue": 8}) as engine:
            many = [engine.predict(ask(IMAGES[:4])) for _ in range(40)]
            found = await codes(many)
            assert {"ok", "overloaded"} == set(found)
            assert engine.queued == 0
            assert (await engine.predict(ask())).version == 2

    asyncio.run(session())


def test_stopping_lets_requests_under_way_finish(registry):
    async def session():
        async with running(registry, batching={"threads": 1}) as engine:
            under_way = [asyncio.create_task(engine.predict(ask(IMAGES))) for _ in range(6)]
            await asyncio.sleep(0)
        assert await codes(under_way) == ["ok"] * 6

    asyncio.run(session())
