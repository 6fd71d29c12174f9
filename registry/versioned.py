"""The rules of a registry, over any store, pointer, history and lock.

A push stores and proves a version before anything points to it; the pointer moves last and in one
step. Whatever a crash leaves behind is invisible, and the next change settles it. The version that
a rollback goes to is always ready to answer, so that a rollback needs no loading.
"""

import contextlib
import dataclasses
import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import difference, history, manifest
from registry.changes import Change, Changes
from registry.interface import Audit, Difference, Event, RegistryError, Traffic, Version
from registry.parts import Parts, Renumbered

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> None:
    """Raises RegistryError unless a model's name can be a folder's and a URL's."""
    if not _NAME.fullmatch(name) or name == "manifests":
        raise RegistryError(
            f"A model name has up to 64 letters, digits, '.', '_' or '-' (received {name!r})."
        )


class VersionedRegistry:
    """Versions of one model; `registry.interface.Registry` says what each method does.

    Attributes:
        name: of the model.
        parts: what it is made of.
        changes: how it changes.
    """

    def __init__(self, name: str, parts: Parts):
        """Puts a registry together; reads and writes nothing yet.

        Raises:
            RegistryError: the name cannot be a folder's and a URL's.
        """
        check_name(name)
        self.name = name
        self.parts = parts
        self.changes = Changes(name, parts)

    # ------------------------------------------------------------------ reading

    def uri(self, version: int) -> str:
        """Where a version's folder lies; see `Registry.uri`."""
        return self.parts.store.uri(version)

    def path(self, version: int) -> Path:
        """A proved local copy of a version; see `Registry.path`."""
        from registry import copies

        return copies.cached(self.parts.store, self._trusted(version))

    def fetch(self, version: int, target: str | os.PathLike[str]) -> Version:
        """Copies a version into a new folder and proves the copy; see `Registry.fetch`."""
        from registry import copies

        found = self._trusted(version)
        copies.fetch(self.parts.store, found, Path(target))
        return found

    def versions(self) -> tuple[Version, ...]:
        """Lists all versions by number; what a crash left half-done is not one."""
        return self.parts.store.versions()

    def show(self, version: int) -> Version:
        """Reads one version's manifest, without reading its files; see `Registry.show`."""
        return self.parts.store.show(version)

    def live(self) -> Version | None:
        """Returns the version that serves, None when nothing does."""
        return self._shown(self.traffic().live)

    def canary(self) -> Version | None:
        """Returns the version that is tried out beside the live one, None when there is none."""
        return self._shown(self.traffic().canary)

    def previous(self) -> Version | None:
        """Returns the version that `rollback()` would make live, None when there is none."""
        return self._shown(self.changes.previous())

    def traffic(self) -> Traffic:
        """Returns who answers now, from the pointer alone."""
        return self.parts.pointer.read()

    def history(self) -> tuple[Event, ...]:
        """Lists all changes, oldest first."""
        return self.parts.history.events()

    def served_at(self, moment: datetime.datetime) -> Traffic:
        """Returns who answered at a moment, from the history alone; see `Registry.served_at`."""
        return history.served_at(self.history(), moment)

    def audit(self, head: str | None = None) -> Audit:
        """Reads the whole history and looks for what was done to it; see `Registry.audit`."""
        return self.parts.history.audit(head)

    def diff(self, a: int, b: int) -> Difference:
        """Tells two versions apart by their manifests, B against A; see `Registry.diff`."""
        return difference.between(self.show(a), self.show(b))

    def verify(self, version: int) -> Version:
        """Reads every byte and compares it with what was pushed; see `Registry.verify`."""
        return self._verified(version)

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
        """Adds the model in folder `source`; see `Registry.push`."""
        folder = Path(source)
        manifest.check_model(folder, manifest.scan(folder))
        self.parts.store.check_signing()
        told = Version(self.name, 0, "", (), metrics, lineage, reason, who, "")
        with contextlib.suppress(Renumbered):
            return self._push(folder, told, make_live, dry_run)
        return self._push(folder, told, make_live, dry_run)

    def promote(self, version: int, *, reason: str, who: str, dry_run: bool = False) -> Version:
        """Verifies a version and makes it live, which ends a canary; see `Registry.promote`."""
        if dry_run:
            return self.verify(version)
        with self.changes.held(who) as change:
            return self._move(change, "promote", version, reason)

    def rollback(
        self, to: int | None = None, *, reason: str, who: str, dry_run: bool = False
    ) -> Version:
        """Makes the previously live version, or `to`, live again; see `Registry.rollback`."""
        if dry_run:
            return self.verify(self._target(to))
        with self.changes.held(who) as change:
            return self._move(change, "rollback", self._target(to), reason)

    def set_traffic(
        self, canary: int | None, percent: int, *, reason: str, who: str, dry_run: bool = False
    ) -> Traffic:
        """Gives a verified version a share of the requests; see `Registry.set_traffic`."""
        if dry_run:
            return self._checked_traffic(canary, percent)
        with self.changes.held(who) as change:
            wanted = self._checked_traffic(canary, percent)
            before = self.traffic()
            about = before.canary if canary is None else canary
            if wanted != before and about is not None:
                with change.recorded("set_traffic", about, reason, wanted):
                    change.point("set_traffic", wanted)
            return wanted

    def sign(self, version: int, *, reason: str, who: str, dry_run: bool = False) -> Version:
        """Signs a version of before there was a key, once verified; see `Registry.sign`."""
        if dry_run:
            return self._verified(version, signed=False)
        with self.changes.held(who) as change:
            found = self._verified(version, signed=False)
            with change.recorded("sign", version, reason):
                self.parts.store.sign(version)
            return found

    def gc(self, keep: int = 5, *, reason: str, who: str, dry_run: bool = False) -> tuple[int, ...]:
        """Removes versions without a role but the newest `keep`; see `Registry.gc`.

        A removed version's manifest and number stay: neither is used again.

        Raises:
            RegistryError: `keep` is negative, or another service does not let a version go.
        """
        if keep < 0:
            raise RegistryError(f"How many versions to keep is 0 or more (received {keep}).")
        if dry_run:
            return self._disposable(keep)
        with self.changes.held(who) as change:
            disposable = self._disposable(keep)
            for number in disposable:
                with change.recorded("gc", number, reason):
                    self.parts.store.remove(number, change.keep)
            self.parts.store.discard(change.keep)
            return disposable

    # ------------------------------------------------------------------ inside

    def _push(self, folder: Path, told: Version, make_live: bool, dry_run: bool) -> Version:
        if dry_run:
            version = self._described(folder, told)
            return version if not version.already_present else self._still(version)
        store = self.parts.store
        with self.changes.held(told.who, create=True) as change:
            version = self._described(folder, told)
            if version.already_present and make_live:
                self._move(change, "promote", version.number, told.reason)
                return version
            if version.already_present:
                return self._still(version)
            with (
                store.staged(folder, version.files, change.keep) as staged,
                change.recorded("push", version.number, told.reason),
            ):
                store.add(version, staged, change.keep)
                if make_live:
                    change.point("push", Traffic(version.number))
            return version

    def _described(self, folder: Path, told: Version) -> Version:
        """The version that a folder is already, or would be."""
        try:
            files = manifest.inventory(folder)
        except OSError as error:
            raise RegistryError(f"The model in {folder} cannot be read: {error}.") from error
        digest = manifest.content_digest(files)
        for known in reversed(self.versions()):
            if known.digest == digest:
                return dataclasses.replace(known, already_present=True)
        events = self.history()
        pushed = [e.version for e in events if e.action == "push" and e.state == "done"]
        number = self.parts.store.next_number(digest, pushed)
        return dataclasses.replace(
            told, number=number, digest=digest, files=files, created=history.now()
        )

    def _still(self, version: Version) -> Version:
        """A version that was there already, once it is proved to be what was pushed."""
        self.verify(version.number)
        return version

    def _checked_traffic(self, canary: int | None, percent: int) -> Traffic:
        live = self.traffic().live
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

    def _move(self, change: Change, action: str, number: int, reason: str) -> Version:
        version = self.verify(number)
        before, wanted = self.traffic(), Traffic(number)
        # To promote what is live changes nothing; to roll back to it ends a canary.
        if before.live != number or (action == "rollback" and before != wanted):
            with change.recorded(action, number, reason, wanted):
                change.point(action, wanted)
        return version

    def _target(self, to: int | None) -> int:
        target = self.changes.previous() if to is None else to
        if target is None:
            raise RegistryError(
                f"{self.name} has no earlier live version to go back to. "
                "Name one with --to, or promote a version."
            )
        return target

    def _disposable(self, keep: int) -> tuple[int, ...]:
        numbers = self.parts.store.numbers()
        newest = numbers[len(numbers) - min(keep, len(numbers)) :]
        kept = {*newest, *self.parts.pointer.loaded(), self.changes.previous()}
        return tuple(number for number in numbers if number not in kept)

    def _shown(self, number: int | None) -> Version | None:
        return None if number is None else self.show(number)

    def _verified(self, number: int, signed: bool = True) -> Version:
        found = self._trusted(number, signed)
        self.parts.store.compare(found)
        return found

    def _trusted(self, number: int, signed: bool = True) -> Version:
        """A version whose manifest is the one that the history recorded, and signed as it must."""
        recorded = {
            event.manifest_sha256
            for event in self.history()
            if event.action == "push" and event.version == number and event.manifest_sha256
        }
        return self.parts.store.trusted(number, recorded, signed)
