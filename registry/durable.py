"""Writes that survive a power cut: nothing is visible under its name before it is on the disk.

Every call that changes the disk goes through `system`, the one seam at which faults are injected
(tests/registry/faults.py) and at which another store could take the disk's place.
"""

import os
from pathlib import Path

BLOCK = 1 << 20


class System:
    """The primitives that change a disk, as the operating system gives them."""

    def open(self, path: Path, flags: int) -> int:
        """Opens a file for writing; may create it. Returns its descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, 0o644)

    def write(self, descriptor: int, content: bytes | memoryview) -> int:
        """Writes at the descriptor's place. Returns how many bytes were taken."""
        return os.write(descriptor, content)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cuts a file off after `size` bytes."""
        os.ftruncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        """Returns once the file, or the names in the folder, are on the disk."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Renames in one step; a file there is replaced."""
        os.rename(source, target)

    def mkdir(self, folder: Path) -> None:
        """Creates a folder."""
        os.mkdir(folder)

    def unlink(self, path: Path) -> None:
        """Removes a file's name."""
        os.unlink(path)

    def rmdir(self, folder: Path) -> None:
        """Removes an empty folder."""
        os.rmdir(folder)


system = System()


def sync_folder(folder: Path) -> None:
    """Makes the names inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        system.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Creates a folder and its missing parents, durably; an existing one is left as it is."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        system.mkdir(folder)
    except FileExistsError:  # another process was first
        if not folder.is_dir():
            raise
    sync_folder(folder.parent)


def write(path: Path, content: bytes) -> None:
    """Replaces the file `path` by `content` in one step: readers see the old or the new, whole."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = system.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW)
    try:
        write_all(descriptor, content)
        system.fsync(descriptor)
    finally:
        os.close(descriptor)
    system.rename(temporary, path)
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Removes what a `write` into this folder that died left behind."""
    for entry in sorted(folder.glob(".*.new")):
        remove(entry)


def append(path: Path, line: bytes) -> None:
    """Adds one line to the end of a file, durably."""
    created = not path.exists()
    descriptor = system.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        write_all(descriptor, line + b"\n")
        system.fsync(descriptor)
    finally:
        os.close(descriptor)
    if created:
        sync_folder(path.parent)


def cut(path: Path, size: int) -> None:
    """Cuts a file off after `size` bytes, durably; needs no space, so a full disk does not matter.

    Raises:
        OSError: the file is absent or cannot be written.
    """
    descriptor = system.open(path, os.O_WRONLY)
    try:
        system.truncate(descriptor, size)
        system.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    """Copies one plain file durably; only the entry in the target's folder is left to sync.

    Raises:
        OSError: `source` is a symbolic link, or cannot be read or written; `target` exists.
    """
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe is empty
    try:
        writer = system.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            while block := os.read(reader, BLOCK):
                write_all(writer, block)
            system.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def remove(path: Path) -> None:
    """Removes a file; one that is absent is no error."""
    if os.path.lexists(path):
        system.unlink(path)
        sync_folder(path.parent)


def remove_tree(folder: Path) -> None:
    """Removes a folder and all in it, following no link; one that is absent is no error."""
    if not folder.is_dir() or folder.is_symlink():
        remove(folder)
        return
    _empty(folder)
    system.rmdir(folder)
    sync_folder(folder.parent)


def _empty(folder: Path) -> None:
    with os.scandir(folder) as entries:
        found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, is_folder in sorted(found):
        if is_folder:
            _empty(path)
            system.rmdir(path)
        else:
            system.unlink(path)


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of `content` at the descriptor's place."""
    view = memoryview(content)
    while view:
        view = view[system.write(descriptor, view) :]
