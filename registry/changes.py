"""How a registry changes: one change at a time, intent first, pointer last, outcome recorded.

A change that dies leaves an intent without an outcome. The next change settles it before it does
anything itself: what was moved is recorded as done, what was not is undone and abandoned.
"""

import contextlib
from collections.abc import Iterator, Sequence

from registry.history import way_back
from registry.interface import Event, RegistryError, Traffic
from registry.lease import Lease
from registry.parts import Parts


class Changes:
    """What changes have in common."""

    def __init__(self, name: str, parts: Parts):
        """Changes the model `name`."""
        self._name = name
        self._parts = parts

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
        place, change = self._parts.place, None
        try:
            if create:
                self._parts.store.create()
            elif not self._parts.store.exists():
                raise RegistryError(f"There is no model {self._name} in {place}. Push one first.")
            with self._parts.lock.held(who) as lease:
                change = Change(self, self._parts, lease, who)
                self._settle(change)
                yield change
        except TimeoutError as error:
            raise RegistryError(f"Another change is under way: {error}. Try again.") from error
        except OSError as error:
            raise RegistryError(
                f"The change of {place} did not complete: {error}. {self._served(change)}; mend "
                "the cause and repeat the command."
            ) from error

    def previous(self) -> int | None:
        """The version that a rollback would make live, None when there is none."""
        return self.back(self._moves(), self._parts.pointer.read().live)

    def back(self, moves: Sequence[tuple[str, int | None]], live: int | None) -> int | None:
        """The version to go back to from `live`; those that are gone are passed over.

        Args:
            moves: every change's action and the version live after it, oldest first.
            live: the version to go back from.
        """
        present = set(self._parts.store.numbers())
        way = [number for number in way_back(moves) if number in present]
        while way and way[-1] == live:
            way.pop()
        return way[-1] if way else None

    def ready(self, *move: tuple[str, int | None]) -> tuple[int, ...]:
        """What stays loaded for the way back, once one more move is made."""
        moves = [*self._moves(), *move]
        live = move[-1][1] if move else self._parts.pointer.read().live
        back = self.back(moves, live)
        return () if back is None else (back,)

    def close(self, event: int, state: str, pushed: int | None = None) -> None:
        """Records the outcome of an intent, with who answers now.

        Args:
            event: sequence number of the intent.
            state: `done` or `abandoned`.
            pushed: the version that a push added; its manifest's digest is recorded.
        """
        digest = None if pushed is None else self._parts.store.manifest_sha256(pushed)
        self._parts.history.close(
            event, state=state, traffic=self._parts.pointer.read(), manifest_sha256=digest
        )

    def _moves(self) -> list[tuple[str, int | None]]:
        return [(event.action, event.live) for event in self._parts.history.events()]

    def _served(self, change: "Change | None") -> str:
        before = None if change is None else change.before
        now = before and self._parts.pointer.read()
        if now is None or now == before:
            return "What is live is as it was"
        return f"Version {now.live} is live"

    def _settle(self, change: "Change") -> None:
        """Closes changes that a crash cut short, and removes what they left behind."""
        store, pointer = self._parts.store, self._parts.pointer
        store.sweep()
        self._parts.history.mend()
        events = self._parts.history.events()
        unfinished = [event for event in events if event.state == "unfinished"]
        if not unfinished:
            return
        pointer.fence()
        pointer.tidy(self.ready(), change.keep)
        present = set(store.numbers())
        for event in unfinished:
            done = self._is_done(event, present, change)
            if event.action == "push" and not done:
                store.forget(event.version)
            pushed = event.version if event.action == "push" and done else None
            self.close(event.sequence, "done" if done else "abandoned", pushed)

    def _is_done(self, event: Event, present: set[int], change: "Change") -> bool:
        if event.action == "push":
            return event.version in present
        if event.action == "gc":
            return self._parts.store.resume_removal(event.version, change.keep)
        if event.action == "sign":
            return self._parts.store.is_signed(event.version)
        live = event.previous if event.action == "set_traffic" else event.version
        return self._parts.pointer.read() == Traffic(live, event.canary, event.percent)


class Change:
    """One change that is under way, with the lock held.

    Attributes:
        before: who answered when its intent was recorded; None before that.
    """

    def __init__(self, changes: Changes, parts: Parts, lease: Lease, who: str):
        """Use `Changes.held`."""
        self._changes = changes
        self._parts = parts
        self._lease = lease
        self._who = who
        self.before: Traffic | None = None

    def keep(self) -> None:
        """Proves that the lock is still ours and keeps it; to be called between long steps.

        Raises:
            RegistryError: it is not.
        """
        self._lease.check()

    @contextlib.contextmanager
    def recorded(
        self, action: str, number: int, reason: str, wanted: Traffic | None = None
    ) -> Iterator[None]:
        """Records what is about to happen, and once the block is through, that it was done.

        Args:
            action: as in `Event`.
            number: the version it is about.
            reason: why.
            wanted: who shall answer after it; None: as before.
        """
        sequence = self.begin(action, number, reason, wanted)
        yield
        self._changes.close(sequence, "done", number if action == "push" else None)

    def begin(self, action: str, number: int, reason: str, wanted: Traffic | None = None) -> int:
        """Records what is about to happen; see `recorded`. Returns its sequence number."""
        self.keep()
        before = self._parts.pointer.read()
        sequence = self._parts.history.begin(
            action=action,
            version=number,
            previous=before.live,
            wanted=wanted or before,
            who=self._who,
            reason=reason,
        )
        self.before = self.before or before
        return sequence

    def point(self, action: str, traffic: Traffic) -> None:
        """Moves the pointer; what is next on the way back stays loaded, what was left does not.

        A server without our labels, TF Serving by default, answers with the newest version that is
        loaded: a version that was rolled back from must not be among them.
        """
        ready = self._changes.ready((action, traffic.live))
        self._parts.pointer.move(traffic, ready, self.keep)
