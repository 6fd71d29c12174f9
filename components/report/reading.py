"""Files of artifacts by local path, wherever the artifacts lie."""

import contextlib
import posixpath
import tempfile
from pathlib import Path
from types import TracebackType

from schema import places


class Reader(contextlib.AbstractContextManager["Reader"]):
    """Local paths of artifacts' files; what lies behind an address is copied here once.

    A path that it gives need not exist: what is missing at the address is missing here.
    """

    def __init__(self) -> None:
        self._scratch = contextlib.ExitStack()
        self._copies: dict[str, Path] = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes the copies."""
        self._copies.clear()
        self._scratch.close()

    def file(self, uri: str, name: str) -> Path:
        """The path of one file of an artifact."""
        if not places.is_remote(uri):
            return Path(uri) / name
        address = places.below(uri, name)
        if address not in self._copies:
            target = self._room() / posixpath.basename(name)
            with contextlib.suppress(FileNotFoundError):
                places.copy_file(address, str(target))
            self._copies[address] = target
        return self._copies[address]

    def folder(self, uri: str, name: str = "") -> Path:
        """The path of a folder of an artifact, or of all of it."""
        if not places.is_remote(uri):
            return Path(uri) / name
        address = places.below(uri, name) if name else uri
        if address not in self._copies:
            target = self._room()
            with contextlib.suppress(FileNotFoundError):
                places.copy(address, str(target))
            self._copies[address] = target
        return self._copies[address]

    def _room(self) -> Path:
        return Path(
            self._scratch.enter_context(tempfile.TemporaryDirectory(prefix="cortexflow-read-"))
        )
