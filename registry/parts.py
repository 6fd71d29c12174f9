"""What `registry.versioned` asks of the parts of a registry, whatever they are stored in.

A store (`registry.store.Store`) holds versions, a pointer says who answers, a history records what
was changed in a `registry.documents.Document`, and a lock lets one change at a time.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from registry.history import History
from registry.interface import RegistryError, Traffic
from registry.lease import Lease

if TYPE_CHECKING:
    from registry.store import Store

Keep = Callable[[], None]  # proves that the lock is still ours; called between long steps


class Renumbered(RegistryError):
    """A store gave a version another number than it foresaw; the push is made once more."""


class LivePointer(Protocol):
    """Who answers, kept where a server looks."""

    def read(self) -> Traffic:
        """Returns who answers now; nobody where there is no pointer yet."""

    def loaded(self) -> frozenset[int]:
        """Returns the versions that are ready to answer."""

    def move(self, traffic: Traffic, ready: tuple[int, ...], keep: Keep) -> None:
        """Says in one step who answers; other models and people's own labels are untouched.

        Args:
            traffic: who answers.
            ready: versions to be ready besides, so that going back to them needs no loading.
            keep: called after what is there was read and before it is replaced.

        Raises:
            RegistryError: the pointer is malformed, or somebody else moved it meanwhile.
        """

    def fence(self) -> None:
        """Makes a move fail that began before this call and has not moved anything yet."""

    def tidy(self, ready: tuple[int, ...], keep: Keep) -> None:
        """Finishes what follows a move, however far it came."""


class ChangeLock(Protocol):
    """One change at a time."""

    def held(self, who: str) -> contextlib.AbstractContextManager[Lease]:
        """Holds the lock; `who` is for those who wait.

        Raises:
            TimeoutError: another held it all the while; says who.
        """


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a registry is made of; `place` is where it is, for messages."""

    place: str
    store: "Store"
    pointer: LivePointer
    history: History
    lock: ChangeLock
