"""How a local registry changes: one at a time, intent first, pointer last, outcome recorded.

A change that dies leaves an intent without an outcome. The next change settles it before it does
anything itself: what was moved is recorded as done, what was not is undone and abandoned.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from registry import durable, lease, manifest
from registry.history import History, way_back
from registry.interface import RegistryError, Traffic
from registry.lease import Lease
from registry.pointer import Pointer
from registry.store import Store

LOCK_TIMEOUT = 60.0  # seconds; a push of a large model holds the lock while it copies


class Changes:
    """What changes have in common."""

    def __init__(self, root: Path, store: Store, history: History, pointer: Pointer):
        """Works on one model under `root`."""
        self._root = root
        self.store = store
        self.history = history
        self.pointer = pointer

    @contextlib.contextmanager
    def held(self, who: str, create: bool = False) -> Iterator["Change"]:
        """Holds the registry's lock, with what an earlier crash left behind settled.

        Args:
            who: who changes something.
            create: the model need not exist yet.

        Raises:
            RegistryError: there is no such model; another change does not end; the disk is full or
                refuses for another reason.
        """
        before = self.pointer.read()
        try:
            if create:
                durable.make_folder(self.store.folder)
            elif not self.store.folder.is_dir():
                name = self.store.folder.name
                raise RegistryError(f"There is no model {name} in {self._root}. Push one first.")
            with lease.held(self._root / ".lock", who, LOCK_TIMEOUT) as hold:
                self._settle()
                yield Change(self, hold)
        except TimeoutError as error:
            raise RegistryError(f"Another change is under way: {error}. Try again.") from error
        except OSError as error:
            now = self.pointer.read()
            served = "What is live is as it was" if now == before else f"Version {now.live} is live"
            raise RegistryError(
                f"The change of {self._root} did not complete: {error}. {served}; mend the cause "
                "and repeat the command."
            ) from error

    def previous(self) -> int | None:
        """The version that a rollback would make live, None when there is none."""
        moves = [(event.action, event.live) for event in self.history.events()]
        return self.back(moves, self.pointer.read().live)

    def back(self, moves: Sequence[tuple[str, int | None]], live: int | None) -> int | None:
        """The version to go back to from `live`; those that are gone are passed over.

        Args:
            moves: every change's action and the version live after it, oldest first.
            live: the version to go back from.
        """
        present = set(self.store.numbers())
        way = [number for number in way_back(moves) if number in present]
        while way and way[-1] == live:
            way.pop()
        return way[-1] if way else None

    def close(self, sequence: int, state: str, pushed: int | None = None) -> None:
        """Records the outcome of an intent, with who answers now.

        Args:
            sequence: of the intent.
            state: `done` or `abandoned`.
            pushed: the version that a push added; its manifest's digest is recorded.
        """
        self.history.close(
            sequence,
            state=state,
            traffic=self.pointer.read(),
            manifest_sha256=manifest.sha256(self.store.manifest(pushed)) if pushed else None,
        )

    def _settle(self) -> None:
        """Closes changes that a crash cut short, and removes what they left behind."""
        durable.sweep(self._root)
        self.store.sweep()
        self.history.mend()
        present = set(self.store.numbers())
        now = self.pointer.read()
        for event in self.history.events():
            if event.state != "unfinished":
                continue
            pushed = None
            if event.action == "push":
                done = event.version in present
                pushed = event.version if done else None
                if not done:
                    self.store.forget(event.version)
            elif event.action == "gc":
                done = event.version not in present
            elif event.action == "sign":
                done = self.store.signature(event.version).is_file()
            else:
                live = event.previous if event.action == "set_traffic" else event.version
                done = now == Traffic(live, event.canary, event.percent)
            self.close(event.sequence, "done" if done else "abandoned", pushed)


class Change:
    """One change that is under way, with the lock held."""

    def __init__(self, changes: Changes, hold: Lease):
        """Use `Changes.held`."""
        self._changes = changes
        self._hold = hold

    def keep(self) -> None:
        """Proves that the lock is still ours and keeps it; to be called between long steps.

        Raises:
            RegistryError: it is not.
        """
        self._hold.check()

    def begin(
        self, action: str, number: int, reason: str, who: str, wanted: Traffic | None = None
    ) -> int:
        """Records what is about to happen; returns its sequence number.

        Args:
            action: as in `Event`.
            number: the version it is about.
            reason: why.
            who: who asked for it.
            wanted: who shall answer after it; None: as before.
        """
        self.keep()
        before = self._changes.pointer.read()
        return self._changes.history.begin(
            action=action,
            version=number,
            previous=before.live,
            wanted=wanted or before,
            who=who,
            reason=reason,
        )

    def point(self, action: str, traffic: Traffic) -> None:
        """Moves the pointer; what is next on the way back stays loaded, what was left does not.

        A server without our labels, TF Serving by default, answers with the newest version that is
        loaded: a version that was rolled back from must not be among them.
        """
        moves = [(event.action, event.live) for event in self._changes.history.events()]
        back = self._changes.back([*moves, (action, traffic.live)], traffic.live)
        self.keep()
        self._changes.pointer.move(traffic, () if back is None else (back,))

    def close(self, sequence: int, pushed: int | None = None) -> None:
        """Records that it was done; see `Changes.close`."""
        self._changes.close(sequence, "done", pushed)
