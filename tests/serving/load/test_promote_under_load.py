"""Promotes and rollbacks while 32 clients ask: nobody fails, and no answer is of two versions.

The server is a process of its own, as a person starts it. How soon a change takes effect is
printed; a busy machine may delay it, so no test judges it.
"""

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from registry.local import LocalRegistry
from tests.serving.engine.tiny_models import IMAGES, NAME, WHY, export_to

ROOT = Path(__file__).resolve().parents[3]
CLIENTS = 32
SAME = 1e-6  # of one probability: the same version on the same image, in whatever company
GIVE_UP_SECONDS = 60.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def registry(tmp_path_factory) -> LocalRegistry:
    """Two versions whose answers cannot be mistaken for each other."""
    folder = tmp_path_factory.mktemp("two")
    registry = LocalRegistry(folder / "registry", NAME)
    for favourite in (0, 1):
        export_to(folder / str(favourite), favourite)
        registry.push(folder / str(favourite), **WHY)
    return registry


@pytest.fixture
def port(registry) -> Iterator[int]:
    """The REST port of `cortexflow serve`, which ends in peace after the test.

    Version 1 is live, and 2 beside it without a share, so that both can be asked by number.
    """
    registry.promote(1, reason="test", who="test")
    registry.set_traffic(2, 0, reason="test", who="test")
    options = ["--registry", str(registry.root), "--rest-port", "0", "--grpc-port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        told = ""
        while not told.startswith("REST"):
            told = process.stdout.readline()
            assert told, "the server ended before it told its port"
        yield int(told.rpartition("/v1")[0].rpartition(":")[2])
        process.terminate()
        process.stdout.read()
        assert process.wait(30) == 0


class Clients:
    """32 connections that ask without a pause, and hold each answer to what is right.

    Attributes:
        answers: version → how many.
        wrong: what went wrong, in words.
        newest: version → when its newest answer came.
        latest: client → the version of its latest answer.
    """

    def __init__(self, port: int):
        self._port = port
        self._bodies = [
            json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}).encode()
            for image in IMAGES
        ]
        self.right: dict[int, np.ndarray] = {}
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.newest: dict[int, float] = {}
        self.latest: dict[int, int] = {}
        self.stop = False

    async def learn(self, version: int) -> None:
        """What a version answers to each image, asked alone."""
        async with self._connected() as ask:
            rows = [(await ask(f"/versions/{version}", body))[2] for body in self._bodies]
        self.right[version] = np.array(rows)

    async def run(self, seed: int) -> None:
        """One client, until told to stop; half of them ask for the label."""
        random = np.random.default_rng(seed)
        where = "/labels/live" if seed % 2 else ""
        try:
            async with self._connected() as ask:
                while not self.stop:
                    image = int(random.integers(len(self._bodies)))
                    status, version, row = await ask(where, self._bodies[image])
                    self._judge(status, version, row, image)
                    self.latest[seed] = version
        except (OSError, asyncio.IncompleteReadError) as error:
            self.wrong.append(f"a connection was lost: {type(error).__name__} {error}")

    def _judge(self, status: int, version: int, row: list[float], image: int) -> None:
        if status != 200 or version not in self.right:
            self.wrong.append(f"status {status} of version {version}")
        elif not np.abs(np.array(row) - self.right[version][image]).max() <= SAME:
            self.wrong.append(f"version {version} is told, but {row} is not its answer")
        else:
            self.answers[version] += 1
            self.newest[version] = time.perf_counter()

    @contextlib.asynccontextmanager
    async def _connected(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def ask(where: str, body: bytes) -> tuple[int, int, list[float]]:
            head = (
                f"POST /v1/models/{NAME}{where}:predict HTTP/1.1\r\nhost: localhost\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            content = json.loads(await reader.readexactly(int(headers["content-length"])))
            rows = content.get("predictions", [{}])[0].get("probabilities", [])
            return int(lines[0].split()[1]), int(headers.get("x-model-version", 0)), rows

        try:
            yield ask
        finally:
            writer.close()

    async def follows(self, version: int, since: float) -> float:
        """Waits for an answer of a version that came after a time; seconds from then to it."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while self.newest.get(version, 0.0) <= since:
                await asyncio.sleep(0.001)
        return self.newest[version] - since

    async def all_follow(self, version: int) -> None:
        """Waits until no client waits for an answer that was asked of another version."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while set(self.latest.values()) != {version}:
                await asyncio.sleep(0.001)


async def switched(
    port: int, switches: int, switch: Callable[[int], None]
) -> tuple[Clients, list[float]]:
    """Goes to and fro between the versions under load; seconds until each change was seen."""
    clients = Clients(port)
    effects = []
    for version in (1, 2):
        await clients.learn(version)
    assert np.abs(clients.right[1] - clients.right[2]).max(1).min() > 0.3
    running = [asyncio.create_task(clients.run(seed)) for seed in range(CLIENTS)]
    await clients.follows(1, time.perf_counter())
    for turn in range(switches):
        await asyncio.to_thread(switch, turn)
        version = 2 if turn % 2 == 0 else 1
        effects.append(await clients.follows(version, time.perf_counter()))
        # Not only the first answer: whoever asks from now on is answered by it.
        await clients.all_follow(version)
        before = clients.answers[3 - version]
        await clients.follows(version, time.perf_counter())
        assert clients.answers[3 - version] == before
    clients.stop = True
    await asyncio.gather(*running)
    return clients, effects


def told(effects: list[float], clients: Clients) -> str:
    p50, p99 = 1e3 * np.percentile(effects, (50, 99))
    return (
        f"{len(effects)} switches under {sum(clients.answers.values()):,} answers: effect after "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {1e3 * max(effects):.0f} ms"
    )


def judged(clients: Clients) -> None:
    assert clients.wrong == []
    assert min(clients.answers[1], clients.answers[2]) >= CLIENTS


def test_five_switches_fail_nobody(registry, port, capsys):
    def switch(turn: int) -> None:
        if turn % 2 == 0:
            registry.promote(2, reason="test", who="test")
        else:
            registry.rollback(reason="test", who="test")

    clients, effects = asyncio.run(switched(port, 5, switch))
    with capsys.disabled():
        print(f"\n{told(effects, clients)}")
    judged(clients)


@pytest.mark.slow
def test_a_hundred_commands_fail_nobody(registry, port, capsys):
    def switch(turn: int) -> None:
        change = ["rollback"] if turn % 2 else ["promote", "2"]
        command = [sys.executable, "-m", "cli.main", *change, "--workspace"]
        subprocess.run(
            [*command, str(registry.root.parent)], check=True, capture_output=True, env=ENVIRONMENT
        )

    clients, effects = asyncio.run(switched(port, 100, switch))
    with capsys.disabled():
        print(f"\n{told(effects, clients)}")
    judged(clients)
