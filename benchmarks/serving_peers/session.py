"""Servers of one version, started once and measured in turns; the others lie still meanwhile."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving_peers import servers, wrk
from benchmarks.serving_peers.process import Process, StartError, free_port
from benchmarks.serving_peers.servers import Request, Server, Version

CONNECTIONS = (1, 8, 32)
FLOOR = "floor"
POLL_SECONDS = 0.01
WARM_SECONDS = 1
SETTLE_SECONDS = 0.3
# Of one probability. int8's softmax has steps of 1/256, and releases of LiteRT round otherwise.
TOLERANCE = {"litert": 0.02, "savedmodel": 1e-4}
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}

Tell = Callable[[str], None]


class WrongAnswerError(RuntimeError):
    """A server does not answer as the others do: its speed means nothing."""


class Running:
    """A server that answers."""

    def __init__(self, server: Server, version: Version, images: Sequence[bytes], folder: Path):
        """Starts it, and waits for its first right answer.

        Args:
            server: which.
            version: what it serves.
            images: two image files, the first of which is asked for all the time.
            folder: for its log and wrk's script.

        Raises:
            StartError: it does not answer.
        """
        self.server = server
        self.images = images
        self._model = version.model
        self.port = free_port()
        self.request = server.request(images[0], version.model)
        label = f"{server.name}-{server.kind}".replace(" ", "-").replace(",", "")
        self._script = folder / f"{label}.lua"
        wrk.script(self._script, self.request.body, self.request.headers)
        command = server.command(self.port, version)
        self.process = Process(command, QUIET | server.environment, folder / f"{label}.log")
        try:
            self.ready = self._wait()
        except BaseException:
            self.process.stop()
            raise

    def _wait(self) -> float:
        while True:
            try:
                if servers.ask(self.port, self.request)[0] == 200:
                    return self.process.age
            except OSError:
                pass
            self.process.check()
            time.sleep(POLL_SECONDS)

    def thaw(self) -> None:
        """Lets it run on, and notice what time it is: timers that fell due meanwhile come first."""
        self.process.thaw()
        time.sleep(SETTLE_SECONDS)

    def answers(self) -> np.ndarray:
        """Probabilities of both images: float[2, C]."""
        rows = []
        for image in self.images:
            request: Request = self.server.request(image, self._model)
            try:
                status, body, _ = servers.ask(self.port, request)
            except OSError as error:
                raise WrongAnswerError(
                    f"{self.server.name}, {self.server.kind}: {error}"
                ) from error
            if status != 200:
                raise WrongAnswerError(f"{self.server.name}: {status} {body[:300]!r}")
            rows.append(self.server.read(body))
        return np.stack(rows)

    def load(self, connections: int, seconds: float) -> dict[str, float]:
        """What wrk measured, and CPU milliseconds per answer."""
        url = f"http://127.0.0.1:{self.port}{self.request.path}"
        before = self.process.cpu()
        found = wrk.run(url, self._script, connections, seconds)
        used = self.process.cpu() - before
        answered = max(found.rate * max(round(seconds), 1), 1)
        return found._asdict() | {"cpu": 1e3 * used / answered}


def complaints(all_running: Sequence[Running]) -> dict[str, str]:
    """Holds every server's answers to those of the first one with the same kind of model.

    Returns:
        Name and kind of each server that answers otherwise, or not at all → what it did.
    """
    wanted: dict[str, np.ndarray] = {}
    found = {}
    for running in all_running:
        kind = running.server.kind
        running.thaw()
        try:
            got = running.answers()
        except WrongAnswerError as error:
            found[f"{running.server.name}, {kind}"] = str(error)
            continue
        finally:
            running.process.freeze()
        expected = wanted.setdefault(kind, got)
        limit = TOLERANCE[kind]
        if got.shape != expected.shape or not np.abs(got - expected).max() <= limit:
            found[f"{running.server.name}, {kind}"] = f"{got}, expected {expected}"
        elif not np.abs(got[0] - got[1]).max() > limit:
            found[f"{running.server.name}, {kind}"] = f"two images, the same answer {got[0]}"
    return found


def check(all_running: Sequence[Running]) -> None:
    """Refuses to measure servers that do not answer alike.

    Raises:
        WrongAnswerError: names the servers and what they did.
    """
    if found := complaints(all_running):
        raise WrongAnswerError("; ".join(f"{name}: {told}" for name, told in found.items()))


def start(
    chosen: Sequence[Server],
    version: Version,
    images: Sequence[bytes],
    folder: Path,
    starts: int,
    tell: Tell,
) -> tuple[list[Running], dict[str, list[float]], dict[str, str]]:
    """Starts servers one after another, each `starts` times, while the others lie still.

    Returns:
        Those that answer, seconds to ready by name, and why the others do not.
    """
    found: list[Running] = []
    ready: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    for server in chosen:
        key = f"{server.name}, {server.kind}"
        if not server.needs.exists():
            missing[key] = f"there is no {server.needs}"
            continue
        try:
            for turn in range(starts):
                running = Running(server, version, images, folder)
                ready.setdefault(key, []).append(running.ready)
                if turn < starts - 1:
                    running.process.stop()
        except StartError as error:
            missing[key] = str(error)
            tell(f"{key}: skipped, {error}")
            continue
        running.process.freeze()
        found.append(running)
        tell(f"{key}: ready in {running.ready:.1f} s")
    return found, ready, missing


def floor(version: Version, body: bytes, folder: Path, seconds: float) -> dict[str, Any]:
    """Measures `benchmarks.serving_peers.floor` in a process of its own."""
    path = folder / "floor.json"
    path.write_bytes(body)
    module = "benchmarks.serving_peers.floor"
    command = [sys.executable, "-m", module, str(version.folder), str(path), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    all_running: Sequence[Running],
    version: Version,
    folder: Path,
    rounds: int,
    seconds: float,
    tell: Tell,
) -> list[dict[str, Any]]:
    """All rounds; in each the floor and every server have a turn.

    Returns:
        Rows: `round`, `server`, `connections` (0 of the floor), and what was measured: `p50`, `p99`
        in ms, `rate` per second, `cpu` in ms per answer, `errors`, `mib` of a server.
    """
    body = servers.tf_serving(all_running[0].images[0], version.model).body
    rows: list[dict[str, Any]] = []
    left = list(all_running)
    for turn in range(rounds):
        for name, each in floor(version, body, folder, seconds / 2).items():
            rows.append({"round": turn, "server": f"{FLOOR}: {name}", "connections": 0, **each})
        for running in list(left):
            key = f"{running.server.name}, {running.server.kind}"
            about = {"round": turn, "server": key}
            try:
                rows += [about | row for row in _turn(running, seconds)]
            except (RuntimeError, OSError) as error:
                # A peer that dies while the others have their turn keeps what it has shown.
                left.remove(running)
                tell(f"[round {turn + 1}/{rounds}] {key} is left out from here: {error}")
                continue
            tell(f"[round {turn + 1}/{rounds}] {key}: {rows[-2]['rate']:.0f}/s at 8")
    return rows


def _turn(running: Running, seconds: float) -> list[dict[str, Any]]:
    """One server's turn: a row for each number of connections."""
    running.thaw()
    running.load(CONNECTIONS[1], WARM_SECONDS)
    rows = [
        {"connections": connections, **running.load(connections, seconds)}
        | {"mib": running.process.memory()}
        for connections in CONNECTIONS
    ]
    running.process.freeze()
    return rows
