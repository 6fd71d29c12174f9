"""One change at a time in a bucket: a lock object with its holder's name and an expiry.

The object is created where none is (`ifGenerationMatch` 0) and taken over, once expired, only as
the generation that was read: of two who try, one wins. A holder that was paused beyond its expiry
finds another generation at its next step and stops (a fencing token: M. Kleppmann, "How to do
distributed locking", 2016). Hosts must agree on the time within a few seconds.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator

from registry.bucket_objects import ObjectChanged, Objects, Stored
from registry.interface import RegistryError
from registry.lease import Holder

SECONDS = 120.0  # a lease; it is renewed between files and while an operation is waited for
TIMEOUT = 180.0  # seconds to wait for another's: longer than a lease that nobody renews
PAUSE = 1.0  # seconds between two looks


_sleep = time.sleep


@dataclasses.dataclass(frozen=True)
class Clock:
    """What time it is and how to wait, exchangeable in tests."""

    time: Callable[[], float] = time.time
    sleep: Callable[[float], None] = _sleep


class BucketLease:
    """A lock that is held."""

    def __init__(self, objects: Objects, name: str, mine: Holder, generation: int, clock: Clock):
        """Wraps the lock object `name`; use `held`."""
        self._objects = objects
        self._name = name
        self._mine = mine
        self._clock = clock
        self.generation = generation

    def check(self) -> None:
        """Proves that the lock is still ours, and renews it when half of it is over.

        Raises:
            RegistryError: it ended, or somebody else holds it.
        """
        left = self._mine.until - self._clock.time()
        if left <= 0:
            raise RegistryError(
                f"The lease on {self._objects.uri(self._name)} ended {-left:.0f} s ago: this "
                "change was paused or too slow, and stopped before it moved anything. Repeat it."
            )
        if left < SECONDS / 2:
            renewed = dataclasses.replace(self._mine, until=self._clock.time() + SECONDS)
            try:
                self.generation = self._objects.write(
                    self._name, _json(renewed), generation=self.generation
                )
            except ObjectChanged as error:
                raise RegistryError(
                    f"The lock {self._objects.uri(self._name)} was taken over: this change "
                    "stopped before it moved anything. Repeat it."
                ) from error
            self._mine = renewed

    def release(self) -> None:
        """Removes the lock where it is still ours."""
        with contextlib.suppress(RegistryError):
            self._objects.delete(self._name, generation=self.generation)


@contextlib.contextmanager
def held(
    objects: Objects, name: str, who: str, timeout: float = TIMEOUT, clock: Clock | None = None
) -> Iterator[BucketLease]:
    """Holds the lock object `name` between processes and hosts.

    Args:
        objects: where it lies.
        name: of the lock object; absent while nobody holds it.
        who: who changes something, for those who wait.
        timeout: seconds to wait for another holder.
        clock: the time.

    Raises:
        TimeoutError: another held it all the while; says who.
        RegistryError: the bucket cannot be reached.
    """
    clock = clock or Clock()
    deadline = clock.time() + timeout
    while True:
        found = objects.read(name)
        now = clock.time()
        other = None if found is None else _holder(found)
        if other is None or other.until <= now:
            mine = Holder(
                who, socket.gethostname(), "", os.getpid(), now, now + SECONDS,
                secrets.token_hex(16),
            )  # fmt: skip
            with contextlib.suppress(ObjectChanged):
                generation = objects.write(name, _json(mine), found.generation if found else 0)
                break
        if clock.time() > deadline:
            raise TimeoutError(f"{objects.uri(name)} is held by {other or 'somebody'}")
        clock.sleep(PAUSE)
    lease = BucketLease(objects, name, mine, generation, clock)
    try:
        yield lease
    finally:
        lease.release()


def _json(holder: Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder)).encode()


def _holder(found: Stored) -> Holder | None:
    """Whose lock it is; None where it cannot be read: then it is nobody's."""
    try:
        return Holder(**json.loads(found.content))
    except (ValueError, TypeError):
        return None
