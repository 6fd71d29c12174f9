"""Small files that a registry reads as a whole and replaces in one step, wherever they are kept."""

from pathlib import Path
from typing import Protocol

from registry import durable


class Document(Protocol):
    """One such file; it need not exist.

    Attributes:
        where: its path or URI.
        name: the last part of it.
    """

    where: str
    name: str

    def read(self) -> bytes | None:
        """All of it, None where there is none."""

    def write(self, content: bytes) -> None:
        """Replaces what was read last in one step: readers see the old or the new, whole.

        What was never read must be absent, where the place can tell.
        """

    def append(self, line: bytes) -> None:
        """Adds one line to the end of what was read last."""

    def cut(self, size: int) -> None:
        """Cuts what was read last off after `size` bytes."""

    def fence(self) -> None:
        """Makes a `write` fail that was overtaken, where the place can; else it does nothing."""


class FileDocument:
    """A document on a disk, written so that it survives a power cut."""

    def __init__(self, path: Path):
        """Names a file."""
        self._path = path
        self.where = str(path)
        self.name = path.name

    def read(self) -> bytes | None:
        """All of it, None where there is none."""
        try:
            return self._path.read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None

    def write(self, content: bytes) -> None:
        """Replaces it by one rename."""
        durable.write(self._path, content)

    def append(self, line: bytes) -> None:
        """Adds one line; a crash may leave a part of it."""
        durable.append(self._path, line)

    def cut(self, size: int) -> None:
        """Cuts it off; needs no space."""
        durable.cut(self._path, size)

    def fence(self) -> None:
        """Nothing: a rename asks nobody. The lease is checked just before it."""
