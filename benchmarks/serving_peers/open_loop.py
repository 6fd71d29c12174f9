"""A client that asks at times of its own, however long answers take (an open loop).

A closed loop, as wrk's, asks less when the server is slow, and so hides it. Here requests fall due
by a Poisson process; one that finds all connections busy waits for one, and its latency counts from
when it was due. Few allocations, so that a core of Python asks some thousand times a second.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import httptools
import numpy as np

from benchmarks.serving_peers.servers import Request


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, client: "Client"):
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, payload: bytes, due: float) -> None:
        assert self._transport is not None
        self.due = due
        self._transport.write(payload)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._client.answered(self, self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self)


class Client:
    """Connections to one server, and what came back over them.

    Attributes:
        latencies: seconds from when each answered request was due.
        failed: answers other than 200, and connections lost.
    """

    def __init__(self, port: int, request: Request):
        self._port = port
        headers = {**request.headers, "host": f"127.0.0.1:{port}"}
        headers["content-length"] = str(len(request.body))
        lines = [f"POST {request.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        self._payload = "\r\n".join([*lines, "", ""]).encode() + request.body
        self._idle: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._connections: list[Connection] = []
        self._closed_loop = False
        self._closing = False
        self.latencies: list[float] = []
        self.failed = 0

    async def connect(self, connections: int) -> None:
        """Opens connections."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, made = await loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self._port
            )
            self._connections.append(made)
            self._idle.append(made)

    async def capacity(self, seconds: float) -> float:
        """Answers per second when every connection asks again at once (a closed loop)."""
        self._closed_loop = True
        before, start = len(self.latencies), time.perf_counter()
        while self._idle:
            self._idle.popleft().send(self._payload, time.perf_counter())
        await asyncio.sleep(seconds)
        rate = (len(self.latencies) - before) / (time.perf_counter() - start)
        self._closed_loop = False
        await self._settle()
        return rate

    async def ask(self, rate: float, seconds: float, seed: int) -> None:
        """Asks `rate` times a second by a Poisson process, and waits for the last answer."""
        gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds * 1.2) + 10)
        times: Sequence[float] = np.cumsum(gaps).tolist()
        start = time.perf_counter()
        for due in times:
            if due > seconds:
                break
            wait = start + due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            if self._idle:
                self._idle.popleft().send(self._payload, start + due)
            else:
                self._due.append(start + due)
        await self._settle()

    def answered(self, connection: Connection, status: int) -> None:
        """Takes an answer, and asks what is overdue."""
        now = time.perf_counter()
        if status == 200:
            self.latencies.append(now - connection.due)
        else:
            self.failed += 1
        if self._closed_loop:
            connection.send(self._payload, now)
        elif self._due:
            connection.send(self._payload, self._due.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Counts a connection that the server closed."""
        if not self._closing:
            self.failed += 1
            self._connections.remove(connection)

    def close(self) -> None:
        """Closes all connections."""
        self._closing = True
        for connection in self._connections:
            connection.close()

    async def _settle(self) -> None:
        """Waits until nothing is under way."""
        while len(self._idle) < len(self._connections):
            await asyncio.sleep(0.005)
