"""An engine without models: two versions of `severity` that answer by an image's last bytes."""

import asyncio
import contextlib
import threading
import time
import types
import zlib

import numpy as np
import uvloop

from registry.interface import Traffic
from serving.config import ServerSettings
from serving.errors import ServingError
from serving.interface import ModelMetadata, Observation, PredictAnswer, VersionStatus
from serving.server import ModelServer

CLASSES = ("Mild", "Moderate", "None", "VeryMild")
PNG = b"\x89PNG\r\n\x1a\n"


def expected(image):
    """float32[4] that sums to 1 and differs for different images."""
    seed = zlib.crc32(image)
    weights = np.array([(seed >> shift & 255) + 1 for shift in (0, 8, 16, 24)], np.float32)
    return weights / weights.sum()


class MemoryEngine:
    """Implements `serving.interface.Engine`.

    Attributes:
        gate: while cleared, predictions wait.
        problem: raised by the next predictions when set.
        cancelled: how many predictions were cancelled.
        reloaded: what `reload` was last given.
    """

    def __init__(self):
        self.traffic = {"severity": Traffic(live=1, canary=2, percent=10)}
        self.versions = {"severity": (2, 1)}
        self.labels = {"severity": {"live": 1, "canary": 2}}
        self.gate = asyncio.Event()
        self.gate.set()
        self.problem = None
        self.poison = None
        self.cancelled = 0
        self.waiting = 0
        self.reloaded = None
        self.up = False
        self._observers = []

    async def start(self):
        self.up = True

    async def stop(self):
        self.up = False

    def observe(self, observer):
        self._observers.append(observer)

    @property
    def ready(self):
        return self.up

    @property
    def queued(self):
        return self.waiting

    def models(self):
        return self.traffic

    def _version(self, model, version, label):
        if model not in self.versions:
            raise ServingError("not_found", "engine: no model")
        if label is not None:
            version = self.labels[model].get(label)
        number = self.traffic[model].live if (version, label) == (None, None) else version
        if number not in self.versions[model]:
            raise ServingError("not_found", "engine: no version")
        return number

    async def predict(self, request):
        code, answer = "internal", None
        try:
            number = self._version(request.model, request.version, request.label)
            self.waiting += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                code = None
                raise
            finally:
                self.waiting -= 1
            if self.problem is not None:
                raise self.problem
            rows = np.stack([expected(image) for image in request.images])
            outputs = {"probabilities": rows if self.poison is None else rows * self.poison}
            answer = PredictAnswer(request.model, number, outputs, CLASSES)
            code = "ok"
            return answer
        except ServingError as problem:
            code = problem.code
            raise
        finally:
            if code is not None:
                self._tell(request, code, answer)

    def _tell(self, request, code, answer):
        known = request.model in self.versions
        for observer in self._observers:
            observer(
                Observation(
                    model=request.model if known else "",
                    version=answer.version if answer else None,
                    canary=False,
                    routed=request.version is None and request.label is None,
                    request_id=request.request_id,
                    code=code,
                    seconds=0.001,
                    images=len(request.images),
                    probabilities=answer.outputs["probabilities"] if answer else None,
                )
            )

    def status(self, model, version=None, label=None):
        if model not in self.versions:
            raise ServingError("not_found", "engine: no model")
        if version is not None or label is not None:
            return [VersionStatus(self._version(model, version, label), "AVAILABLE")]
        return [VersionStatus(number, "AVAILABLE") for number in self.versions[model]]

    def metadata(self, model, version=None, label=None):
        number = self._version(model, version, label)
        return ModelMetadata(model, number, ("probabilities",), CLASSES)

    async def reload(self, models):
        if any(9 in model.versions for model in models):
            raise ServingError("invalid_request", "Version 9 cannot be loaded.")
        self.reloaded = models


@contextlib.contextmanager
def serving(registry, **settings):
    """A server in a thread, with an event loop of its own.

    Yields:
        rest, grpc: ports; engine; server; call(function): runs it on the loop.
    """
    loop = uvloop.new_event_loop()
    server = None
    failed = []
    up = threading.Event()
    settings = {"rest_port": 0, "grpc_port": 0, "drain_seconds": 5.0, **settings}

    def work():
        nonlocal server
        asyncio.set_event_loop(loop)
        try:
            server = ModelServer(ServerSettings(registry=registry, **settings), MemoryEngine())
            loop.run_until_complete(server.start())
        except BaseException as problem:
            failed.append(problem)
            return
        finally:
            up.set()
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    up.wait()
    if failed:
        raise failed[0]

    def call(function):
        async def on_loop():
            return function()

        return asyncio.run_coroutine_threadsafe(on_loop(), loop).result(10)

    try:
        yield types.SimpleNamespace(
            rest=server.rest_port,
            grpc=server.grpc_port,
            engine=server.engine,
            server=server,
            call=call,
            stop=lambda: asyncio.run_coroutine_threadsafe(server.stop(), loop),
        )
    finally:
        if server.engine.up:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def until(condition, seconds=20.0):
    """Waits for something that other threads bring about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
