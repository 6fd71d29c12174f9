"""The versions of one model as objects: folders, manifests, signatures, and their proof.

    NAME/3/saved_model.pb …        version 3, immutable
    NAME/manifests/3.json          its manifest, written last: with it the version appears
    NAME/manifests/3.sig           its signature, where a key signs
    NAME/manifests/removed/3.json  record of a version that is one no longer

Objects cannot be renamed, so a version appears and disappears with its manifest, which is one
object. A folder without a manifest is nobody's, and `sweep` removes it.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from registry import manifest, signature
from registry.bucket_objects import Objects
from registry.interface import File, RegistryError, VerificationError, Version
from registry.keys import SIGNING, Keys

_MANIFEST = re.compile(r"manifests/(?P<removed>removed/)?(?P<number>[1-9][0-9]{0,17})\.json")
_NO_FOLDERS = ("manifests", "history.jsonl", "history.head")


def _nothing() -> None:
    """Keeps no lock alive."""


class BucketStore:
    """The versions of one model. Changing it needs a lock that is held by the caller."""

    def __init__(self, objects: Objects, name: str, keys: Keys):
        """Keeps the versions of model `name` below the prefix of `objects`."""
        self.objects = objects
        self._name = name
        self._keys = keys
        self._keep: Callable[[], None] = _nothing

    def folder(self, version: Version) -> str:
        """Where a version's files lie, below the model's folder."""
        return str(version.number)

    def uri(self, number: int) -> str:
        """`gs://` address of a version's folder: a SavedModel.

        Raises:
            RegistryError: there is no such version.
        """
        return self.objects.uri(f"{self._name}/{self.folder(self.show(number))}")

    def path(self, number: int) -> Path:
        """A verified local copy of a version, made with the first question and kept in a cache.

        Raises:
            RegistryError: there is no such version, or it cannot be read.
            VerificationError: it is not what was pushed.
        """
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        version = self.show(number)
        target = cache / "cortexflow" / "versions" / version.digest
        if target.is_dir():
            with contextlib.suppress(VerificationError):
                manifest.compare(target, version.files)
                return target
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
            copy = Path(scratch) / "version"
            self.fetch(number, copy)
            with contextlib.suppress(FileExistsError, OSError):  # another process was first
                copy.rename(target)
        manifest.compare(target, version.files)
        return target

    def fetch(self, number: int, target: Path) -> Version:
        """Downloads a version into a folder that does not exist yet, and proves the copy.

        Raises:
            RegistryError: there is no such version, or it cannot be read.
            VerificationError: it is not what was pushed.
        """
        version = self.show(number)
        for file in version.files:
            copy = target / file.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            self.objects.sha256(self._file(version, file.path), copy)
        manifest.compare(target, version.files)
        return version

    def numbers(self) -> list[int]:
        """Numbers that have a manifest, ascending."""
        return sorted(self._manifests()[0])

    def versions(self) -> tuple[Version, ...]:
        """All versions by number."""
        return tuple(self.show(number) for number in self.numbers())

    def show(self, number: int) -> Version:
        """Reads one version's manifest, without reading its files.

        Raises:
            RegistryError: there is no such version.
            VerificationError: its manifest is damaged.
        """
        return self._parsed(number, self._manifest_bytes(number))

    def prove(self, number: int, recorded: Collection[str], signed: bool = True) -> Version:
        """Reads every byte of a version and compares it with what was pushed.

        Args:
            number: of the version.
            recorded: SHA-256 of the manifest as the history has it; empty where it has none.
            signed: ask for the signature too, where a key is set.

        Raises:
            RegistryError: there is no such version.
            VerificationError: a file or the manifest is missing, extra, changed, or not signed as
                it must be.
        """
        content = self._manifest_bytes(number)
        origin = self.objects.uri(self._manifest(number))
        if recorded and hashlib.sha256(content).hexdigest() not in recorded:
            raise VerificationError(f"The manifest {origin} was edited after it was pushed.")
        if signed:
            self._check_signature(number, content)
        version = self._parsed(number, content)
        self._compare(version, version.files)
        return version

    def manifest_sha256(self, number: int) -> str:
        """Digest of a version's manifest as it lies there."""
        return hashlib.sha256(self._manifest_bytes(number)).hexdigest()

    def is_signed(self, number: int) -> bool:
        """Whether a signature lies beside a version's manifest."""
        return self.objects.read(self._signature(number)) is not None

    def next_number(self, pushed: Collection[int]) -> int:
        """The next number: above all that the folder or the history know, so that none returns."""
        present, removed = self._manifests()
        return max([0, *present, *removed, *pushed]) + 1

    # ------------------------------------------------------------------ changing

    @contextlib.contextmanager
    def staged(
        self, source: Path, files: Sequence[File], keep: Callable[[], None]
    ) -> Iterator[Path]:
        """The source itself: objects are uploaded by `add`, once the intent is recorded.

        Args:
            source: folder to upload from.
            files: what to upload; other files are refused.
            keep: called between files, to keep the lock alive.
        """
        manifest.compare(source, tuple(files))
        self._keep = keep
        yield source

    def add(self, version: Version, staged: Path) -> None:
        """Uploads a version's files, reads them back, and then writes its manifest."""
        for file in version.files:
            self._keep()
            self.objects.upload(self._file(version, file.path), staged / file.path)
        self._compare(version, version.files)
        self._publish(version)
        content = manifest.to_json(version)
        if self._keys.signing is not None:
            signed = signature.sign(content, self._keys.signing)
            self.objects.write(self._signature(version.number), signed)
        self._keep()
        self.objects.write(self._manifest(version.number), content, generation=0)

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
        content = self._manifest_bytes(number)
        self.objects.write(self._signature(number), signature.sign(content, self._keys.signing))
        self._check_signature(number, content)

    def remove(self, number: int) -> None:
        """Ends a version by removing its manifest, of which a record stays, then its files."""
        version = self.show(number)
        self._withdraw(version)
        record = f"{self._name}/manifests/removed/{number}.json"
        self.objects.write(record, self._manifest_bytes(number))
        self.objects.delete(self._manifest(number))
        self._remove_folder(self.folder(version))

    def forget(self, number: int) -> None:
        """Removes the signature of a version that never came to be."""
        self.objects.delete(self._signature(number))

    def sweep(self) -> None:
        """Removes files that belong to no version."""
        listed = self.objects.list(self._name)
        folders = {name.split("/")[1] for name in listed} - set(_NO_FOLDERS)
        present = {self.folder(version) for version in self.versions()} if folders else set()
        for folder in sorted(folders - present):
            self._remove_folder(folder)

    def _publish(self, version: Version) -> None:
        """Hook: tells another service of a version whose files are proved; before its manifest."""

    def _withdraw(self, version: Version) -> None:
        """Hook: takes a version back from there; before its manifest goes."""

    def _compare(self, version: Version, files: Sequence[File]) -> None:
        where = self.objects.uri(f"{self._name}/{self.folder(version)}")
        expected = {self._file(version, file.path): file for file in files}
        listed = self.objects.list(f"{self._name}/{self.folder(version)}")
        if missing := sorted(expected.keys() - listed.keys()):
            raise VerificationError(f"{expected[missing[0]].path} is missing from {where}.")
        if extra := sorted(listed.keys() - expected.keys()):
            raise VerificationError(f"{self.objects.uri(extra[0])} was not pushed.")
        for name, file in expected.items():
            if listed[name] != file.size or self.objects.sha256(name) != file.sha256:
                raise VerificationError(f"{file.path} in {where} was changed after it was pushed.")

    def _check_signature(self, number: int, content: bytes) -> None:
        stored = self.objects.read(self._signature(number))
        signed = None if stored is None else stored.content
        origin = cast(Any, self.objects.uri(self._manifest(number)))
        signature.check(content, signed, origin, self._keys)

    def _parsed(self, number: int, content: bytes) -> Version:
        origin = self.objects.uri(self._manifest(number))
        found = manifest.from_json(content, cast(Any, origin))
        if (found.name, found.number) != (self._name, number):
            raise VerificationError(
                f"The manifest {origin} is of {found.name} {found.number}, not of this version."
            )
        return found

    def _manifest_bytes(self, number: int) -> bytes:
        stored = self.objects.read(self._manifest(number))
        if stored is None:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise RegistryError(f"{self._name} has no version {number} (versions: {known}).")
        return stored.content

    def _manifests(self) -> tuple[set[int], set[int]]:
        """Numbers of the versions, and of those that were removed."""
        found: tuple[set[int], set[int]] = (set(), set())
        for name in self.objects.list(f"{self._name}/manifests"):
            match = _MANIFEST.fullmatch(name.removeprefix(f"{self._name}/"))
            if match:
                found[1 if match["removed"] else 0].add(int(match["number"]))
        return found

    def _remove_folder(self, folder: str) -> None:
        for name in self.objects.list(f"{self._name}/{folder}"):
            self.objects.delete(name)

    def _file(self, version: Version, path: str) -> str:
        return f"{self._name}/{self.folder(version)}/{path}"

    def _manifest(self, number: int) -> str:
        return f"{self._name}/manifests/{number}.json"

    def _signature(self, number: int) -> str:
        return f"{self._name}/manifests/{number}.sig"
