"""The engine: loaded versions, who answers which request, and what becomes of a bad canary.

`serving.interface.Engine` is its contract with REST and gRPC.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from registry import serving_config
from registry.interface import RegistryError, Traffic
from registry.local import LocalRegistry
from registry.serving_config import ModelConfig
from serving import heap
from serving.batching import Batcher
from serving.canary import CanaryWatch, Pair
from serving.computing import Job, Result
from serving.config import ServerSettings
from serving.errors import ServingError
from serving.interface import (
    ModelMetadata,
    Observation,
    Observer,
    PredictAnswer,
    PredictRequest,
    VersionStatus,
)
from serving.loading import AdmissionFactory, Loader
from serving.routing import Choice, Table, unavailable
from serving.tables import Managed
from serving.versions import Versions

POINTER = "models.config"
WHO = "server"

log = logging.getLogger(__name__)


class ServingEngine:
    """All models of one `models.config`.

    Args:
        settings: of the server.
        admission: makes what stands in front of each version; None: the server's own.
        end_canary: ends a canary in its registry: entry, canary's version, reason. Runs in a
            thread.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        admission: AdmissionFactory | None = None,
        end_canary: Callable[[ModelConfig, int, str], None] | None = None,
    ):
        self._settings = settings
        self._pointer = settings.registry / POINTER
        self._content: bytes | None = None
        threads = settings.batching.threads or len(os.sched_getaffinity(0))
        self._batcher = Batcher(settings.batching, threads)
        self._versions = Versions(Loader(settings, threads + 1, admission).load, self._changed)
        self._canaries = CanaryWatch(settings.canary, self._withdraw)
        self._observers: list[Observer] = [self._canaries]
        self._end_canary = end_canary or end_in_registry
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloads = asyncio.Lock()
        self._stopping = False

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Loads what `models.config` names, and watches it from then on; see `Engine.start`."""
        self._batcher.start()
        await self._look()
        await self._versions.loaded()
        heap.settle()
        self._spawn(self._watch())

    async def stop(self) -> None:
        """Takes no new request, waits for those under way, frees everything."""
        self._stopping = True
        end = time.monotonic() + self._settings.drain_seconds
        await self._versions.stop(self._settings.drain_seconds)
        self._batcher.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        left = max(1.0, end - time.monotonic())
        if await asyncio.to_thread(self._batcher.join, left):
            await asyncio.sleep(0)  # the last answers are delivered on this loop
            await self._versions.free()
        else:
            log.error("a request is still being computed; its version is left to the process' end")
        heap.release()

    # ------------------------------------------------------------------ requests

    async def predict(self, request: PredictRequest) -> PredictAnswer:
        """Answers one request with exactly one version; see `Engine.predict`."""
        start = time.monotonic()
        choice: Choice[Managed] | None = None
        result: Result | None = None
        code: str | None = "internal"
        try:
            if self._stopping:
                raise unavailable("The server stops.")
            choice = self._versions.table.choose(
                request.model, request.version, request.label, request.request_id
            )
            classes = _classes(choice.version)  # after the answer the version may be gone
            result = await self._compute(choice.version, request)
            code = "ok"
            return PredictAnswer(request.model, choice.version.number, result.outputs, classes)
        except ServingError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = None  # the client left: there is no answer to count
            raise
        finally:
            if code is not None:
                self._tell(request, choice, code, time.monotonic() - start, result)

    async def _compute(self, version: Managed, request: PredictRequest) -> Result:
        job: Job = self._batcher.submit(
            version,
            request.images,
            request.deadline,
            lambda: self._versions.release(version),
        )
        self._versions.acquire(version)  # no thread's answer can come before: same event loop
        try:
            return await job.future
        except asyncio.CancelledError:
            job.dropped = True
            raise

    def _tell(
        self,
        request: PredictRequest,
        choice: Choice[Managed] | None,
        code: str,
        seconds: float,
        result: Result | None,
    ) -> None:
        known = request.model in self._versions.table.routes or choice is not None
        observation = Observation(
            model=request.model if known else "",
            version=choice.version.number if choice else None,
            canary=choice.canary if choice else False,
            routed=choice.routed if choice else False,
            request_id=request.request_id,
            code=code,
            seconds=seconds,
            images=len(request.images),
            probabilities=result.outputs["probabilities"] if result else None,
            descriptors=result.descriptors if result else None,
        )
        for observer in self._observers:
            try:
                observer(observation)
            except Exception:  # who watches must not break what is watched
                log.exception("an observer failed")

    # ------------------------------------------------------------------ what is

    def status(
        self, model: str, version: int | None = None, label: str | None = None
    ) -> Sequence[VersionStatus]:
        """States of the versions of a model; see `Engine.status`."""
        known = self._versions.known(model)
        if not known:
            self._versions.table.route(model)  # says which models there are
        if label is not None:
            version = self._versions.table.named(model, None, label).number
        found = [one.status() for one in known if version is None or one.number == version]
        if not found:
            raise ServingError("not_found", f"Model {model} has no version {version}.")
        return found

    def metadata(
        self, model: str, version: int | None = None, label: str | None = None
    ) -> ModelMetadata:
        """What a loaded version takes and gives; see `Engine.metadata`."""
        found = self._versions.table.named(model, version, label)
        assert found.loaded is not None
        runtime = found.loaded.runtime
        return ModelMetadata(model, found.number, tuple(runtime.outputs), tuple(runtime.classes))

    def models(self) -> Mapping[str, Traffic]:
        """Who answers requests that name neither a version nor a label, as routing has it now."""
        return {
            name: Traffic(
                route.live.number if route.live else None,
                route.canary.number if route.canary else None,
                route.percent,
            )
            for name, route in self._versions.table.routes.items()
        }

    @property
    def ready(self) -> bool:
        """Every configured model, one at least, has a live version that answers."""
        routes = self._versions.table.routes.values()
        return bool(routes) and not self._stopping and all(route.live for route in routes)

    @property
    def queued(self) -> int:
        """Images that wait for their turn."""
        return self._batcher.queued

    def observe(self, observer: Observer) -> None:
        """Calls `observer` after each request that was answered, on the event loop."""
        self._observers.append(observer)

    # ------------------------------------------------------------------ what is configured

    async def reload(self, models: Sequence[ModelConfig]) -> None:
        """Serves exactly these models until the file changes; see `Engine.reload`."""
        root = self._settings.registry.resolve()
        for model in models:
            if Path(model.base_path).resolve().parent != root:
                raise ServingError(
                    "invalid_request",
                    f"The base_path of {model.name} is not a model of this server's registry.",
                )
        async with self._reloads:
            try:
                await self._versions.propose(models)
            except RegistryError as error:
                raise ServingError("invalid_request", str(error)) from error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                await self._look()
                self._versions.tick()
            except Exception:
                log.exception("looking at %s failed; what is loaded goes on", self._pointer)

    async def _look(self) -> None:
        """Reads the pointer, and follows it where it changed.

        All of it, each time: it is a kilobyte, and no time stamp is as sure as the content.
        """
        try:
            content = await asyncio.to_thread(self._pointer.read_bytes)
        except OSError as error:
            content = b""
            problem = f"{self._pointer} cannot be read ({error.strerror})"
        else:
            # A model list may be empty; a file without one is a copy that was cut short.
            problem = "" if content.strip() else f"{self._pointer} is empty"
        if content == self._content:
            return
        self._content = content
        try:
            if not problem:
                self._versions.configure(serving_config.parse(content.decode()))
        except (RegistryError, UnicodeDecodeError) as error:
            problem = str(error)
        if problem:
            log.error("%s; what is loaded goes on", problem)

    # ------------------------------------------------------------------ canaries

    def _changed(self, table: Table[Managed]) -> None:
        self._canaries.follow(
            {
                name: Pair(
                    route.live.number,
                    route.canary.number,
                    comparable=_classes(route.live) == _classes(route.canary),
                )
                for name, route in table.routes.items()
                if route.percent and route.live is not None and route.canary is not None
            }
        )

    def _withdraw(self, model: str, canary: int, reason: str) -> None:
        """Takes a canary out of routing at once, then out of the registry."""
        config = next(entry for entry in self._versions.configured if entry.name == model)
        if self._versions.withdraw(model, canary):
            log.error("canary %d of %s is taken out of traffic: %s", canary, model, reason)
            self._spawn(self._record(config, canary, f"Automatic rollback of the canary: {reason}"))

    async def _record(self, config: ModelConfig, canary: int, reason: str) -> None:
        try:
            await asyncio.to_thread(self._end_canary, config, canary, reason)
        except Exception as error:
            log.error(
                "the registry does not know yet that canary %d of %s is out of traffic (%s). This "
                "server keeps it out; run `cortexflow set-traffic` to record it.",
                canary, config.name, error,
            )  # fmt: skip

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def end_in_registry(config: ModelConfig, canary: int, reason: str) -> None:
    """Ends a canary in its local registry, unless another one has taken its place.

    Raises:
        RegistryError: it cannot be written.
    """
    base = Path(config.base_path)
    registry = LocalRegistry(base.parent, base.name)
    if registry.traffic().canary == canary:
        registry.set_traffic(None, 0, reason=reason, who=WHO)


def _classes(version: Managed) -> Sequence[str]:
    return version.loaded.runtime.classes if version.loaded else ()
