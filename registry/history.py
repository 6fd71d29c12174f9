"""The record of every change: append-only JSON lines, an intent before and an outcome after.

A line is either an intent (`sequence`, what is about to happen, who, why) or the outcome that
closes one (`closes`). An intent is on the disk before anything moves, so that even a power cut
leaves who wanted what. Lines are objects with named fields: a later hash chain adds fields.
"""

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path

from registry import durable
from registry.interface import Event, RegistryError


def read(path: Path) -> tuple[Event, ...]:
    """Reads all changes, oldest first; a torn last line (a crash while writing) is left out.

    Raises:
        RegistryError: another line is damaged; names it.
    """
    content = path.read_bytes() if path.exists() else b""
    events: dict[int, Event] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line)
            if "closes" in fields:
                sequence = fields.pop("closes")
                events[sequence] = dataclasses.replace(events[sequence], **fields)
            else:
                events[fields["sequence"]] = Event(**fields, live=None, state="unfinished")
        except (ValueError, TypeError, KeyError) as error:
            raise RegistryError(
                f"Line {number} of {path} is damaged ({error}). Restore the file from a copy."
            ) from error
    return tuple(events.values())


def begin(
    path: Path,
    events: Sequence[Event],
    *,
    action: str,
    version: int,
    previous: int | None,
    who: str,
    reason: str,
) -> int:
    """Writes an intent; returns its sequence number."""
    sequence = events[-1].sequence + 1 if events else 1
    intent = {
        "sequence": sequence,
        "time": now(),
        "action": action,
        "version": version,
        "previous": previous,
        "who": who,
        "reason": reason,
    }
    durable.append(path, json.dumps(intent, sort_keys=True).encode())
    return sequence


def close(
    path: Path, sequence: int, *, state: str, live: int | None, manifest_sha256: str | None = None
) -> None:
    """Writes the outcome of an intent: `done` or `abandoned`, and the version live after it."""
    outcome: dict[str, object] = {"closes": sequence, "state": state, "live": live}
    if manifest_sha256:
        outcome["manifest_sha256"] = manifest_sha256
    durable.append(path, json.dumps(outcome, sort_keys=True).encode())


def mend(path: Path) -> None:
    """Cuts a torn last line off, so that the next append starts on its own line."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        durable.write(path, whole)


def way_back(events: Sequence[Event]) -> list[int]:
    """Replays which versions were live: the last is live, the one before is the way back.

    A rollback forgets what it rolled back from, so that the next one goes further back instead of
    returning to the version that was bad.
    """
    stack: list[int] = []
    for event in events:
        if event.live is None or (stack and stack[-1] == event.live):
            continue
        if event.action == "rollback" and event.live in stack:
            while stack[-1] != event.live:
                stack.pop()
            continue
        stack.append(event.live)
    return stack


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat()
