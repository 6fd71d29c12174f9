"""The record of every change: append-only JSON lines, an intent before and an outcome after.

A line is either an intent (`sequence`, what is about to happen, who, why) or the outcome that
closes one (`closes`). An intent is on the disk before anything moves, so that even a power cut
leaves who wanted what. Lines are objects with named fields: a later hash chain adds fields.
"""

import dataclasses
import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from registry import durable
from registry.interface import Event, RegistryError, Traffic


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
    wanted: Traffic,
    who: str,
    reason: str,
) -> int:
    """Writes an intent, with who shall answer after it; returns its sequence number."""
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
    durable.append(path, json.dumps(intent, sort_keys=True).encode())
    return sequence


def close(
    path: Path, sequence: int, *, state: str, traffic: Traffic, manifest_sha256: str | None = None
) -> None:
    """Writes the outcome of an intent: `done` or `abandoned`, and who answers after it."""
    outcome: dict[str, object] = {"closes": sequence, "state": state}
    outcome |= dataclasses.asdict(traffic)
    if manifest_sha256:
        outcome["manifest_sha256"] = manifest_sha256
    durable.append(path, json.dumps(outcome, sort_keys=True).encode())


def mend(path: Path) -> None:
    """Cuts a torn last line off, so that the next append starts on its own line."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        durable.write(path, whole)


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
