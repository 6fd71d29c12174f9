"""TF Serving's REST API as an ASGI application, with health, readiness and metrics beside it.

https://www.tensorflow.org/tfx/serving/api_rest has the API. What is not in it: a raw image as the
body of `:predict`, the headers `x-request-id` and `x-model-version`, and in errors, beside TF
Serving's `error`, the fields `code` and `details` for machines.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ingest.containers import JPEG_MAGIC, PNG_MAGIC
from serving import jsonbody, logs, signatures
from serving.buffered import Buffered
from serving.config import Limits
from serving.connections import EXTENSION, HEADERS, LINES, Exchange
from serving.errors import CODES, ServingError
from serving.interface import Engine, Observation, Observer, PredictAnswer, PredictRequest
from serving.metrics import CONTENT_TYPE, Metrics
from serving.naming import NAME, request_id, worded
from serving.reading import DisconnectedError, Reader, Receive

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_TARGET = rf"/v1/models/({NAME})(?:/versions/([0-9]+)|/labels/({NAME}))?"
_PREDICT = re.compile(_TARGET + r":(predict|classify|regress)")
_STATUS = re.compile(_TARGET + r"(/metadata)?")
_MAX_VERSION = 2**63 - 1
_IMAGES = (b"image/png", b"image/jpeg", b"image/jpg")
_MAGIC = (PNG_MAGIC, JPEG_MAGIC)
LINGER_SECONDS = 1.0


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    content_type: bytes = b"application/json"
    close: bool = False


class Target(NamedTuple):
    """Which version of which model a path names."""

    model: str
    version: int | None
    label: str | None


class RestApp:
    """The ASGI application.

    Args:
        engine: what answers.
        limits: of requests.
        metrics: counts answers and tells all.
        observer: is told of predictions that were refused before the engine saw them.
        buffered: bounds what all requests hold together.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        metrics: Metrics,
        observer: Observer,
        buffered: Buffered,
    ):
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._observer = observer
        self._buffered = buffered
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; whatever it holds, with JSON."""
        if scope["type"] != "http":
            return
        # Taken out: the exchange knows the scope, and what knows itself waits for the collector.
        exchange: Exchange | None = scope.get("extensions", {}).pop(EXTENSION, None)
        connection = exchange.connection if exchange else None
        if connection is not None:
            connection.running = asyncio.current_task()
        headers = dict(reversed(scope["headers"]))  # of a name given twice, the first
        identity = request_id(headers.get(b"x-request-id"))
        try:
            answer = await self._answer(scope, headers, identity, receive, exchange)
        except DisconnectedError:
            self._metrics.answered("rest", "disconnected")
            return
        except asyncio.CancelledError:
            if connection is None or connection.transport.is_closing():
                self._metrics.answered("rest", "disconnected")
                return
            # The server stops, and this request took longer than it waits.
            answer = _refusal(ServingError("unavailable", "The server is stopping."))
        except ServingError as problem:
            answer = _refusal(problem)
        except Exception as problem:
            logs.error("request failed", problem, protocol="rest")
            answer = _refusal(ServingError("internal", "Internal error; the log has its place."))
        finally:
            if connection is not None:
                connection.running = None
        self._metrics.answered("rest", str(answer.status))
        if exchange is None or not _sent(exchange, answer, identity):
            await _send(answer, identity, receive, send)

    async def _answer(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        identity: str,
        receive: Receive,
        exchange: Exchange | None,
    ) -> Answer:
        path, method = scope["path"], scope["method"]
        if path.startswith("/v1/models/"):
            if found := _PREDICT.fullmatch(path):
                _allow(method, "POST")
                target = _target(*found.group(1, 2, 3))
                if found[4] != "predict":
                    raise ServingError(
                        "unimplemented", f"{found[4].capitalize()} is not offered; use :predict."
                    )
                with self._buffered.hold() as hold:
                    reader = Reader(headers, receive, exchange, hold, self._limits)
                    return await self._predict(target, reader, identity)
            if found := _STATUS.fullmatch(path):
                _allow(method, "GET", "HEAD")
                target = _target(*found.group(1, 2, 3))
                return self._metadata(target) if found[4] else self._status(target)
        elif path in _PLAIN:
            _allow(method, "GET", "HEAD")
            return _PLAIN[path](self)
        raise ServingError(
            "not_found",
            "No such page. Models are at /v1/models/NAME[/versions/N|/labels/LABEL], with "
            "/metadata or :predict behind; also /healthz, /readyz and /metrics.",
        )

    async def _predict(self, target: Target, reader: Reader, identity: str) -> Answer:
        try:
            call = await self._call(reader)
        except ServingError as problem:
            model = target.model if target.model in self._engine.models() else ""
            self._observer(Observation.unread(model, identity, problem.code))
            raise
        try:
            answer = await self._engine.predict(
                PredictRequest(
                    model=target.model,
                    images=call.images,
                    version=target.version,
                    label=target.label,
                    request_id=identity,
                )
            )
        except ServingError as problem:
            raise worded(problem, *target) from None
        return _predictions(answer, call.columns)

    async def _call(self, reader: Reader) -> signatures.Call:
        headers = reader.headers
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind.startswith((b"image/", b"multipart/")) and kind not in _IMAGES:
            raise ServingError(
                "unsupported_media_type",
                "Send JSON, or one image file as image/png or image/jpeg.",
            )
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise ServingError("unsupported_media_type", "Bodies are not taken compressed.")
        body = await reader.read()
        if kind in _IMAGES or body.startswith(_MAGIC):  # curl's own type for a file is no type
            if not body:
                raise ServingError("invalid_request", "The body is empty; send an image file.")
            return signatures.Call(signatures.IMAGES, [body], columns=False)
        return signatures.from_json(jsonbody.parse(body, self._limits), self._limits)

    def _status(self, target: Target) -> Answer:
        try:
            states = self._engine.status(*target)
        except ServingError as problem:
            raise worded(problem, *target, status=True) from None
        entries = [
            {
                "version": str(one.version),
                "state": one.state,
                "status": {"error_code": one.error_code, "error_message": one.error_message},
            }
            for one in states
        ]
        return Answer(200, jsonbody.dump({"model_version_status": entries}))

    def _metadata(self, target: Target) -> Answer:
        try:
            found = self._engine.metadata(*target)
        except ServingError as problem:
            raise worded(problem, *target) from None
        outputs = {
            name: _tensor(name, "DT_FLOAT", (-1, len(found.classes))) for name in found.outputs
        }
        definitions = {
            signature: {
                "inputs": {name: _tensor(name, "DT_STRING", (-1,))},
                "outputs": outputs,
                "method_name": signatures.METHOD,
                "defaults": {},
            }
            for signature, name in signatures.INPUTS.items()
        }
        document = {
            "model_spec": {
                "name": found.model,
                "signature_name": "",
                "version": str(found.version),
            },
            "metadata": {
                "signature_def": {"signature_def": definitions},
                "classes": list(found.classes),
                "intended_use": dict(HEADERS)[b"x-intended-use"].decode(),
            },
        }
        return Answer(200, jsonbody.dump(document), _version(found.version))

    def _health(self) -> Answer:
        return Answer(200, b'{"status":"alive"}')

    def _readiness(self) -> Answer:
        if self._engine.ready and not self.stopping:
            return Answer(200, b'{"status":"ready"}')
        raise ServingError(
            "unavailable",
            "The server is stopping." if self.stopping else "No live version answers yet.",
            retry_after=1.0,
        )

    def _metrics_page(self) -> Answer:
        return Answer(200, self._metrics.text(), content_type=CONTENT_TYPE.encode())


_PLAIN: Mapping[str, Callable[[RestApp], Answer]] = {
    "/healthz": RestApp._health,
    "/readyz": RestApp._readiness,
    "/metrics": RestApp._metrics_page,
}


def _target(model: str, version: str | None, label: str | None) -> Target:
    number = int(version[:20]) if version else None
    if number is not None and number > _MAX_VERSION:
        raise ServingError("invalid_request", "Failed to convert version: it exceeds 64 bits.")
    return Target(model, number, label)


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise ServingError(
            "method_not_allowed",
            f"This page takes {' or '.join(allowed)} only.",
            details={"allow": list(allowed)},
        )


def _predictions(answer: PredictAnswer, columns: bool) -> Answer:
    if columns:
        document: dict[str, Any] = {"outputs": dict(answer.outputs)}
    else:
        names, rows = list(answer.outputs), zip(*answer.outputs.values(), strict=True)
        document = {"predictions": [dict(zip(names, row, strict=True)) for row in rows]}
    body = jsonbody.dump(document)
    if b"null" in body:  # as which NaN and infinity are written, and nothing else here
        raise ServingError("internal", "The model's answer is not a number.")
    return Answer(200, body, _version(answer.version))


def _version(number: int) -> Sequence[tuple[bytes, bytes]]:
    return ((b"x-model-version", b"%d" % number),)


def _tensor(name: str, kind: str, shape: Sequence[int]) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in shape]
    return {
        "dtype": kind,
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": name,
    }


def _refusal(problem: ServingError) -> Answer:
    headers = []
    if problem.retry_after is not None or problem.http_status in (429, 503):
        headers.append((b"retry-after", b"%d" % max(1, round(problem.retry_after or 1.0))))
    if problem.code == "method_not_allowed":
        headers.append((b"allow", ", ".join(problem.details["allow"]).encode()))
    document = {"error": str(problem), "code": problem.code, "details": problem.details}
    # What is left of a body that was not read is not waited for.
    close = problem.code in ("too_large", "request_timeout", "overloaded", "unsupported_media_type")
    return Answer(CODES[problem.code][0], jsonbody.dump(document), headers, close=close)


def _sent(exchange: Exchange, answer: Answer, identity: str) -> bool:
    """Sends the common answer, JSON on a connection that stays, at once."""
    if answer.close or answer.content_type != HEADERS[0][1]:
        return False
    lines = b"x-request-id: %b\r\n%b" % (identity.encode(), LINES)
    for name, value in answer.headers:
        lines += b"%b: %b\r\n" % (name, value)
    return exchange.answer(answer.status, lines, answer.body)


async def _send(answer: Answer, identity: str, receive: Receive, send: Send) -> None:
    headers = [
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", identity.encode()),
        *HEADERS,
        *answer.headers,
    ]
    if answer.content_type != HEADERS[0][1]:
        headers.remove(HEADERS[0])
        headers.append((b"content-type", answer.content_type))
    if answer.close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": answer.close})
    if answer.close:
        # Closing on unread bytes resets the connection, and the client may lose the answer.
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
