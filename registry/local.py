"""A registry in a local folder, in TF Serving's own layout.

    REGISTRY/models.config              the pointer: loaded versions, `live`, `canary`, its share
    REGISTRY/NAME/3/saved_model.pb …    version 3, immutable
    REGISTRY/NAME/manifests/3.json      SHA-256 of every file, metrics, lineage, who, why
    REGISTRY/NAME/history.jsonl         every change, with its intent written first

A push copies beside the final place, makes the copy durable, reads it back, and only then renames
it; the pointer moves last and by one rename. TF Serving itself has served half-copied models
(tensorflow/serving#1086). Whatever a crash leaves behind is invisible, and the next change settles
it. The version that a rollback goes to is always loaded, so that a rollback needs no loading.
"""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from registry import durable, history, manifest
from registry.interface import Event, File, RegistryError, Traffic, VerificationError, Version
from registry.pointer import Pointer

LOCK_TIMEOUT = 60.0  # seconds; a push of a large model holds the lock while it copies

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_STAGING = ".staging-"


def models(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the models that have a history under `root`, in order; none if it is absent."""
    return tuple(sorted(record.parent.name for record in Path(root).glob("*/history.jsonl")))


def find(root: str | os.PathLike[str], name: str | None = None) -> "LocalRegistry":
    """The registry of the named model, or of the only one there is.

    Raises:
        RegistryError: there is no such model, or none is named and there are several.
    """
    known = models(root)
    if name is None and len(known) == 1:
        name = known[0]
    if name is None or name not in known:
        names = ", ".join(known) or "none yet: `cortexflow run quickstart` trains one"
        problem = "No model is named" if name is None else f"There is no model {name!r}"
        raise RegistryError(f"{problem} in {root} (models: {names}). Choose one with --name.")
    return LocalRegistry(root, name)


class LocalRegistry:
    """Versions of the model `name` under `root`. Creates nothing before the first push."""

    def __init__(self, root: str | os.PathLike[str], name: str):
        """Points at a registry, which need not exist yet.

        Raises:
            RegistryError: the name cannot be a folder's and a URL's, or `root` is not local.
        """
        if not _NAME.fullmatch(name) or name == "manifests":
            raise RegistryError(
                f"A model name has up to 64 letters, digits, '.', '_' or '-' (received {name!r})."
            )
        if "://" in os.fspath(root):
            raise RegistryError(f"A local registry needs a local folder (received {root}).")
        self.name = name
        self.root = Path(root).resolve()
        self._folder = self.root / name
        self._manifests = self._folder / "manifests"
        self._history = self._folder / "history.jsonl"
        self._pointer = Pointer(self.root / "models.config", name, self._folder)

    # ------------------------------------------------------------------ reading

    def path(self, version: int) -> Path:
        """Folder of a version: a SavedModel."""
        return self._folder / str(version)

    def versions(self) -> tuple[Version, ...]:
        """Lists all versions by number; what a crash left half-done is not one."""
        return tuple(self.show(number) for number in self._numbers())

    def show(self, version: int) -> Version:
        """Reads one version's manifest, without reading its files.

        Raises:
            RegistryError: there is no such version.
            VerificationError: its manifest is damaged.
        """
        origin = self._manifest(version)
        if not (origin.is_file() and self.path(version).is_dir()):
            known = ", ".join(map(str, self._numbers())) or "none"
            raise RegistryError(f"{self.name} has no version {version} (versions: {known}).")
        found = manifest.from_json(origin.read_bytes(), origin)
        if (found.name, found.number) != (self.name, version):
            raise VerificationError(
                f"The manifest {origin} is of {found.name} {found.number}, not of this version."
            )
        return found

    def live(self) -> Version | None:
        """Returns the version that serves, None when nothing does."""
        number = self._pointer.read().live
        return None if number is None else self.show(number)

    def canary(self) -> Version | None:
        """Returns the version that is tried out beside the live one, None when there is none."""
        number = self._pointer.read().canary
        return None if number is None else self.show(number)

    def traffic(self) -> Traffic:
        """Returns who answers now, from the pointer alone."""
        return self._pointer.read()

    def previous(self) -> Version | None:
        """Returns the version that `rollback()` would make live, None when there is none."""
        number = self._previous_number()
        return None if number is None else self.show(number)

    def history(self) -> tuple[Event, ...]:
        """Lists all changes, oldest first."""
        return history.read(self._history)

    def verify(self, version: int) -> Version:
        """Reads every byte of a version and compares it with what was pushed.

        Raises:
            RegistryError: there is no such version.
            VerificationError: a file or the manifest is missing, extra, changed or not plain.
        """
        found = self.show(version)
        origin = self._manifest(version)
        recorded = {
            event.manifest_sha256
            for event in self.history()
            if event.action == "push" and event.version == version and event.manifest_sha256
        }
        if recorded and manifest.sha256(origin) not in recorded:
            raise VerificationError(f"The manifest {origin} was edited after it was pushed.")
        manifest.compare(self.path(version), found.files)
        return found

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
            make_live: move the live pointer to it.

        Returns:
            The version.

        Raises:
            RegistryError: `source` is no SavedModel, holds a link or special file, or is too
                large; the disk is full; another change does not end.
        """
        folder = Path(source)
        manifest.check_model(folder, manifest.scan(folder))
        with self._change(create=True):
            files = manifest.inventory(folder)
            digest = manifest.content_digest(files)
            known = self._with_digest(digest)
            if known is not None:
                if make_live:
                    self._move("promote", known.number, reason, who)
                return dataclasses.replace(self.verify(known.number), already_present=True)
            version = Version(
                name=self.name,
                number=self._next_number(),
                digest=digest,
                files=files,
                metrics=metrics,
                lineage=lineage,
                reason=reason,
                who=who,
                created=history.now(),
            )
            with self._staged(folder, files) as staged:
                return self._add(version, staged, make_live)

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
        with self._change():
            return self._move("promote", version, reason, who)

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
        with self._change():
            return self._move("rollback", self._target(to), reason, who)

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
        with self._change():
            wanted = self._checked_traffic(canary, percent)
            before = self._pointer.read()
            if wanted != before:
                about = canary if canary is not None else before.canary
                assert about is not None  # without a canary before and after nothing differs
                sequence = self._begin("set_traffic", about, reason, who, wanted)
                self._point("set_traffic", wanted)
                self._close(sequence, "done")
            return wanted

    # ------------------------------------------------------------------ inside

    def _checked_traffic(self, canary: int | None, percent: int) -> Traffic:
        live = self._pointer.read().live
        if canary is None:
            return Traffic(live)
        if not 0 <= percent <= 100:
            raise RegistryError(f"A canary's share is 0 to 100 percent (received {percent}).")
        if live is None:
            raise RegistryError(f"{self.name} has no live version. Promote version {canary}.")
        if canary == live:
            raise RegistryError(f"Version {canary} is live already: it cannot be its own canary.")
        self.verify(canary)
        return Traffic(live, canary, percent)

    def _point(self, action: str, traffic: Traffic) -> None:
        """Moves the pointer; what is next on the way back stays loaded, what was left does not.

        A server without our labels, TF Serving by default, answers with the newest version that is
        loaded: a version that was rolled back from must not be among them.
        """
        moves = [(event.action, event.live) for event in self.history()]
        back = self._back([*moves, (action, traffic.live)], traffic.live)
        self._pointer.move(traffic, () if back is None else (back,))

    @contextlib.contextmanager
    def _staged(self, source: Path, files: tuple[File, ...]) -> Iterator[Path]:
        """A durable copy beside the final place, read back; removed unless it was renamed."""
        staged = self._folder / f"{_STAGING}{os.getpid()}"
        try:
            durable.make_folder(staged)
            for file in files:
                target = staged / file.path
                durable.make_folder(target.parent)
                durable.copy(source / file.path, target)
            for folder in {(staged / file.path).parent for file in files}:
                durable.sync_folder(folder)
            manifest.compare(staged, files)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _add(self, version: Version, staged: Path, make_live: bool) -> Version:
        """Makes the staged copy a version, then moves the pointer."""
        content = manifest.to_json(version)
        sequence = self._begin("push", version.number, version.reason, version.who)
        durable.make_folder(self._manifests)
        durable.write(self._manifest(version.number), content)
        os.rename(staged, self.path(version.number))
        durable.sync_folder(self._folder)
        if make_live:
            self._point("push", Traffic(version.number))
        self._close(sequence, "done", version.number)
        return version

    def _move(self, action: str, number: int, reason: str, who: str) -> Version:
        version = self.verify(number)
        before, wanted = self._pointer.read(), Traffic(number)
        # To promote what is live changes nothing; to roll back to it ends a canary.
        if before.live != number or (action == "rollback" and before != wanted):
            sequence = self._begin(action, number, reason, who, wanted)
            self._point(action, wanted)
            self._close(sequence, "done")
        return version

    def _previous_number(self) -> int | None:
        moves = [(event.action, event.live) for event in self.history()]
        return self._back(moves, self._pointer.read().live)

    def _back(self, moves: Sequence[tuple[str, int | None]], live: int | None) -> int | None:
        """The version to go back to from `live`; those that are gone are passed over."""
        present = set(self._numbers())
        way = [number for number in history.way_back(moves) if number in present]
        while way and way[-1] == live:
            way.pop()
        return way[-1] if way else None

    def _target(self, to: int | None) -> int:
        target = self._previous_number() if to is None else to
        if target is None:
            raise RegistryError(
                f"{self.name} has no earlier live version to go back to. "
                "Name one with --to, or promote a version."
            )
        return target

    def _numbers(self) -> list[int]:
        """Numbers that have both a folder and a manifest, ascending."""
        if not self._folder.is_dir():
            return []
        found = [int(name) for name in os.listdir(self._folder) if _NUMBER.fullmatch(name)]
        return sorted(number for number in found if self._manifest(number).is_file())

    def _next_number(self) -> int:
        names = os.listdir(self._folder)
        taken = [int(name) for name in names if _NUMBER.fullmatch(name)]
        pushed = [e.version for e in self.history() if e.action == "push" and e.state == "done"]
        return max([0, *taken, *pushed]) + 1

    def _with_digest(self, digest: str) -> Version | None:
        matches = [version for version in self.versions() if version.digest == digest]
        return matches[-1] if matches else None

    def _manifest(self, number: int) -> Path:
        return self._manifests / f"{number}.json"

    def _begin(
        self, action: str, number: int, reason: str, who: str, wanted: Traffic | None = None
    ) -> int:
        before = self._pointer.read()
        return history.begin(
            self._history,
            self.history(),
            action=action,
            version=number,
            previous=before.live,
            wanted=wanted or before,
            who=who,
            reason=reason,
        )

    def _close(self, sequence: int, state: str, pushed: int | None = None) -> None:
        digest = manifest.sha256(self._manifest(pushed)) if pushed is not None else None
        history.close(
            self._history,
            sequence,
            state=state,
            traffic=self._pointer.read(),
            manifest_sha256=digest,
        )

    @contextlib.contextmanager
    def _change(self, create: bool = False) -> Iterator[None]:
        """Holds the registry's lock, with what an earlier crash left behind settled."""
        try:
            if create:
                durable.make_folder(self._folder)
            elif not self._folder.is_dir():
                raise RegistryError(
                    f"There is no model {self.name} in {self.root}. Push one first."
                )
            with durable.locked(self.root / ".lock", LOCK_TIMEOUT):
                self._settle()
                yield
        except TimeoutError as error:
            raise RegistryError(f"Another change is under way: {error}. Try again.") from error
        except OSError as error:
            raise RegistryError(
                f"The change of {self.root} did not complete: {error}. What is live is whole; mend "
                "the cause and repeat the command."
            ) from error

    def _settle(self) -> None:
        """Removes copies that never became versions, and closes changes that a crash cut short."""
        for entry in self._folder.glob(f"{_STAGING}*"):
            shutil.rmtree(entry)
        history.mend(self._history)
        present = set(self._numbers())
        for event in self.history():
            if event.state != "unfinished":
                continue
            if event.action == "push":
                done = event.version in present
                if not done:
                    self._manifest(event.version).unlink(missing_ok=True)
                self._close(
                    event.sequence,
                    "done" if done else "abandoned",
                    event.version if done else None,
                )
            else:
                live = event.previous if event.action == "set_traffic" else event.version
                done = self._pointer.read() == Traffic(live, event.canary, event.percent)
                self._close(event.sequence, "done" if done else "abandoned")
