"""One change at a time: a lock with a name on it that dies with its holder.

Between processes of one kernel, `flock` excludes and the kernel frees it when the holder dies, even
by kill -9. It may not reach other hosts that share the folder, so the lock file also holds a lease:
who, where, since, until. Another host's lease is respected until it ends, and a holder proves that
the lease is still its own before it moves anything (a fencing check: M. Kleppmann, "How to do
distributed locking", 2016). Hosts must agree on the time within a fraction of `SECONDS`.
"""

import abc
import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from registry import durable
from registry.interface import RegistryError

SECONDS = 300.0  # a lease; renewed between files, so longer than one file of 8 GiB takes
TIMEOUT = 60.0  # seconds to wait; a push of a large model holds the lock while it copies

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """What time it is and how to wait, exchangeable in tests."""

    def time(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""
        time.sleep(seconds)


@dataclasses.dataclass(frozen=True)
class Holder:
    """Whose lease it is.

    Attributes:
        who: the account or system that changes the registry.
        host: name of its machine, for people.
        kernel: id of the running kernel, equal for all containers of a machine; empty where no
            lock of a kernel counts.
        pid: its process.
        since, until: seconds since 1970, UTC.
        token: random, so that no two leases are equal.
    """

    who: str
    host: str
    kernel: str
    pid: int
    since: float
    until: float
    token: str

    @classmethod
    def now(cls, who: str, kernel: str, since: float, seconds: float) -> "Holder":
        """This process, from `since` on for `seconds`."""
        host, token = os.uname().nodename, os.urandom(16).hex()
        return cls(who, host, kernel, os.getpid(), since, since + seconds, token)

    @classmethod
    def parsed(cls, content: bytes) -> "Holder | None":
        """Reads what `to_json` wrote; None where that holds no lease that can be read."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            return None

    def to_json(self) -> bytes:
        """The bytes of a lock file."""
        return json.dumps(dataclasses.asdict(self)).encode()

    def __str__(self) -> str:
        since, until = (
            datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="seconds")
            for moment in (self.since, self.until)
        )
        return f"{self.who} on {self.host}, process {self.pid}, since {since}, until {until}"


def taken_over(where: str, by: str = "") -> RegistryError:
    """The error of a change whose lock somebody else has now."""
    return RegistryError(
        f"The lock {where} was taken over{by}: this change stopped before it moved anything. "
        "Repeat it."
    )


class Lease(abc.ABC):
    """A lease that is held, wherever its lock lies."""

    def __init__(self, where: str, mine: Holder, seconds: float, clock: Clock):
        """Holds the lock at `where`, for `seconds` at a time; use `held`."""
        self._where = where
        self._mine = mine
        self._seconds = seconds
        self._clock = clock

    def check(self) -> None:
        """Proves that the lease is still ours, and renews it when half of it is over.

        Raises:
            RegistryError: it ended, or somebody else holds it.
        """
        self._prove()
        left = self._mine.until - self._clock.time()
        if left <= 0:
            raise RegistryError(
                f"The lease on {self._where} ended {-left:.0f} s ago: this change was paused or "
                "too slow, and stopped before it moved anything. Repeat it."
            )
        if left < self._seconds / 2:
            renewed = dataclasses.replace(self._mine, until=self._clock.time() + self._seconds)
            self._renew(renewed)
            self._mine = renewed

    @abc.abstractmethod
    def _prove(self) -> None:
        """Raises RegistryError where somebody else can be seen to hold the lock."""

    @abc.abstractmethod
    def _renew(self, renewed: Holder) -> None:
        """Writes a later end; raises RegistryError where the lock is not ours any more."""


def holder(path: Path) -> Holder | None:
    """Reads whose lease a lock file holds; None where it holds none that can be read."""
    try:
        return Holder.parsed(path.read_bytes())
    except OSError:
        return None


class FileLease(Lease):
    """A lease in a locked file."""

    def __init__(self, path: Path, descriptor: int, mine: Holder):
        """Wraps the open lock file; use `held`."""
        super().__init__(str(path), mine, SECONDS, Clock())
        self._path = path
        self._descriptor = descriptor

    def _prove(self) -> None:
        current = holder(self._path)
        if current is None or current.token != self._mine.token:
            raise taken_over(self._where, f" by {current or 'nobody known'}")

    def _renew(self, renewed: Holder) -> None:
        _store(self._descriptor, renewed)


class FolderLock:
    """The lock of all models in one folder."""

    def __init__(self, folder: Path):
        """Names the folder, which exists once somebody takes the lock."""
        self._path = folder / ".lock"

    def held(self, who: str) -> contextlib.AbstractContextManager[Lease]:
        """Holds it exclusively; see `held`."""
        return held(self._path, who, TIMEOUT)


@contextlib.contextmanager
def held(path: Path, who: str, timeout: float) -> Iterator[Lease]:
    """Holds a lock file exclusively between processes, threads and hosts.

    Args:
        path: the lock file; created when absent, never removed.
        who: who changes something, for those who wait.
        timeout: seconds to wait for another holder.

    Raises:
        TimeoutError: another held it all the while; says who.
        OSError: the lease cannot be written.
    """
    deadline = time.monotonic() + timeout
    while (descriptor := _taken(path)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} is held by {holder(path) or 'somebody'}")
        time.sleep(0.02)
    try:
        mine = Holder.now(who, _kernel(), time.time(), SECONDS)
        _store(descriptor, mine)
        yield FileLease(path, descriptor, mine)
    finally:
        # The kernel frees the lock whatever happens; the lease goes too, for hosts that wait.
        with contextlib.suppress(OSError):
            durable.system.truncate(descriptor, 0)
        os.close(descriptor)


def _taken(path: Path) -> int | None:
    """The locked file's descriptor; None while somebody else holds the lock or a lease."""
    descriptor = durable.system.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    current = holder(path)
    # On this kernel a holder that is alive has the lock: a lease that is left is a dead one's.
    elsewhere = current and current.kernel != _kernel() and current.until > time.time()
    if elsewhere or not _is_file_at(descriptor, path):
        os.close(descriptor)
        return None
    return descriptor


def _is_file_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has this name; a removed lock file locks nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _store(descriptor: int, mine: Holder) -> None:
    content = mine.to_json()
    os.lseek(descriptor, 0, os.SEEK_SET)
    durable.write_all(descriptor, content)
    durable.system.truncate(descriptor, len(content))
    durable.system.fsync(descriptor)


def _kernel() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return os.uname().nodename
