"""HTTP connections of strangers: uvicorn's parser with limits that it leaves to a proxy.

uvicorn on httptools waits for ever for the headers of a first request, keeps headers of any length,
and lets the work for a client go on that has hung up. Behind a proxy that does no harm; a server
that is given a port of its own needs its own limits.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving import jsonbody
from serving.config import Limits

EXTENSION = "cortexflow.connection"
HEADERS = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-intended-use", b"research use only, not for diagnosis"),
)


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
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the work that nobody waits for any more."""
        self._stop_timer()
        super().connection_lost(exc)
        if self.running is not None:
            self.running.cancel()

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and bounds what comes before a body."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_headers and not self._refused and not self.transport.is_closing():
            self._header_bytes += len(data)
            if self._header_bytes > self.bounds.max_header_bytes:
                self._refuse_headers()

    def on_message_begin(self) -> None:
        """Starts the clock of a further request's headers."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore
        self._await_headers()

    def on_headers_complete(self) -> None:
        """Hands the request on."""
        self._in_headers, self._header_bytes = False, 0
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.bounds.max_header_bytes:
            self._refuse_headers()
        else:
            super().on_headers_complete()

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

    def _await_headers(self) -> None:
        self._in_headers = True
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
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in HEADERS)
        length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + lines + more + length + body)
        self.transport.close()
