"""One change at a time in a bucket: a lock object with its holder's name and an expiry.

The object is created where none is (`ifGenerationMatch` 0) and taken over, once expired, only as
the generation that was read: of two who try, one wins. A holder that was paused beyond its expiry
finds another generation at its next step and stops (a fencing token: M. Kleppmann, "How to do
distributed locking", 2016). Hosts must agree on the time within a few seconds.
"""

import contextlib
from collections.abc import Iterator

from registry.bucket_objects import ObjectChanged, ObjectDocument, Objects
from registry.interface import RegistryError
from registry.lease import Clock, Holder, Lease, taken_over

LOCK = ".lock"
SECONDS = 120.0  # a lease; it is renewed between files and while an operation is waited for
TIMEOUT = 180.0  # seconds to wait for another's: longer than a lease that nobody renews
PAUSE = 1.0  # seconds between two looks


class ObjectLease(Lease):
    """A lease in an object."""

    def __init__(self, objects: Objects, name: str, mine: Holder, generation: int, clock: Clock):
        """Wraps the lock object `name`; use `held`."""
        super().__init__(objects.uri(name), mine, SECONDS, clock)
        self._objects = objects
        self._name = name
        self._generation = generation

    def release(self) -> None:
        """Removes the lock where it is still ours."""
        with contextlib.suppress(RegistryError):
            self._objects.delete(self._name, generation=self._generation)

    def _prove(self) -> None:
        """Nothing: within its time it is ours, and a write after it finds another generation."""

    def _renew(self, renewed: Holder) -> None:
        try:
            self._generation = self._objects.write(
                self._name, renewed.to_json(), generation=self._generation
            )
        except ObjectChanged as error:
            raise taken_over(self._where) from error


class BucketLock:
    """The lock of all models below one prefix.

    While it is held, the registry's documents are read once: a write by a holder that was overtaken
    then fails, whenever it was paused.
    """

    def __init__(
        self, objects: Objects, documents: tuple[ObjectDocument, ...], clock: Clock | None = None
    ):
        """Guards `documents`; `clock` is what the expiry goes by."""
        self._objects = objects
        self._documents = documents
        self._clock = clock

    @contextlib.contextmanager
    def held(self, who: str) -> Iterator[Lease]:
        """Holds it exclusively; see `held`."""
        with contextlib.ExitStack() as entered:
            lease = entered.enter_context(held(self._objects, LOCK, who, clock=self._clock))
            for document in self._documents:
                entered.enter_context(document.held())
            yield lease


@contextlib.contextmanager
def held(
    objects: Objects, name: str, who: str, timeout: float = TIMEOUT, clock: Clock | None = None
) -> Iterator[Lease]:
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
        other = None if found is None else Holder.parsed(found.content)
        if other is None or other.until <= now:
            mine = Holder.now(who, "", now, SECONDS)
            with contextlib.suppress(ObjectChanged):
                generation = objects.write(name, mine.to_json(), found.generation if found else 0)
                break
        if clock.time() > deadline:
            raise TimeoutError(f"{objects.uri(name)} is held by {other or 'somebody'}")
        clock.sleep(PAUSE)
    lease = ObjectLease(objects, name, mine, generation, clock)
    try:
        yield lease
    finally:
        lease.release()
