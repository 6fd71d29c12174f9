"""HTTP connections of strangers: uvicorn's parser with limits that it leaves to a proxy.

uvicorn on httptools waits for ever for the headers of a first request, keeps headers of any length,
and lets the work for a client go on that has hung up. Behind a proxy that does no harm; a server
that is given a port of its own needs its own limits.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving import jsonbody
from serving.config import Limits

EXTENSION = "cortexflow.connection"
HEADERS = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-intended-use", b"research use only, not for diagnosis"),
)
LINES = b"".join(name + b": " + value + b"\r\n" for name, value in HEADERS)


class Exchange:
    """A request and its answer, past ASGI's messages where they cost more than they carry.

    A request that is there as a whole is taken as a whole, and an answer is one write to the socket
    in place of two. Whoever gets no for an answer goes by ASGI.

    Args:
        connection: on which both travel.
    """

    def __init__(self, connection: "Connection"):
        self.connection = connection
        self.cycle: RequestResponseCycle | None = None

    def body(self) -> bytes | None:
        """The request's body where all of it has arrived and none was read; else None."""
        cycle = self.cycle
        if cycle is None or cycle.more_body or cycle.disconnected or cycle.response_started:
            return None
        if cycle.waiting_for_100_continue:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        cycle.flow.resume_reading()
        return body

    def answer(self, status: int, lines: bytes, body: bytes) -> bool:
        """Sends a whole answer; False where it was not sent, and nothing else was either.

        Args:
            status: of HTTP.
            lines: header lines but `connection` and `content-length`, each with its end.
            body: of the answer.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_started or cycle.disconnected:
            return False
        if cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        parts = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (lines, b"content-length: %d\r\n" % len(body))
        parts += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"".join(parts))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """The class that uvicorn makes for each connection."""

    class LimitedProtocol(Connection):
        bounds = limits

    return LimitedProtocol


class Connection(HttpToolsProtocol):
    """One connection. `running` is the task that answers, cancelled when the client hangs up."""

    bounds = Limits()

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.running: asyncio.Task[Any] | None = None
        self._in_headers = True
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counts the connection in, or turns it away."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            self._refuse(503, "unavailable", "Too many connections.", b"retry-after: 1\r\n")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the work that nobody waits for any more, and lets go of the last request."""
        self._stop_timer()
        super().connection_lost(exc)
        self.cycle = self.scope = None  # type: ignore[assignment]  # both know this connection
        if self.running is not None:
            self.running.cancel()

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and bounds what comes before a body."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_headers and not self._refused and not self.transport.is_closing():
            self._start_timer()
            self._header_bytes += len(data)
            if self._header_bytes > self.bounds.max_header_bytes:
                self._refuse_headers()

    def on_message_begin(self) -> None:
        """Notes that headers have begun; their clock starts unless all are in the same packet."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: Exchange(self)}  # type: ignore
        self._in_headers = True

    def on_headers_complete(self) -> None:
        """Hands the request on."""
        self._in_headers, self._header_bytes = False, 0
        self._stop_timer()
        size = len(self.url) + 4 * len(self.headers)
        for name, value in self.headers:
            size += len(name) + len(value)
        if size > self.bounds.max_header_bytes:
            self._refuse_headers()
        else:
            super().on_headers_complete()
            self.scope["extensions"][EXTENSION].cycle = self.cycle  # type: ignore

    def on_body(self, body: bytes) -> None:
        """Keeps a part of the body, unless the request was refused."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends the body."""
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        if not self._refused:
            self._refuse(400, "invalid_request", "The request is not valid HTTP/1.1.")

    def _start_timer(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.bounds.header_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self._refuse(408, "request_timeout", "The headers took too long.")

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse_headers(self) -> None:
        self._refuse(
            431, "too_large", f"URL and headers exceed {self.bounds.max_header_bytes} bytes."
        )

    def _refuse(self, status: int, code: str, message: str, more: bytes = b"") -> None:
        self._refused = True
        self._stop_timer()
        body = jsonbody.dump({"error": message, "code": code, "details": {}})
        length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + LINES + more + length + body)
        self.transport.close()
