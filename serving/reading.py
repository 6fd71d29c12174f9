"""A request's body, read within its limits."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from serving.buffered import Hold
from serving.config import Limits
from serving.connections import Exchange
from serving.errors import ServingError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class DisconnectedError(Exception):
    """The client hung up."""


class Reader(NamedTuple):
    """From where a body is read.

    Attributes:
        headers: of the request.
        receive: ASGI's.
        exchange: the shorter way, where there is one.
        hold: the request's share of what may be in memory.
        limits: of its size, and of the time that it may take.
    """

    headers: Mapping[bytes, bytes]
    receive: Receive
    exchange: Exchange | None
    hold: Hold
    limits: Limits

    async def read(self) -> bytes:
        """Reads it; what is declared counts before it is there.

        Raises:
            DisconnectedError: nobody waits for an answer.
            ServingError: `too_large`, `overloaded`, `request_timeout`.
        """
        declared = self.headers.get(b"content-length", b"")
        expected = int(declared) if declared.isdigit() else 0
        self._count(expected)
        body = self.exchange.body() if self.exchange else None
        if body is None:
            body = await self._receive(expected)
        self._count(len(body))
        return body

    async def _receive(self, expected: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise DisconnectedError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
                    self._count(max(expected, size))
        except TimeoutError:
            raise ServingError(
                "request_timeout",
                f"The body took more than {self.limits.body_seconds:g} s to arrive.",
            ) from None

    def _count(self, size: int) -> None:
        if size > self.limits.max_body_bytes:
            raise ServingError(
                "too_large",
                f"The body is larger than {self.limits.max_body_bytes} bytes.",
                details={"max_body_bytes": self.limits.max_body_bytes},
            )
        self.hold.grow_to(size)
