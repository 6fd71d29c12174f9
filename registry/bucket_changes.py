"""How a registry in a bucket changes: as a local one does, with the lock an object."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, cast

from registry import bucket_lock
from registry.bucket_history import BucketHistory
from registry.bucket_lock import Clock
from registry.bucket_store import BucketStore
from registry.changes import Change, Changes
from registry.interface import Event, RegistryError, Traffic

LOCK = ".lock"


class RemotePointer(Protocol):
    """Who answers, kept where a server looks."""

    def read(self) -> Traffic:
        """Returns who answers now."""

    def loaded(self) -> frozenset[int]:
        """Returns the versions that are ready to answer."""

    def move(self, traffic: Traffic, ready: tuple[int, ...] = ()) -> None:
        """Says in one step who answers; `ready` is to stay loaded besides."""

    def fence(self) -> None:
        """Makes a move fail that began before this call and has not moved anything yet."""

    def tidy(self, ready: tuple[int, ...] = ()) -> None:
        """Finishes what follows a move, however far it came."""


class BucketChanges(Changes):
    """What changes have in common, where versions and their history are objects."""

    def __init__(
        self,
        store: BucketStore,
        history: BucketHistory,
        pointer: RemotePointer,
        clock: Clock | None = None,
    ):
        """Works on one model; `clock` is what the lock's expiry goes by."""
        super().__init__(
            cast(Any, store.objects.uri()), cast(Any, store), cast(Any, history), cast(Any, pointer)
        )
        self._remote = store
        self._remote_history = history
        self._remote_pointer = pointer
        self._clock = clock
        self.keep: bucket_lock.BucketLease | None = None

    @contextlib.contextmanager
    def held(self, who: str, create: bool = False) -> Iterator[Change]:
        """Holds the registry's lock, with what an earlier crash left behind settled.

        Args:
            who: who changes something.
            create: the model need not exist yet.

        Raises:
            RegistryError: there is no such model, or another change does not end.
        """
        if not create and not self.history.events():
            raise RegistryError(f"There is no such model in {self._root}. Push one first.")
        try:
            with bucket_lock.held(self._remote.objects, LOCK, who, clock=self._clock) as lease:
                self.keep = lease
                with self._remote_history.held():
                    self._settle()
                    yield Change(self, cast(Any, lease))
        except TimeoutError as error:
            raise RegistryError(f"Another change is under way: {error}. Try again.") from error
        except OSError as error:  # the scratch folder, or the source
            raise RegistryError(
                f"The change of {self._root} did not complete: {error}. Mend the cause and repeat "
                "the command."
            ) from error
        finally:
            self.keep = None

    def close(self, sequence: int, state: str, pushed: int | None = None) -> None:
        """Records the outcome of an intent, with who answers now; see `Changes.close`."""
        self.history.close(
            sequence,
            state=state,
            traffic=self.pointer.read(),
            manifest_sha256=self._remote.manifest_sha256(pushed) if pushed else None,
        )

    def _settle(self) -> None:
        """Closes changes that a crash cut short, and removes what they left behind."""
        self._remote.sweep()
        unfinished = [event for event in self.history.events() if event.state == "unfinished"]
        if not unfinished:
            return
        self._remote_pointer.fence()
        back = self.previous()
        self._remote_pointer.tidy(() if back is None else (back,))
        present = set(self._remote.numbers())
        for event in unfinished:
            done = self._is_done(event, present)
            pushed = event.version if done and event.action == "push" else None
            if event.action == "push" and not done:
                self._remote.forget(event.version)
            self.close(event.sequence, "done" if done else "abandoned", pushed)

    def _is_done(self, event: Event, present: set[int]) -> bool:
        if event.action == "push":
            return event.version in present
        if event.action == "gc":
            return event.version not in present
        if event.action == "sign":
            return self._remote.is_signed(event.version)
        live = event.previous if event.action == "set_traffic" else event.version
        return self.pointer.read() == Traffic(live, event.canary, event.percent)
