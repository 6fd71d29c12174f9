"""What a registry of model versions can do, whatever it is stored in.

A registry holds numbered, immutable versions of one named model. One of them is live. Moving the
live pointer (promote, rollback) never touches a version, and a version becomes visible only when it
is whole and verified.
"""

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from schema.errors import CortexflowError


class RegistryError(CortexflowError):
    """The registry cannot do what was asked."""


class VerificationError(RegistryError):
    """A version is not byte for byte what was pushed; the message names the file."""


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a version.

    Attributes:
        path: relative to the version's folder, with forward slashes.
        size: bytes.
        sha256: hex digest of the content.
    """

    path: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Version:
    """One immutable version of a model, as its manifest tells it.

    Attributes:
        name: the model's name.
        number: 1, 2, 3 …; never reused.
        digest: hex SHA-256 of the list of files; equal for equal content.
        files: every file, ordered by path.
        metrics: numbers it was judged by, JSON values.
        lineage: where it comes from (run, artifacts), JSON values.
        reason: why it was pushed.
        who: who pushed it.
        created: UTC time, ISO 8601.
        already_present: `push` found the same content under this number and copied nothing.
    """

    name: str
    number: int
    digest: str
    files: tuple[File, ...]
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]
    reason: str
    who: str
    created: str
    already_present: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Who answers requests that name neither a version nor a label.

    Attributes:
        live: the version that answers; None when nothing is live.
        canary: the version that is tried out beside it, None when there is none.
        percent: share of requests that the canary answers, 0 to 100; 0 without one. A canary of 0
            percent is loaded and answers those who ask for it by name.
    """

    live: int | None
    canary: int | None = None
    percent: int = 0


@dataclasses.dataclass(frozen=True)
class Difference:
    """What tells two versions apart, B against A.

    Attributes:
        added, removed, changed: paths of files.
        metrics: dotted name → (value in A, value in B), of those that differ.
        lineage: likewise.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    metrics: Mapping[str, tuple[Any, Any]]
    lineage: Mapping[str, tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Audit:
    """What reading the whole audit log showed.

    Attributes:
        entries: how many lines were read.
        head: hash of the last one; kept elsewhere, it proves later that nothing was cut off.
        keyed: hashes are HMACs with a key, so that nobody without it can write a history.
        faults: what is wrong, in words with line numbers; empty when nothing is.
        unchained: lines at the start that an earlier release wrote without hashes; the first
            hashed line is bound to their bytes, so that from then on they cannot change either.
    """

    entries: int
    head: str
    keyed: bool
    faults: tuple[str, ...]
    unchained: int = 0


@dataclasses.dataclass(frozen=True)
class Event:
    """One change of a registry.

    Attributes:
        sequence: 1, 2, 3 …, in the order in which changes were begun.
        time: UTC time of its beginning, ISO 8601.
        action: `push`, `promote`, `rollback`, `set_traffic`, `sign` or `gc`.
        version: the version it is about.
        previous: the version live before, None when there was none.
        live: the version live after it; None while unknown or when nothing is live.
        who: who asked for it.
        reason: why.
        state: `done`, `abandoned` (a crash undid it) or `unfinished` (the next change settles it).
        manifest_sha256: of a push that is done: digest of the manifest as written.
        canary: the canary after it, None when there is none; while unfinished, the one asked for.
        percent: the canary's share after it; while unfinished, the one asked for.
    """

    sequence: int
    time: str
    action: str
    version: int
    previous: int | None
    live: int | None
    who: str
    reason: str
    state: str
    manifest_sha256: str | None = None
    canary: int | None = None
    percent: int = 0


class Registry(Protocol):
    """Versions of one model. Every change is idempotent and is recorded with who and why.

    Attributes:
        name: of the model.
    """

    name: str

    def push(
        self,
        source: str | os.PathLike[str],
        *,
        metrics: Mapping[str, Any],
        lineage: Mapping[str, Any],
        reason: str,
        who: str,
        make_live: bool = True,
        dry_run: bool = False,
    ) -> Version:
        """Adds the model in folder `source`.

        The same content again is no new version: the one it already is comes back with
        `already_present`, and is made live when asked.

        Args:
            source: folder of a SavedModel, with anything its exporter put beside it.
            metrics: numbers it was judged by; JSON values, not-a-number becomes null.
            lineage: where it comes from; JSON values.
            reason: why it is pushed.
            who: who pushes it.
            make_live: move the live pointer to it, which ends a canary.
            dry_run: read and check everything, change nothing.

        Returns:
            The version; with `dry_run`, the one that it would be.

        Raises:
            RegistryError: `source` is no SavedModel, holds what no model holds, or another change
                does not end.
            VerificationError: what was stored is not what was read, or the content is a version
                already that is damaged.
        """

    def promote(self, version: int, *, reason: str, who: str, dry_run: bool = False) -> Version:
        """Verifies a version and makes it live, which ends a canary; `dry_run` only verifies.

        A version that is live already stays so, and its canary with it.

        Raises:
            RegistryError: there is no such version.
            VerificationError: it is not what was pushed.
        """

    def rollback(
        self, to: int | None = None, *, reason: str, who: str, dry_run: bool = False
    ) -> Version:
        """Makes the previously live version (or version `to`) live again; `dry_run` only verifies.

        Ends a canary, also where `to` is the live version. What was rolled back from is neither
        loaded nor ever gone back to by a later rollback.

        Raises:
            RegistryError: there is nothing to go back to.
            VerificationError: it is not what was pushed.
        """

    def set_traffic(
        self, canary: int | None, percent: int, *, reason: str, who: str, dry_run: bool = False
    ) -> Traffic:
        """Gives a verified version `percent` of the requests beside the live one; None ends it.

        Raises:
            RegistryError: nothing is live, the canary is the live version or does not exist, or the
                share is not within 0 to 100.
            VerificationError: the canary is not what was pushed.
        """

    def traffic(self) -> Traffic:
        """Returns who answers now, from the pointer alone."""

    def served_at(self, moment: datetime.datetime) -> Traffic:
        """Returns who answered at a moment (with time zone), from the audit log alone."""

    def diff(self, a: int, b: int) -> Difference:
        """Tells two versions apart by their manifests.

        Raises:
            RegistryError: there is no such version.
        """

    def sign(self, version: int, *, reason: str, who: str, dry_run: bool = False) -> Version:
        """Signs a version that was pushed before there was a key, once its bytes are verified.

        Raises:
            RegistryError: there is no such version, or no signing key.
            VerificationError: it is not what was pushed.
        """

    def gc(self, keep: int = 5, *, reason: str, who: str, dry_run: bool = False) -> tuple[int, ...]:
        """Removes versions other than live, canary, previous and the newest `keep`.

        Returns:
            The numbers removed, ascending; those that would be, with `dry_run`.
        """

    def audit(self, head: str | None = None) -> Audit:
        """Reads the audit log and looks for edits, deletions, truncation and reordering.

        Args:
            head: hash that an earlier audit gave: it must still be among the entries.
        """

    def live(self) -> Version | None:
        """Returns the version that serves, None when nothing does."""

    def canary(self) -> Version | None:
        """Returns the version that is tried out beside the live one, None when there is none."""

    def previous(self) -> Version | None:
        """Returns the version that `rollback()` would make live, None when there is none."""

    def versions(self) -> Sequence[Version]:
        """Lists all versions by number."""

    def show(self, version: int) -> Version:
        """Reads one version.

        Raises:
            RegistryError: there is no such version.
        """

    def history(self) -> Sequence[Event]:
        """Lists all changes, oldest first."""

    def verify(self, version: int) -> Version:
        """Reads every byte of a version and compares it with what was pushed.

        Raises:
            RegistryError: there is no such version.
            VerificationError: a file or the manifest is missing, extra, changed, not plain, or not
                signed though a key is set.
        """

    def uri(self, version: int) -> str:
        """Path or `gs://` address of a version's own folder, a SavedModel.

        Raises:
            RegistryError: there is no such version.
        """

    def path(self, version: int) -> Path:
        """A folder on this machine with a version, a SavedModel; never to be written to.

        Of a local registry its own folder, as it is; of a remote one a proved copy, kept in the
        account's cache. Raises as `fetch` does for a remote one.
        """

    def fetch(self, version: int, target: str | os.PathLike[str]) -> Version:
        """Copies a version into the folder `target`, which appears only once the copy is proved.

        Raises:
            RegistryError: there is no such version, or the folder exists or cannot be written.
            VerificationError: the version or its manifest is not what was pushed, or not signed
                though a key is set.
        """
