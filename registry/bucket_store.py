"""The versions of one model as objects: folders, manifests, signatures, and their proof.

    NAME/3/saved_model.pb …        version 3, immutable
    NAME/manifests/3.json          its manifest, written last: with it the version appears
    NAME/manifests/3.sig           its signature, where a key signs
    NAME/manifests/removed/3.json  record of a version that is one no longer

Objects cannot be renamed, so a version appears and disappears with its manifest, which is one
object. A folder without a manifest is nobody's, and `sweep` removes it.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from registry import manifest
from registry.bucket_objects import ObjectDocument, Objects
from registry.interface import File, VerificationError, Version
from registry.keys import Keys
from registry.parts import Keep
from registry.store import Store

_MANIFEST = re.compile(r"manifests/(?P<removed>removed/)?(?P<number>[1-9][0-9]{0,17})\.json")
_NO_FOLDERS = ("manifests", "history.jsonl", "history.head")


class BucketStore(Store):
    """Versions as objects."""

    def __init__(self, objects: Objects, name: str, keys: Keys):
        """Keeps the versions of model `name` below the prefix of `objects`."""
        super().__init__(name, keys)
        self.objects = objects

    def folder_of(self, version: Version) -> str:
        """Where a version's files lie, below the model's folder."""
        return str(version.number)

    def publish(self, version: Version, keep: Keep) -> None:
        """Tells another service of a version whose files are proved; before its manifest."""

    def withdraw(self, number: int, keep: Keep) -> None:
        """Takes a version back from there; before its manifest goes."""

    def exists(self) -> bool:
        """Whether there is or was a version."""
        return bool(self.used())

    def create(self) -> None:
        """Nothing: objects need no folder."""

    def uri(self, number: int) -> str:
        """`gs://` address of the folder of a version that there is."""
        return self.address(self.show(number))

    def address(self, version: Version) -> str:
        """`gs://` address of a version's folder, which need not exist yet."""
        return self.objects.uri(self._folder(version))

    def numbers(self) -> list[int]:
        """Numbers that have a manifest, ascending."""
        return sorted(self._manifests()[0])

    def used(self) -> set[int]:
        """Numbers that have a manifest or the record of one."""
        present, removed = self._manifests()
        return present | removed

    def compare(self, version: Version) -> None:
        """Reads every byte of a version and compares it with its manifest."""
        self.compare_files(version)

    def compare_files(self, version: Version) -> None:
        """Likewise, of a version that may have no manifest yet."""
        where = self.address(version)
        expected = {self._file(version, file.path): file for file in version.files}
        listed = self.objects.list(self._folder(version))
        if missing := sorted(expected.keys() - listed.keys()):
            raise VerificationError(f"{expected[missing[0]].path} is missing from {where}.")
        if extra := sorted(listed.keys() - expected.keys()):
            raise VerificationError(f"{self.objects.uri(extra[0])} was not pushed.")
        for name, file in expected.items():
            if listed[name] != file.size or self.objects.sha256(name) != file.sha256:
                raise VerificationError(f"{file.path} in {where} was changed after it was pushed.")

    def fetch(self, version: Version, target: Path) -> None:
        """Downloads a version's files into a new folder, without proving the copy."""
        for file in version.files:
            copy = target / file.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            self.objects.sha256(self._file(version, file.path), copy)

    # ------------------------------------------------------------------ changing

    @contextlib.contextmanager
    def staged(self, source: Path, files: Sequence[File], keep: Keep) -> Iterator[Path]:
        """The source itself: objects are uploaded by `add`, once the intent is recorded."""
        manifest.compare(source, tuple(files))
        yield source

    def add(self, version: Version, staged: Path, keep: Keep) -> None:
        """Uploads a version's files, reads them back, and then writes its manifest."""
        for file in version.files:
            keep()
            self.objects.upload(self._file(version, file.path), staged / file.path)
        self.compare_files(version)
        self.publish(version, keep)
        content = manifest.to_json(version)
        self._sign_if_keyed(version.number, content)
        keep()
        self.document(version.number, "json").write(content)

    def remove(self, number: int, keep: Keep) -> None:
        """Ends a version by removing its manifest, of which a record stays, then its files."""
        content = self._content(number)
        version = self._parsed(number, content)
        self.withdraw(number, keep)
        self.objects.write(f"{self.name}/manifests/removed/{number}.json", content)
        keep()
        self.objects.delete(self._name(number, "json"))
        self._remove_folder(self._folder(version))

    def forget(self, number: int) -> None:
        """Removes the signature of a version that never came to be."""
        self.objects.delete(self._name(number, "sig"))

    def sweep(self) -> None:
        """Removes files that belong to no version."""
        listed = self.objects.list(self.name)
        folders = {name.split("/")[1] for name in listed} - set(_NO_FOLDERS)
        self._sweep(folders)

    def discard(self, keep: Keep) -> None:
        """Nothing: no other service knows of these versions."""

    def document(self, number: int, kind: str) -> ObjectDocument:
        """A version's manifest (`json`) or signature (`sig`)."""
        return ObjectDocument(self.objects, self._name(number, kind))

    # ------------------------------------------------------------------ inside

    def _sweep(self, folders: set[str]) -> None:
        """Removes those of these folders that no version has."""
        present = {self.folder_of(version) for version in self.versions()} if folders else set()
        for folder in sorted(folders - present):
            self._remove_folder(f"{self.name}/{folder}")

    def _manifests(self) -> tuple[set[int], set[int]]:
        """Numbers of the versions, and of those that were removed."""
        found: tuple[set[int], set[int]] = (set(), set())
        for name in self.objects.list(f"{self.name}/manifests"):
            match = _MANIFEST.fullmatch(name.removeprefix(f"{self.name}/"))
            if match:
                found[1 if match["removed"] else 0].add(int(match["number"]))
        return found

    def _remove_folder(self, folder: str) -> None:
        for name in self.objects.list(folder):
            self.objects.delete(name)

    def _folder(self, version: Version) -> str:
        return f"{self.name}/{self.folder_of(version)}"

    def _file(self, version: Version, path: str) -> str:
        return f"{self._folder(version)}/{path}"

    def _name(self, number: int, kind: str) -> str:
        return f"{self.name}/manifests/{number}.{kind}"
