"""A registry in a local folder, in TF Serving's own layout.

    REGISTRY/models.config              the pointer: loaded versions, `live`, `canary`, its share
    REGISTRY/.lock                      who changes something now
    REGISTRY/NAME/3/saved_model.pb …    version 3, immutable
    REGISTRY/NAME/manifests/3.json      SHA-256 of every file, metrics, lineage, who, why
    REGISTRY/NAME/history.jsonl         every change, with its intent written first
    REGISTRY/NAME/history.head          the hash at the history's end

A push copies beside the final place, makes the copy durable, reads it back, and only then renames
it; the pointer moves last and by one rename. TF Serving itself has served half-copied models
(tensorflow/serving#1086). Whatever a crash leaves behind is invisible, and the next change settles
it. The version that a rollback goes to is always loaded, so that a rollback needs no loading.
"""

import dataclasses
import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import difference, history, manifest
from registry.changes import Change, Changes
from registry.history import History
from registry.interface import Audit, Difference, Event, File, RegistryError, Traffic, Version
from registry.keys import Keys
from registry.pointer import Pointer
from registry.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class LocalRegistry:
    """Versions of the model `name` under `root`. Creates nothing before the first push."""

    def __init__(self, root: str | os.PathLike[str], name: str, keys: Keys | None = None):
        """Points at a registry, which need not exist yet.

        Args:
            root: folder of the registry.
            name: of the model.
            keys: key files; None takes those that the environment names.

        Raises:
            RegistryError: the name cannot be a folder's and a URL's, or `root` is not local.
        """
        if not _NAME.fullmatch(name) or name == "manifests":
            raise RegistryError(
                f"A model name has up to 64 letters, digits, '.', '_' or '-' (received {name!r})."
            )
        if "://" in os.fspath(root):
            raise RegistryError(f"A local registry needs a local folder (received {root}).")
        keys = Keys.from_environment() if keys is None else keys
        self.name = name
        self.root = Path(root).resolve()
        folder = self.root / name
        self._store = Store(folder, name, keys)
        self._history = History(folder / "history.jsonl", keys.audit)
        self._pointer = Pointer(self.root / "models.config", name, folder)
        self._changes = Changes(self.root, self._store, self._history, self._pointer)

    # ------------------------------------------------------------------ reading

    def path(self, version: int) -> Path:
        """Folder of a version: a SavedModel."""
        return self._store.path(version)

    def versions(self) -> tuple[Version, ...]:
        """Lists all versions by number; what a crash left half-done is not one."""
        return self._store.versions()

    def show(self, version: int) -> Version:
        """Reads one version's manifest, without reading its files.

        Raises:
            RegistryError: there is no such version.
            VerificationError: its manifest is damaged.
        """
        return self._store.show(version)

    def live(self) -> Version | None:
        """Returns the version that serves, None when nothing does."""
        number = self._pointer.read().live
        return None if number is None else self.show(number)

    def canary(self) -> Version | None:
        """Returns the version that is tried out beside the live one, None when there is none."""
        number = self._pointer.read().canary
        return None if number is None else self.show(number)

    def previous(self) -> Version | None:
        """Returns the version that `rollback()` would make live, None when there is none."""
        number = self._changes.previous()
        return None if number is None else self.show(number)

    def traffic(self) -> Traffic:
        """Returns who answers now, from the pointer alone."""
        return self._pointer.read()

    def history(self) -> tuple[Event, ...]:
        """Lists all changes, oldest first."""
        return self._history.events()

    def served_at(self, moment: datetime.datetime) -> Traffic:
        """Returns who answered at a moment (with time zone), from the history alone.

        Raises:
            RegistryError: no time zone, or a change before the moment has no outcome yet.
        """
        return history.served_at(self.history(), moment)

    def audit(self, head: str | None = None) -> Audit:
        """Reads the whole history and looks for edits, deletions, truncation and reordering.

        Args:
            head: hash that an earlier audit gave: it must still be among the entries.
        """
        return self._history.audit(head)

    def diff(self, a: int, b: int) -> Difference:
        """Tells two versions apart by their manifests, B against A.

        Raises:
            RegistryError: there is no such version.
        """
        return difference.between(self.show(a), self.show(b))

    def verify(self, version: int) -> Version:
        """Reads every byte of a version and compares it with what was pushed.

        Raises:
            RegistryError: there is no such version.
            VerificationError: a file or the manifest is missing, extra, changed, not plain, or not
                signed though a key is set.
        """
        return self._store.prove(version, self._recorded(version))

    # ------------------------------------------------------------------ changing

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
            RegistryError: `source` is no SavedModel, holds a link or special file, or is too
                large; the disk is full; another change does not end.
        """
        folder = Path(source)
        manifest.check_model(folder, manifest.scan(folder))
        self._store.check_signing()
        told = (metrics, lineage, reason, who)
        if dry_run:
            version = self._described(self._inventory(folder), *told)
            if version.already_present:
                self.verify(version.number)
            return version
        with self._changes.held(who, create=True) as change:
            version = self._described(self._inventory(folder), *told)
            if version.already_present:
                if make_live:
                    self._move(change, "promote", version.number, reason, who)
                self.verify(version.number)
                return version
            with self._store.staged(folder, version.files, change.keep) as staged:
                sequence = change.begin("push", version.number, reason, who)
                self._store.add(version, staged)
                if make_live:
                    change.point("push", Traffic(version.number))
                change.close(sequence, version.number)
            return version

    def promote(self, version: int, *, reason: str, who: str, dry_run: bool = False) -> Version:
        """Verifies a version and makes it live, which ends a canary.

        A canary is tried out against one live version, so every other live version ends the trial.
        A version that is live already stays so, and its canary with it.

        Raises:
            RegistryError: there is no such version.
            VerificationError: it is not what was pushed.
        """
        if dry_run:
            return self.verify(version)
        with self._changes.held(who) as change:
            return self._move(change, "promote", version, reason, who)

    def rollback(
        self, to: int | None = None, *, reason: str, who: str, dry_run: bool = False
    ) -> Version:
        """Makes the previously live version, or version `to`, live again, once verified.

        A second rollback goes further back: it never returns to what was rolled back from, which
        is no longer loaded either. A canary ends, also where `to` is the live version.

        Raises:
            RegistryError: there is nothing to go back to, or no version `to`.
            VerificationError: it is not what was pushed.
        """
        if dry_run:
            return self.verify(self._target(to))
        with self._changes.held(who) as change:
            return self._move(change, "rollback", self._target(to), reason, who)

    def set_traffic(
        self, canary: int | None, percent: int, *, reason: str, who: str, dry_run: bool = False
    ) -> Traffic:
        """Gives a verified version `percent` of the requests beside the live one; None ends it.

        Raises:
            RegistryError: nothing is live, the canary is the live version or does not exist, or the
                share is not within 0 to 100.
            VerificationError: the canary is not what was pushed.
        """
        if dry_run:
            return self._checked_traffic(canary, percent)
        with self._changes.held(who) as change:
            wanted = self._checked_traffic(canary, percent)
            before = self._pointer.read()
            about = before.canary if canary is None else canary
            if wanted != before and about is not None:
                sequence = change.begin("set_traffic", about, reason, who, wanted)
                change.point("set_traffic", wanted)
                change.close(sequence)
            return wanted

    def sign(self, version: int, *, reason: str, who: str, dry_run: bool = False) -> Version:
        """Signs a version that was pushed before there was a key, once its bytes are verified.

        Raises:
            RegistryError: there is no such version, or no signing key.
            VerificationError: it is not what was pushed.
        """
        if dry_run:
            return self._store.prove(version, self._recorded(version), signed=False)
        with self._changes.held(who) as change:
            found = self._store.prove(version, self._recorded(version), signed=False)
            sequence = change.begin("sign", version, reason, who)
            self._store.sign(version)
            change.close(sequence)
            return found

    def gc(self, keep: int = 5, *, reason: str, who: str, dry_run: bool = False) -> tuple[int, ...]:
        """Removes versions other than live, canary, previous, loaded ones and the newest `keep`.

        A removed version's manifest and number stay: neither is used again.

        Returns:
            The numbers removed, ascending; those that would be, with `dry_run`.

        Raises:
            RegistryError: `keep` is negative.
        """
        if keep < 0:
            raise RegistryError(f"How many versions to keep is 0 or more (received {keep}).")
        if dry_run:
            return self._disposable(keep)
        with self._changes.held(who) as change:
            disposable = self._disposable(keep)
            for number in disposable:
                sequence = change.begin("gc", number, reason, who)
                self._store.remove(number)
                change.close(sequence)
            return disposable

    # ------------------------------------------------------------------ inside

    def _inventory(self, folder: Path) -> tuple[File, ...]:
        try:
            return manifest.inventory(folder)
        except OSError as error:
            raise RegistryError(f"The model in {folder} cannot be read: {error}.") from error

    def _described(
        self,
        files: tuple[File, ...],
        metrics: Mapping[str, Any],
        lineage: Mapping[str, Any],
        reason: str,
        who: str,
    ) -> Version:
        """The version that these files are already, or would be."""
        digest = manifest.content_digest(files)
        for known in reversed(self.versions()):
            if known.digest == digest:
                return dataclasses.replace(known, already_present=True)
        events = self.history()
        pushed = [e.version for e in events if e.action == "push" and e.state == "done"]
        number = self._store.next_number(pushed)
        return Version(
            self.name, number, digest, files, metrics, lineage, reason, who, history.now()
        )

    def _checked_traffic(self, canary: int | None, percent: int) -> Traffic:
        live = self._pointer.read().live
        if not 0 <= percent <= 100:
            raise RegistryError(f"A canary's share is 0 to 100 percent (received {percent}).")
        if canary is None:
            return Traffic(live)
        if live is None:
            raise RegistryError(f"{self.name} has no live version. Promote version {canary}.")
        if canary == live:
            raise RegistryError(f"Version {canary} is live already: it cannot be its own canary.")
        self.verify(canary)
        return Traffic(live, canary, percent)

    def _move(self, change: Change, action: str, number: int, reason: str, who: str) -> Version:
        version = self.verify(number)
        before, wanted = self._pointer.read(), Traffic(number)
        # To promote what is live changes nothing; to roll back to it ends a canary.
        if before.live != number or (action == "rollback" and before != wanted):
            sequence = change.begin(action, number, reason, who, wanted)
            change.point(action, wanted)
            change.close(sequence)
        return version

    def _target(self, to: int | None) -> int:
        target = self._changes.previous() if to is None else to
        if target is None:
            raise RegistryError(
                f"{self.name} has no earlier live version to go back to. "
                "Name one with --to, or promote a version."
            )
        return target

    def _disposable(self, keep: int) -> tuple[int, ...]:
        numbers = self._store.numbers()
        kept = {*numbers[len(numbers) - min(keep, len(numbers)) :], *self._pointer.loaded()}
        return tuple(n for n in numbers if n not in kept | {self._changes.previous()})

    def _recorded(self, number: int) -> set[str]:
        """SHA-256 of the version's manifest as the history has it."""
        return {
            event.manifest_sha256
            for event in self.history()
            if event.action == "push" and event.version == number and event.manifest_sha256
        }
