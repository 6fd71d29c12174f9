"""Which versions are loaded: what is configured, one step after another, without a gap.

All state lives on the event loop. A thread loads one version at a time; then the routing table is
replaced in one assignment. A version that leaves the configuration is freed when the last request
on it is answered, and never before the one that takes its place answers.
"""

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from registry import serving_config
from registry.interface import RegistryError
from registry.serving_config import ModelConfig
from schema.errors import CortexflowError
from serving import heap, tables
from serving.errors import ServingError
from serving.loading import Loaded
from serving.routing import Table, unavailable
from serving.tables import Key, Managed, keys

RETRY_SECONDS = (5.0, 300.0)  # after a failed load, doubling: storage comes back
KEPT = 16  # ended versions of a model that status still tells

log = logging.getLogger(__name__)


class Versions:
    """Loaded versions of all models. Methods are for the event loop's thread.

    Args:
        load: loads one version, in a thread.
        changed: called after each new routing table.
    """

    def __init__(
        self,
        load: Callable[[ModelConfig, int], Loaded],
        changed: Callable[[Table[Managed]], None] = lambda _: None,
    ):
        self.table: Table[Managed] = Table()
        self.configured: tuple[ModelConfig, ...] = ()
        self._load = load
        self._changed = changed
        self._known: dict[Key, Managed] = {}
        self._proposed: tuple[ModelConfig, ...] = ()
        self._withdrawn: dict[str, int] = {}
        self._loading: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._stopping = False
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="load")

    # ------------------------------------------------------------------ what is wanted

    def configure(self, models: Sequence[ModelConfig]) -> None:
        """Serves these models as soon as they can be; what failed before is tried again.

        Raises:
            RegistryError: the entries contradict each other; nothing was changed.
        """
        _check(models)
        self.configured = tuple(models)
        self._try_again(models)
        self.settle()

    async def propose(self, models: Sequence[ModelConfig]) -> None:
        """Loads what these models need beside what serves, then serves them; all or nothing.

        Raises:
            RegistryError: the entries contradict each other.
            ServingError: `unavailable`: a version cannot be loaded; nothing was changed.
        """
        _check(models)
        self._proposed = tuple(models)
        try:
            self._try_again(models)
            self.settle()
            await self._settled(models)
            wanted = [self._known[key] for key in keys(models)]
            failed = [managed for managed in wanted if managed.state != "AVAILABLE"]
            if failed:
                raise ServingError(
                    "unavailable",
                    "Nothing was changed: "
                    + " ".join(
                        f"version {managed.number} of {managed.model.name} cannot be loaded "
                        f"({managed.error_message or 'it was dropped'})."
                        for managed in failed
                    ),
                )
            self.configured = tuple(models)
        finally:
            self._proposed = ()
            self.settle()

    def withdraw(self, model: str, number: int) -> bool:
        """Takes a canary's share away at once, until the configuration does; says whether it did.

        It stays loaded for those who ask for it by name.
        """
        route = self.table.routes.get(model)
        if route is None or route.canary is None or route.canary.number != number:
            return False
        self._withdrawn[model] = number
        self.settle()
        return True

    async def loaded(self) -> None:
        """Waits until every configured version is available, or has failed."""
        await self._settled(self.configured)

    def tick(self) -> None:
        """Tries failed loads again whose time has come."""
        now = time.monotonic()
        for key in keys(self.configured):
            managed = self._known[key]
            if managed.state == "END" and managed.retry_at <= now:
                self.settle()
                return

    # ------------------------------------------------------------------ requests

    def acquire(self, managed: Managed) -> None:
        """Notes a request on a version of the current table."""
        managed.requests += 1

    def release(self, managed: Managed) -> None:
        """Notes its end; a version that leaves is freed after the last one."""
        managed.requests -= 1
        if managed.state == "UNLOADING" and not managed.requests:
            self._free(managed)

    @property
    def busy(self) -> int:
        """Requests under way."""
        return sum(managed.requests for managed in self._known.values())

    # ------------------------------------------------------------------ what is

    def known(self, model: str) -> list[Managed]:
        """All versions of a model that status tells, newest first."""
        found = [managed for key, managed in self._known.items() if key[0] == model]
        return sorted(found, key=lambda managed: -managed.number)

    def settle(self) -> None:
        """Brings the table, the loads and the ends in line with what is wanted. Idempotent."""
        self._forget_withdrawals()
        needed = dict.fromkeys([*keys(self.configured), *keys(self._proposed)])
        by_key = {
            key: model for model in (*self._proposed, *self.configured) for key in keys([model])
        }
        for key in needed:
            managed = self._known.get(key)
            ended = managed is not None and managed.state == "END"
            if managed is None or (ended and not managed.error_message):
                self._known[key] = Managed(by_key[key], key[2])
            elif managed.state == "UNLOADING" and managed.loaded is not None:
                managed.state = "AVAILABLE"  # asked for again before its last request ended
        before = self.table
        if not self._stopping:
            self.table = tables.build(self.configured, self._known, before, self._withdrawn)
        in_use = {id(managed) for managed in tables.in_use(self.table)}
        for key, managed in list(self._known.items()):
            if key not in needed and id(managed) not in in_use:
                self._drop(managed)
        self._start_loading(needed)
        self._prune()
        if self.table is not before:
            self._changed(self.table)
        if self._news is not None:
            self._news.set_result(None)
            self._news = None

    async def stop(self, seconds: float) -> None:
        """Answers nobody new, waits for requests under way, frees everything."""
        self._stopping = True
        self.table = Table()
        self.settle()
        end = time.monotonic() + seconds
        while self.busy and time.monotonic() < end:
            await asyncio.sleep(0.01)

    async def free(self) -> None:
        """Frees all versions; no thread uses them any more."""
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        for managed in self._known.values():
            if managed.loaded is not None:
                self._free(managed)
        self._thread.shutdown(wait=True)

    # ------------------------------------------------------------------ inside

    def _start_loading(self, needed: Mapping[Key, None]) -> None:
        if self._loading is not None or self._stopping:
            return
        now = time.monotonic()
        for key in needed:  # live first, then the canary
            managed = self._known[key]
            again = managed.state == "END" and managed.retry_at <= now
            if managed.state == "START" or again:
                managed.state = "LOADING"
                self._loading = asyncio.create_task(self._bring_up(managed))
                return

    async def _bring_up(self, managed: Managed) -> None:
        name = f"{managed.model.name} {managed.number}"
        start = time.monotonic()
        try:
            managed.loaded = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._load, managed.model, managed.number
            )
        except Exception as error:  # whatever a model does, the server goes on
            known = isinstance(error, CortexflowError | OSError)
            managed.state = "END"
            managed.error_code = "FAILED_PRECONDITION" if known else "INTERNAL"
            managed.error_message = str(error) if known else f"{type(error).__name__}: {error}"
            wait = min(RETRY_SECONDS[0] * 2**managed.failures, RETRY_SECONDS[1])
            managed.failures += 1
            managed.retry_at = time.monotonic() + wait
            log.error("%s is not served: %s", name, managed.error_message, exc_info=not known)
        else:
            managed.state = "AVAILABLE"
            managed.error_code, managed.error_message, managed.failures = "OK", "", 0
            note = managed.loaded.note
            took = time.monotonic() - start
            log.info("%s is loaded (%s) in %.2f s", name, managed.loaded.runtime.name, took)
            if note:
                log.warning("%s: %s", name, note)
        finally:
            self._loading = None
        self.settle()

    def _drop(self, managed: Managed) -> None:
        if managed.state == "START":
            managed.state = "END"
        elif managed.state == "AVAILABLE":
            managed.state = "UNLOADING"
            if not managed.requests:
                self._free(managed)
        elif managed.state == "END":
            managed.retry_at = float("inf")

    def _free(self, managed: Managed) -> None:
        loaded, managed.loaded = managed.loaded, None
        managed.state = "END"
        log.info("%s %d is unloaded", managed.model.name, managed.number)
        if loaded is not None:
            self._thread.submit(_close, loaded)

    def _prune(self) -> None:
        """Forgets old ended versions, and all of models that are configured no more."""
        configured = {model.name for model in (*self.configured, *self._proposed)}
        ended: dict[str, list[Key]] = {}
        wanted = {*keys(self.configured), *keys(self._proposed)}
        for key, managed in self._known.items():
            if managed.state == "END" and key not in wanted:
                ended.setdefault(key[0], []).append(key)
        for name, old in ended.items():
            kept = KEPT if name in configured else 0
            for key in old[: max(len(old) - kept, 0)]:
                del self._known[key]

    def _forget_withdrawals(self) -> None:
        traffic = {model.name: serving_config.traffic(model) for model in self.configured}
        for name, number in list(self._withdrawn.items()):
            now = traffic.get(name)
            if now is None or now.canary != number or not now.percent:
                del self._withdrawn[name]

    def _try_again(self, models: Sequence[ModelConfig]) -> None:
        for key in keys(models):
            managed = self._known.get(key)
            if managed is not None and managed.state == "END":
                del self._known[key]

    async def _settled(self, models: Sequence[ModelConfig]) -> None:
        """Waits until nothing is about to happen to the versions that these models name."""
        while not self._stopping:
            found = (self._known.get(key) for key in keys(models))
            if all(managed is None or managed.settled for managed in found):
                return
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._news)
        raise unavailable("The server stops.")


def _check(models: Sequence[ModelConfig]) -> None:
    for model in models:
        serving_config.traffic(model)
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RegistryError(f"Model {twice[0]} is configured twice. Keep one of its entries.")


def _close(loaded: Loaded) -> None:
    cyclic = loaded.runtime.cyclic
    loaded.runtime.close()
    if cyclic:
        heap.settle(cyclic=True)
