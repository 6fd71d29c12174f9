"""Where versions lie on a disk: numbered folders with a manifest each, whole or not there at all.

    NAME/3/saved_model.pb …       version 3
    NAME/manifests/3.json         its manifest; kept when the version is removed
    NAME/manifests/3.sig          the manifest's signature, where a key was set
    NAME/.staging-…               a copy that is no version yet
    NAME/.removed-…               a version that is one no longer

A version appears and disappears by one rename of its folder. What is under the two hidden names is
nobody's, and `sweep` removes it.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from registry import durable, manifest
from registry.documents import FileDocument
from registry.interface import File, Version
from registry.keys import Keys
from registry.parts import Keep
from registry.store import Store

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_STAGING, _REMOVED = ".staging-", ".removed-"


class FolderStore(Store):
    """Versions as folders."""

    def __init__(self, root: Path, name: str, keys: Keys):
        """Keeps the versions of model `name` below `root`, which need not exist."""
        super().__init__(name, keys)
        self._root = root
        self.folder = root / name
        self._manifests = self.folder / "manifests"

    def exists(self) -> bool:
        """Whether the model has a folder."""
        return self.folder.is_dir()

    def create(self) -> None:
        """Makes the model's folder."""
        durable.make_folder(self.folder)

    def path(self, number: int) -> Path:
        """Folder of a version, whether there is one or not."""
        return self.folder / str(number)

    def uri(self, number: int) -> str:
        """Folder of a version that there is."""
        return str(self.path(self.show(number).number))

    def numbers(self) -> list[int]:
        """Numbers that have both a folder and a manifest, ascending."""
        return sorted(n for n in self._folders() if self._file(n, "json").is_file())

    def used(self) -> set[int]:
        """Numbers that have a folder or a manifest."""
        kept = self._manifests.glob("*.json")
        manifests = {int(entry.stem) for entry in kept if _NUMBER.fullmatch(entry.stem)}
        return manifests | set(self._folders())

    def compare(self, version: Version) -> None:
        """Reads every byte of a version and compares it with its manifest."""
        manifest.compare(self.path(version.number), version.files)

    def fetch(self, version: Version, target: Path) -> None:
        """Copies a version's files into a new folder, without proving the copy."""
        _copy(self.path(version.number), version.files, target, lambda: None)

    @contextlib.contextmanager
    def staged(self, source: Path, files: Sequence[File], keep: Keep) -> Iterator[Path]:
        """A durable copy beside the final place, read back; removed unless it was renamed."""
        staged = self.folder / f"{_STAGING}{os.getpid()}"
        try:
            _copy(source, files, staged, keep)
            for folder in sorted({(staged / file.path).parent for file in files}):
                durable.sync_folder(folder)
            manifest.compare(staged, tuple(files))
            yield staged
        finally:
            with contextlib.suppress(OSError):  # the next change sweeps
                durable.remove_tree(staged)

    def add(self, version: Version, staged: Path, keep: Keep) -> None:
        """Makes a staged copy a version: its manifest and signature first, then one rename."""
        durable.make_folder(self._manifests)
        content = manifest.to_json(version)
        self.document(version.number, "json").write(content)
        self._sign_if_keyed(version.number, content)
        durable.system.rename(staged, self.path(version.number))
        durable.sync_folder(self.folder)

    def remove(self, number: int, keep: Keep) -> None:
        """Ends a version by one rename, then removes its files; its manifest stays as a record."""
        removed = self.folder / f"{_REMOVED}{number}"
        durable.system.rename(self.path(number), removed)
        durable.sync_folder(self.folder)
        durable.remove_tree(removed)

    def forget(self, number: int) -> None:
        """Removes the manifest of a version that never came to be."""
        durable.remove(self._file(number, "sig"))
        durable.remove(self._file(number, "json"))

    def sweep(self) -> None:
        """Removes copies that never became versions and what is left of removed ones."""
        for prefix in (_STAGING, _REMOVED):
            for entry in sorted(self.folder.glob(f"{prefix}*")):
                durable.remove_tree(entry)
        for folder in (self._root, self.folder, self._manifests):
            durable.sweep(folder)

    def discard(self, keep: Keep) -> None:
        """Nothing: no other service knows of these versions."""

    def document(self, number: int, kind: str) -> FileDocument:
        """A version's manifest (`json`) or signature (`sig`)."""
        return FileDocument(self._file(number, kind))

    def _is_whole(self, number: int) -> bool:
        return self.path(number).is_dir()

    def _file(self, number: int, kind: str) -> Path:
        return self._manifests / f"{number}.{kind}"

    def _folders(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(name) for name in os.listdir(self.folder) if _NUMBER.fullmatch(name)]


def _copy(source: Path, files: Sequence[File], target: Path, keep: Keep) -> None:
    durable.make_folder(target)
    for file in files:
        keep()
        durable.make_folder((target / file.path).parent)
        durable.copy(source / file.path, target / file.path)
