"""Where versions lie: numbered folders with a manifest each, whole or not there at all.

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
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from registry import durable, manifest, signature
from registry.interface import File, RegistryError, VerificationError, Version
from registry.keys import SIGNING, Keys

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_STAGING, _REMOVED = ".staging-", ".removed-"


class Store:
    """The versions of one model. Changing it needs a lock that is held by the caller."""

    def __init__(self, folder: Path, name: str, keys: Keys):
        """Keeps the versions of model `name` in `folder`, which need not exist."""
        self.folder = folder
        self._name = name
        self._keys = keys
        self._manifests = folder / "manifests"

    def path(self, number: int) -> Path:
        """Folder of a version."""
        return self.folder / str(number)

    def manifest(self, number: int) -> Path:
        """File of a version's manifest."""
        return self._manifests / f"{number}.json"

    def signature(self, number: int) -> Path:
        """File of the signature of a version's manifest."""
        return self._manifests / f"{number}.sig"

    def numbers(self) -> list[int]:
        """Numbers that have both a folder and a manifest, ascending."""
        return sorted(n for n in self._folders() if self.manifest(n).is_file())

    def versions(self) -> tuple[Version, ...]:
        """All versions by number; one that is removed meanwhile is left out."""
        found = []
        for number in self.numbers():
            try:
                found.append(self.show(number))
            except RegistryError:
                if self.path(number).is_dir():
                    raise
        return tuple(found)

    def show(self, number: int) -> Version:
        """Reads one version's manifest, without reading its files.

        Raises:
            RegistryError: there is no such version.
            VerificationError: its manifest is damaged.
        """
        origin = self.manifest(number)
        if not (origin.is_file() and self.path(number).is_dir()):
            known = ", ".join(map(str, self.numbers())) or "none"
            raise RegistryError(f"{self._name} has no version {number} (versions: {known}).")
        found = manifest.from_json(origin.read_bytes(), origin)
        if (found.name, found.number) != (self._name, number):
            raise VerificationError(
                f"The manifest {origin} is of {found.name} {found.number}, not of this version."
            )
        return found

    def prove(self, number: int, recorded: Collection[str], signed: bool = True) -> Version:
        """Reads every byte of a version and compares it with what was pushed.

        Args:
            number: of the version.
            recorded: SHA-256 of the manifest as the history has it; empty where it has none.
            signed: ask for the signature too, where a key is set.

        Raises:
            RegistryError: there is no such version.
            VerificationError: a file or the manifest is missing, extra, changed, not plain, or not
                signed as it must be.
        """
        found = self.show(number)
        origin = self.manifest(number)
        if recorded and manifest.sha256(origin) not in recorded:
            raise VerificationError(f"The manifest {origin} was edited after it was pushed.")
        if signed:
            beside = self.signature(number)
            signature.check(
                origin.read_bytes(),
                beside.read_bytes() if beside.is_file() else None,
                origin,
                self._keys,
            )
        manifest.compare(self.path(number), found.files)
        return found

    def next_number(self, pushed: Collection[int]) -> int:
        """The next number: above all that the folder or the history know, so that none returns."""
        kept = self._manifests.glob("*.json")
        manifests = [int(entry.stem) for entry in kept if _NUMBER.fullmatch(entry.stem)]
        return max([0, *self._folders(), *manifests, *pushed]) + 1

    # ------------------------------------------------------------------ changing

    @contextlib.contextmanager
    def staged(
        self, source: Path, files: Sequence[File], keep: Callable[[], None]
    ) -> Iterator[Path]:
        """A durable copy beside the final place, read back; removed unless it was renamed.

        Args:
            source: folder to copy from.
            files: what to copy, and what the copy must then be.
            keep: called between files, to keep a lease alive.
        """
        staged = self.folder / f"{_STAGING}{os.getpid()}"
        try:
            durable.make_folder(staged)
            for file in files:
                keep()
                target = staged / file.path
                durable.make_folder(target.parent)
                durable.copy(source / file.path, target)
            for folder in sorted({(staged / file.path).parent for file in files}):
                durable.sync_folder(folder)
            manifest.compare(staged, tuple(files))
            yield staged
        finally:
            with contextlib.suppress(OSError):  # the next change sweeps
                durable.remove_tree(staged)

    def add(self, version: Version, staged: Path) -> None:
        """Makes a staged copy a version: its manifest and signature first, then one rename."""
        durable.make_folder(self._manifests)
        content = manifest.to_json(version)
        durable.write(self.manifest(version.number), content)
        if self._keys.signing is not None:
            self.sign(version.number)
        durable.system.rename(staged, self.path(version.number))
        durable.sync_folder(self.folder)

    def check_signing(self) -> None:
        """Raises RegistryError where signatures are checked and there is no key to sign with."""
        if self._keys.verify is not None and self._keys.signing is None:
            raise RegistryError(
                "Signatures are checked here and no signing key is set, so what is pushed could "
                f"never go live. Name its file in {SIGNING}."
            )

    def sign(self, number: int) -> None:
        """Signs a version's manifest as it lies there.

        Raises:
            RegistryError: there is no key that signs.
            VerificationError: the signature is not by the key that checks here.
        """
        if self._keys.signing is None:
            raise RegistryError(f"No signing key is set. Name its file in {SIGNING}.")
        origin = self.manifest(number)
        signed = signature.sign(origin.read_bytes(), self._keys.signing)
        signature.check(origin.read_bytes(), signed, origin, self._keys)
        durable.write(self.signature(number), signed)

    def remove(self, number: int) -> None:
        """Ends a version by one rename, then removes its files; its manifest stays as a record."""
        removed = self.folder / f"{_REMOVED}{number}"
        durable.system.rename(self.path(number), removed)
        durable.sync_folder(self.folder)
        durable.remove_tree(removed)

    def forget(self, number: int) -> None:
        """Removes the manifest of a version that never came to be."""
        durable.remove(self.signature(number))
        durable.remove(self.manifest(number))

    def sweep(self) -> None:
        """Removes copies that never became versions and what is left of removed ones."""
        for prefix in (_STAGING, _REMOVED):
            for entry in sorted(self.folder.glob(f"{prefix}*")):
                durable.remove_tree(entry)
        durable.sweep(self.folder)
        durable.sweep(self._manifests)

    def _folders(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(name) for name in os.listdir(self.folder) if _NUMBER.fullmatch(name)]
