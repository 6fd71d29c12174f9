"""One change at a time: a lock with a name on it that dies with its holder.

Between processes of one kernel, `flock` excludes and the kernel frees it when the holder dies, even
by kill -9. It may not reach other hosts that share the folder, so the lock file also holds a lease:
who, where, since, until. Another host's lease is respected until it ends, and a holder proves that
the lease is still its own before it moves anything (a fencing check: M. Kleppmann, "How to do
distributed locking", 2016). Hosts must agree on the time within a fraction of `SECONDS`.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from registry import durable
from registry.interface import RegistryError

SECONDS = 300.0  # a lease; renewed between files, so longer than one file of 8 GiB takes

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclasses.dataclass(frozen=True)
class Holder:
    """Whose lease it is.

    Attributes:
        who: the account or system that changes the registry.
        host: name of its machine, for people.
        kernel: id of the running kernel, equal for all containers of a machine.
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

    def __str__(self) -> str:
        since, until = (
            datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="seconds")
            for moment in (self.since, self.until)
        )
        return f"{self.who} on {self.host}, process {self.pid}, since {since}, until {until}"


def holder(path: Path) -> Holder | None:
    """Reads whose lease a lock file holds; None where it holds none that can be read."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class Lease:
    """A lease that is held."""

    def __init__(self, path: Path, descriptor: int, mine: Holder):
        """Wraps the open lock file; use `held`."""
        self._path = path
        self._descriptor = descriptor
        self._mine = mine

    def check(self) -> None:
        """Proves that the lease is still ours, and renews it when half of it is over.

        Raises:
            RegistryError: it ended, or somebody else holds it.
        """
        current = holder(self._path)
        if current is None or current.token != self._mine.token:
            raise RegistryError(
                f"The lock {self._path} was taken over by {current or 'nobody known'}: this change "
                "stopped before it moved anything. Repeat it."
            )
        left = self._mine.until - time.time()
        if left <= 0:
            raise RegistryError(
                f"The lease on {self._path} ended {-left:.0f} s ago: this change was paused or too "
                "slow, and stopped before it moved anything. Repeat it."
            )
        if left < SECONDS / 2:
            self._mine = dataclasses.replace(self._mine, until=time.time() + SECONDS)
            _store(self._descriptor, self._mine)


@contextlib.contextmanager
def held(path: Path, who: str, timeout: float) -> Iterator[Lease]:
    """Holds the lock exclusively between processes, threads and hosts.

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
        now = time.time()
        mine = Holder(
            who, socket.gethostname(), _kernel(), os.getpid(), now, now + SECONDS, _token()
        )
        _store(descriptor, mine)
        yield Lease(path, descriptor, mine)
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
    content = json.dumps(dataclasses.asdict(mine)).encode()
    os.lseek(descriptor, 0, os.SEEK_SET)
    durable.write_all(descriptor, content)
    durable.system.truncate(descriptor, len(content))
    durable.system.fsync(descriptor)


def _kernel() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return socket.gethostname()


def _token() -> str:
    return secrets.token_hex(8)
