"""The record of every change: an intent before anything moves, and an outcome after.

A line is either an intent (`sequence`, what is about to happen, who, why) or the outcome that
closes one (`closes`). An intent is on the disk before anything moves, so that even a power cut
leaves who wanted what. `registry.chain` binds the lines together.
"""

import dataclasses
import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from registry.chain import OWN_FIELDS, Log
from registry.documents import Document
from registry.interface import Audit, Event, RegistryError, Traffic


class History:
    """The changes of one model. Adding to it needs a lock that is held by the caller."""

    def __init__(self, lines: Document, head: Document, key_file: Path | None = None):
        """Reads and writes nothing yet.

        Args:
            lines: `history.jsonl`.
            head: `history.head`, which anchors its end.
            key_file: secret that keys the hashes; None hashes without a key.
        """
        self._log = Log(lines, head, key_file)

    def events(self) -> tuple[Event, ...]:
        """Reads all changes, oldest first; a torn last line (a crash while writing) is left out.

        Raises:
            RegistryError: another line is damaged; names it.
        """
        events: dict[int, Event] = {}
        for number, line in enumerate(self._log.lines(), start=1):
            try:
                fields = json.loads(line)
                for name in OWN_FIELDS:
                    fields.pop(name, None)
                if "closes" in fields:
                    sequence = fields.pop("closes")
                    events[sequence] = dataclasses.replace(events[sequence], **fields)
                else:
                    events[fields["sequence"]] = Event(**fields, live=None, state="unfinished")
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise RegistryError(
                    f"Line {number} of {self._log.where} is damaged ({error}). Restore the file "
                    "from a copy."
                ) from error
        return tuple(events.values())

    def begin(
        self,
        *,
        action: str,
        version: int,
        previous: int | None,
        wanted: Traffic,
        who: str,
        reason: str,
    ) -> int:
        """Writes an intent, with who shall answer after it; returns its sequence number.

        Raises:
            RegistryError: the log's end is not as it was left.
        """
        events = self.events()
        sequence = events[-1].sequence + 1 if events else 1
        intent = {
            "sequence": sequence,
            "time": now(),
            "action": action,
            "version": version,
            "previous": previous,
            "canary": wanted.canary,
            "percent": wanted.percent,
            "who": who,
            "reason": reason,
        }
        self._log.append(intent)
        return sequence

    def close(
        self, sequence: int, *, state: str, traffic: Traffic, manifest_sha256: str | None = None
    ) -> None:
        """Writes the outcome of an intent: `done` or `abandoned`, and who answers after it.

        Raises:
            RegistryError: the log's end is not as it was left.
        """
        outcome: dict[str, object] = {"closes": sequence, "state": state}
        outcome |= dataclasses.asdict(traffic)
        if manifest_sha256:
            outcome["manifest_sha256"] = manifest_sha256
        self._log.append(outcome)

    def mend(self) -> None:
        """Cuts a torn last line off, so that the next append starts on its own line."""
        self._log.mend()

    def audit(self, head: str | None = None) -> Audit:
        """Looks for edits, deletions, truncation and reordering; see `Log.audit`."""
        return self._log.audit(head)


def served_at(events: Sequence[Event], moment: datetime.datetime) -> Traffic:
    """Who answered at a moment, by the changes alone.

    A change counts from when it was begun: what it moved moved within milliseconds of that, and
    where a crash came between, its outcome was recorded only by the next change.

    Args:
        events: all changes, oldest first.
        moment: with time zone.

    Raises:
        RegistryError: the moment has no time zone, or lies after the beginning of a change whose
            outcome is not recorded.
    """
    if moment.tzinfo is None:
        raise RegistryError(f"Which time zone is {moment.isoformat()} in? Add one: +00:00 is UTC.")
    traffic = Traffic(None)
    for event in events:
        if datetime.datetime.fromisoformat(event.time) > moment:
            continue
        if event.state == "unfinished":
            raise RegistryError(
                f"Change {event.sequence} ({event.action} of version {event.version} by "
                f"{event.who}, {event.time}) is under way or was cut short, so the log does not "
                "say who answered after it. The next change records its outcome."
            )
        traffic = Traffic(event.live, event.canary, event.percent)
    return traffic


def way_back(moves: Iterable[tuple[str, int | None]]) -> list[int]:
    """Replays which versions were live: the last is live, the one before is the way back.

    A rollback forgets what it rolled back from, so that the next one goes further back instead of
    returning to the version that was bad.

    Args:
        moves: every change's action and the version live after it, oldest first.
    """
    stack: list[int] = []
    for action, live in moves:
        if live is None or (stack and stack[-1] == live):
            continue
        if action == "rollback" and live in stack:
            while stack[-1] != live:
                stack.pop()
            continue
        stack.append(live)
    return stack


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat()
