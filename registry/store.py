"""Where versions are kept: what every store can do, and how manifests are read and proved."""

import abc
import contextlib
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from registry import manifest, signature
from registry.documents import Document
from registry.interface import File, RegistryError, VerificationError, Version
from registry.keys import SIGNING, Keys
from registry.parts import Keep


class Store(abc.ABC):
    """Versions of one model, each there as a whole or not at all. Changing it needs the lock.

    The rules of manifests and signatures are here; where things lie is a subclass's to say.
    """

    def __init__(self, name: str, keys: Keys):
        """Keeps versions of model `name`."""
        self.name = name
        self._keys = keys

    # ------------------------------------------------------------------ where things lie

    @abc.abstractmethod
    def exists(self) -> bool:
        """Whether anything of this model was ever stored."""

    @abc.abstractmethod
    def create(self) -> None:
        """Makes the place for the first push."""

    @abc.abstractmethod
    def numbers(self) -> list[int]:
        """Numbers of all versions, ascending."""

    @abc.abstractmethod
    def used(self) -> set[int]:
        """Numbers that versions have, or had and left a record of."""

    @abc.abstractmethod
    def uri(self, number: int) -> str:
        """Path or URI of the folder of a version that there is."""

    @abc.abstractmethod
    def compare(self, version: Version) -> None:
        """Reads every byte of a version and compares it with its manifest.

        Raises:
            VerificationError: a file is missing, extra, changed or not plain.
        """

    @abc.abstractmethod
    def fetch(self, version: Version, target: Path) -> None:
        """Copies a version's files into a new folder, without proving the copy."""

    @abc.abstractmethod
    def staged(
        self, source: Path, files: Sequence[File], keep: Keep
    ) -> contextlib.AbstractContextManager[Path]:
        """A folder that holds exactly `files` of `source`, proved; for `add`."""

    @abc.abstractmethod
    def add(self, version: Version, staged: Path, keep: Keep) -> None:
        """Makes a staged folder a version, once what is stored was read back and compared."""

    @abc.abstractmethod
    def remove(self, number: int, keep: Keep) -> None:
        """Ends a version in one step, then removes its files; its manifest stays as a record."""

    @abc.abstractmethod
    def forget(self, number: int) -> None:
        """Removes what is left of a version that never came to be."""

    @abc.abstractmethod
    def sweep(self) -> None:
        """Removes files that belong to no version."""

    @abc.abstractmethod
    def discard(self, keep: Keep) -> None:
        """Removes what dead pushes left with another service and nobody took up."""

    @abc.abstractmethod
    def document(self, number: int, kind: str) -> Document:
        """A version's manifest (`json`) or signature (`sig`)."""

    # ------------------------------------------------------------------ reading

    def versions(self) -> tuple[Version, ...]:
        """All versions by number; one that is removed meanwhile is left out."""
        found = []
        for number in self.numbers():
            try:
                found.append(self.show(number))
            except RegistryError:
                if number in self.numbers():
                    raise
        return tuple(found)

    def show(self, number: int) -> Version:
        """Reads one version's manifest, without reading its files.

        Raises:
            RegistryError: there is no such version.
            VerificationError: its manifest is damaged.
        """
        return self._parsed(number, self._content(number))

    def trusted(self, number: int, recorded: Collection[str], signed: bool = True) -> Version:
        """Reads a manifest, and proves that it is the one of the push.

        Args:
            number: of the version.
            recorded: SHA-256 of the manifest as the history has it; empty where it has none.
            signed: ask for the signature too, where a key is set.

        Raises:
            RegistryError: there is no such version.
            VerificationError: the manifest was edited, or is not signed as it must be.
        """
        content = self._content(number)
        found, origin = self._parsed(number, content), self.document(number, "json").where
        if recorded and hashlib.sha256(content).hexdigest() not in recorded:
            raise VerificationError(f"The manifest {origin} was edited after it was pushed.")
        if signed:
            signature.check(content, self.document(number, "sig").read(), origin, self._keys)
        return found

    def manifest_sha256(self, number: int) -> str:
        """Digest of a version's manifest as it lies there."""
        return hashlib.sha256(self._content(number)).hexdigest()

    def is_signed(self, number: int) -> bool:
        """Whether a signature lies beside a version's manifest."""
        return self.document(number, "sig").read() is not None

    def next_number(self, digest: str, pushed: Collection[int]) -> int:
        """The number for new content; one that the store knows, or the history, never returns."""
        return max([0, *self.used(), *pushed]) + 1

    # ------------------------------------------------------------------ changing

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
        self._sign(number, self._content(number))

    def resume_removal(self, number: int, keep: Keep) -> bool:
        """Finishes a removal that died after it took effect; returns whether the version ended."""
        return number not in self.numbers()

    def _is_whole(self, number: int) -> bool:
        """Whether a version is there, if its manifest is."""
        return True

    def _sign_if_keyed(self, number: int, content: bytes) -> None:
        """Signs a manifest that is about to be written, where a key is set."""
        if self._keys.signing is not None:
            self._sign(number, content)

    def _sign(self, number: int, content: bytes) -> None:
        if self._keys.signing is None:
            raise RegistryError(f"No signing key is set. Name its file in {SIGNING}.")
        signed = signature.sign(content, self._keys.signing)
        signature.check(content, signed, self.document(number, "json").where, self._keys)
        beside = self.document(number, "sig")
        beside.read()  # a document is written over what was read
        beside.write(signed)

    def _content(self, number: int) -> bytes:
        content = self.document(number, "json").read() if self._is_whole(number) else None
        if content is None:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise RegistryError(f"{self.name} has no version {number} (versions: {known}).")
        return content

    def _parsed(self, number: int, content: bytes) -> Version:
        origin = self.document(number, "json").where
        found = manifest.from_json(content, origin)
        if (found.name, found.number) != (self.name, number):
            raise VerificationError(
                f"The manifest {origin} is of {found.name} {found.number}, not of this version."
            )
        return found
