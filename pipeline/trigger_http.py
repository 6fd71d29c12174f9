"""The trigger over HTTP: `POST /` takes messages; `/healthz`, `/readyz`, `/metrics` tell of it.

What a status says to the sender: 200, settled, do not send it again (a run was started, or none
needs to be); 4xx, the message or its sender is wrong, and sending it again will not help; 503, it
was understood and could not be done now, send it again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline import trigger_events
from pipeline.trigger_auth import Forbidden, KeysUnavailable, TokenCheck, Unauthorised
from pipeline.trigger_service import Answer, Trigger
from schema.errors import CortexflowError
from serving import logs

MAX_BODY = 256 << 10  # notifications are below 4 KiB; S3 allows names of 1 KiB, several to one
BODY_SECONDS = 10.0
MAX_WAITING = 64  # messages at once; each holds a connection until its dataset rests
RETRY_SECONDS = 10

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("cortexflow.trigger")


class _Refused(Exception):
    """An answer other than 200, with what it says."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


class TriggerMetrics:
    """What Prometheus may ask. Labels are of our own words alone."""

    def __init__(self, trigger: Trigger) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "cortexflow_trigger_answers",
            "Answers to messages, by status of HTTP.",
            ("status",),
            registry=self._registry,
        )
        self._arrivals = Counter(
            "cortexflow_trigger_arrivals",
            "What became of the objects that messages told of.",
            ("outcome",),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "cortexflow_trigger_seconds",
            "From a message to its answer, the wait for the dataset to rest included.",
            buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600),
            registry=self._registry,
        )
        self.waiting = Gauge(
            "cortexflow_trigger_waiting", "Messages not answered yet.", registry=self._registry
        )
        ready = Gauge(
            "cortexflow_trigger_ready", "1 while messages are taken.", registry=self._registry
        )
        ready.set_function(lambda: float(not trigger.stopping))

    def answered(self, status: int) -> None:
        """Counts an answer."""
        self._answers.labels(str(status)).inc()

    def arrived(self, outcome: str) -> None:
        """Counts an object."""
        self._arrivals.labels(outcome).inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class TriggerApp:
    """An ASGI application around a trigger.

    Args:
        trigger: what starts runs.
        check: who may send; None lets everybody.
    """

    def __init__(self, trigger: Trigger, check: TokenCheck | None):
        self._trigger = trigger
        self._check = check
        self.metrics = TriggerMetrics(trigger)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"no ASGI scope that is known here: {scope['type']}")
        method, path = scope["method"], scope["path"]
        if path == "/" and method == "POST":
            await self._post(scope, receive, send)
        elif path in ("/", "/healthz", "/readyz", "/metrics") and method not in ("GET", "HEAD"):
            await _answer(send, HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"no {method} here"})
        elif path == "/metrics":
            text = "text/plain; version=0.0.4; charset=utf-8"
            await _send(send, HTTPStatus.OK, self.metrics.text(), text)
        elif path == "/readyz" and self._trigger.stopping:
            await _answer(send, HTTPStatus.SERVICE_UNAVAILABLE, {"status": "stopping"})
        elif path in ("/healthz", "/readyz"):
            await _answer(send, HTTPStatus.OK, {"status": "ok"})
        elif path == "/":
            told = {"error": "Send messages to this address by POST."}
            await _answer(send, HTTPStatus.METHOD_NOT_ALLOWED, told)
        else:
            await _answer(send, HTTPStatus.NOT_FOUND, {"error": "POST / takes messages"})

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, told = HTTPStatus.OK, dict[str, Any]()
        self._waiting += 1
        self.metrics.waiting.set(self._waiting)
        try:
            told = {"results": await self._messages(scope, receive)}
        except _Refused as refused:
            status, told = refused.status, {"error": refused.reason}
        except (CortexflowError, OSError) as error:
            status, told = HTTPStatus.SERVICE_UNAVAILABLE, {"error": "try again later"}
            _log("not submitted", logging.ERROR, reason=str(error))
        except Exception as error:
            status, told = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "a defect of the trigger"}
            logs.error("defect", error)
        finally:
            self._waiting -= 1
            self.metrics.waiting.set(self._waiting)
        self.metrics.answered(status)
        self.metrics.seconds.observe(loop.time() - began)
        if status >= HTTPStatus.BAD_REQUEST:
            _log("refused", logging.WARNING, status=int(status), reason=told["error"])
        await _answer(send, status, told)

    async def _messages(self, scope: Scope, receive: Receive) -> list[dict[str, str]]:
        """Reads, checks and carries out one request; one answer for each object."""
        if self._waiting > MAX_WAITING:
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, f"more than {MAX_WAITING} messages wait")
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        await self._checked(headers)
        body = await _body(headers, receive)
        try:
            message = trigger_events.read(headers, body)
        except trigger_events.MessageError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
        for reason in message.ignored:
            self.metrics.arrived("ignored")
            _log("ignored", reason=reason)
        answers = await asyncio.gather(
            *(self._trigger.arrived(arrival) for arrival in message.arrivals),
            return_exceptions=True,
        )
        problems = [one for one in answers if isinstance(one, BaseException)]
        told = [one for one in answers if isinstance(one, Answer)]
        for one in told:
            self.metrics.arrived(one.outcome)
            _log(one.outcome, **{k: v for k, v in one._asdict().items() if k != "outcome" and v})
        for _ in problems:
            self.metrics.arrived("failed")
        if problems:  # sent again, what was started is known, and the rest is tried anew
            raise problems[0]
        ignored = [{"outcome": "ignored", "reason": reason} for reason in message.ignored]
        return [{k: v for k, v in one._asdict().items() if v} for one in told] + ignored

    async def _checked(self, headers: Mapping[str, str]) -> None:
        if self._check is None:
            return
        try:
            await asyncio.to_thread(self._check, headers)
        except Unauthorised as error:
            raise _Refused(HTTPStatus.UNAUTHORIZED, str(error)) from None
        except Forbidden as error:
            raise _Refused(HTTPStatus.FORBIDDEN, str(error)) from None
        except KeysUnavailable as error:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """The whole body, within bounds of size and time."""
    told = headers.get("content-length", "0")
    too_large = _Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a message has {MAX_BODY} bytes at most"
    )
    if told.isdigit() and int(told) > MAX_BODY:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise _Refused(HTTPStatus.BAD_REQUEST, "the sender hung up within the body")
                part = event.get("body", b"")
                size += len(part)
                if size > MAX_BODY:
                    raise too_large
                parts.append(part)
                more = event.get("more_body", False)
    except TimeoutError:
        raise _Refused(
            HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_SECONDS:g} s"
        ) from None
    return b"".join(parts)


async def _answer(send: Send, status: HTTPStatus, document: dict[str, Any]) -> None:
    await _send(send, status, orjson.dumps(document) + b"\n", "application/json")


async def _send(send: Send, status: HTTPStatus, body: bytes, kind: str) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers.append((b"retry-after", b"%d" % RETRY_SECONDS))
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _log(event: str, level: int = logging.INFO, /, **fields: Any) -> None:
    log.log(level, event, extra={"fields": fields})
