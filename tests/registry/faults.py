"""Faults at the primitives that change a disk: counted, then failing or fatal at one of them."""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from registry import durable

NAMES = ("open", "write", "truncate", "fsync", "rename", "mkdir", "unlink", "rmdir")
ALLOCATES = ("open", "write", "rename", "mkdir")


class Unsynced(durable.System):
    """Syncs nothing, for what need not survive a power cut."""

    def fsync(self, descriptor):
        """Does nothing."""


class Counted(durable.System):
    """Counts the primitives, and strikes at the nth.

    Attributes:
        names: the primitives called so far, in order.
    """

    _primitives = durable.System()

    def __init__(
        self, nth: int = -1, moment: str = "before", strike: Callable[[str], None] = lambda _: None
    ):
        """Strikes before, halfway through (writes only) or after call `nth`; -1 never does."""
        self.names: list[str] = []
        self._nth = nth
        self._moment = moment
        self._strike = strike

    def _call(self, name, *arguments):
        now = len(self.names) == self._nth
        self.names.append(name)
        if now and self._moment == "halfway" and name == "write":
            descriptor, content = arguments
            self._primitives.write(descriptor, bytes(content)[: len(content) // 2])
        if now and self._moment != "after":
            self._strike(name)
        result = getattr(self._primitives, name)(*arguments)
        if now and self._moment == "after":
            self._strike(name)
        return result


for _name in NAMES:
    setattr(Counted, _name, lambda self, *a, _name=_name: self._call(_name, *a))


class Killed(Counted):
    """Kills the process at the nth call. Syncs nothing: a kill loses no page of the kernel's."""

    def __init__(self, nth: int, moment: str):
        """Kills as `kill -9` does, which no handler and no `finally` survives."""
        super().__init__(nth, moment, lambda _: os.kill(os.getpid(), signal.SIGKILL))

    _primitives = Unsynced()


class Broken(Counted):
    """Fails once, with an input/output error, before or after the nth call."""

    def __init__(self, nth: int, moment: str):
        """Fails as a bad disk does."""
        super().__init__(nth, moment, self._fail)
        self.failed = ""

    def _fail(self, name):
        self.failed = name
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class Full(Counted):
    """From the nth call on, nothing that needs space succeeds; a write may take half."""

    def __init__(self, nth: int, moment: str):
        """Fails as a full disk does."""
        super().__init__(nth, moment)
        self.failed = ""

    def _call(self, name, *arguments):
        if len(self.names) < self._nth or name not in ALLOCATES:
            return super()._call(name, *arguments)
        if name == "write" and self._moment == "halfway" and not self.failed:
            descriptor, content = arguments
            self._primitives.write(descriptor, bytes(content)[: len(content) // 2])
        self.names.append(name)
        self.failed = name
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def on(system: durable.System) -> Iterator[None]:
    """Puts `system` in the place of the real one."""
    real, durable.system = durable.system, system
    try:
        yield
    finally:
        durable.system = real


class Disk(durable.System):
    """What a power cut leaves: remembers which bytes and which names were synced.

    Follows POSIX at its least: a file's bytes survive once the file was synced, a name once its
    folder was. Everything on the disk at the beginning counts as synced.

    Attributes:
        states: what would be left after each primitive, worst first: path → bytes, None: a folder.
    """

    def __init__(self, root: Path):
        """Watches the folder `root`."""
        self._root = root
        self._open: dict[int, dict] = {}
        self._tree = self._read(root)
        self.states: list[dict[str, dict[Path, bytes | None]]] = []
        self.names: list[str] = []

    def _read(self, path: Path) -> dict:
        if not path.is_dir():
            content = path.read_bytes()
            return {"now": bytearray(content), "kept": content}
        entries = {entry.name: self._read(entry) for entry in path.iterdir()}
        return {"entries": entries, "kept": dict(entries)}

    def _node(self, path: Path) -> dict:
        node = self._tree
        for part in Path(path).relative_to(self._root).parts:
            node = node["entries"][part]
        return node

    def _left(self, node: dict, path: Path, names: str, found: dict[Path, bytes | None]) -> None:
        if "entries" not in node:
            found[path] = bytes(node["kept"])
            return
        found[path] = None
        for name, child in node[names].items():
            self._left(child, path / name, names, found)

    def _remember(self, name: str) -> None:
        left: dict[str, dict[Path, bytes | None]] = {"kept": {}, "entries": {}}
        for names, found in left.items():
            self._left(self._tree, Path(), names, found)
        self.names.append(name)
        self.states.append(left)

    def open(self, path, flags):
        descriptor = super().open(path, flags)
        folder = self._node(Path(path).parent)["entries"]
        node = folder.setdefault(Path(path).name, {"now": bytearray(), "kept": b""})
        if flags & os.O_TRUNC:
            node["now"] = bytearray()
        self._open[descriptor] = node
        self._remember("open")
        return descriptor

    def write(self, descriptor, content):
        written = super().write(descriptor, content)
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        self._open[descriptor]["now"][place - written : place] = bytes(content)[:written]
        self._remember("write")
        return written

    def truncate(self, descriptor, size):
        super().truncate(descriptor, size)
        del self._open[descriptor]["now"][size:]
        self._remember("truncate")

    def fsync(self, descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        node = self._node(path) if path.is_dir() else self._open[descriptor]
        node["kept"] = dict(node["entries"]) if "entries" in node else bytes(node["now"])
        self._remember("fsync")

    def rename(self, source, target):
        super().rename(source, target)
        node = self._node(source.parent)["entries"].pop(Path(source).name)
        self._node(target.parent)["entries"][Path(target).name] = node
        self._remember("rename")

    def mkdir(self, folder):
        super().mkdir(folder)
        entries = self._node(Path(folder).parent)["entries"]
        entries[Path(folder).name] = {"entries": {}, "kept": {}}
        self._remember("mkdir")

    def unlink(self, path):
        super().unlink(path)
        del self._node(Path(path).parent)["entries"][Path(path).name]
        self._remember("unlink")

    def rmdir(self, folder):
        super().rmdir(folder)
        del self._node(Path(folder).parent)["entries"][Path(folder).name]
        self._remember("rmdir")


def lay(state: dict[Path, bytes | None], root: Path) -> None:
    """Writes a state that a `Disk` remembered to the folder `root`."""
    for path, content in state.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
