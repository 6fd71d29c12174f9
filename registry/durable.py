"""Writes that survive a power cut: nothing is visible under its name before it is on the disk."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 20


def sync_folder(folder: Path) -> None:
    """Makes the names inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Creates a folder and its missing parents, durably; an existing one is left as it is."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write(path: Path, content: bytes) -> None:
    """Replaces the file `path` by `content` in one step: readers see the old or the new, whole."""
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb", buffering=0) as file:
        _write_all(file.fileno(), content)
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def append(path: Path, line: bytes) -> None:
    """Adds one line to the end of a file, durably."""
    created = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        _write_all(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if created:
        sync_folder(path.parent)


def copy(source: Path, target: Path) -> None:
    """Copies one plain file durably; only the entry in the target's folder is left to sync.

    Raises:
        OSError: `source` is a symbolic link, or cannot be read or written.
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as reader, open(target, "xb", buffering=0) as writer:
        while block := reader.read(BLOCK):
            _write_all(writer.fileno(), block)
        os.fsync(writer.fileno())


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Holds an exclusive lock between processes and threads; the kernel frees it if we die.

    Args:
        path: the lock file; created when absent, never removed.
        timeout: seconds to wait for another holder.

    Raises:
        TimeoutError: another process held it all the while.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} stayed locked for {timeout:g} s") from error
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
