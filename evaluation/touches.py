"""How often the people of a test split have judged a candidate.

A test split tells the truth once. Of ten candidates judged on the same people the best looks better
than it is (Dwork et al. 2015, Science 349:636), so each look is recorded where no rerun erases it.
"""

import datetime
import fcntl
import json
import os
from pathlib import Path

from ingest.atomic import sync_folder
from schema import places
from schema.errors import CortexflowError

FILE, LOCK = "touches.jsonl", "touches.lock"


class TouchError(CortexflowError):
    """The record of touches cannot be read or written."""


def record(folder: str | Path, *, people: str, candidate: str) -> int:
    """Records that a candidate was judged on these people, durably, before anyone sees how well.

    Processes may record at once. One candidate on the same people is one touch, however often it
    is judged again.

    Args:
        folder: where `touches.jsonl` lies, on a file system that knows locks; made where missing.
            Or an address (`gs://…`): no store of objects can append or lock, so each look is an
            object of its own there, `PEOPLE/CANDIDATE.json`, and how many there are is the count.
        people: digest of the test people (`evaluation.predictions.people_digest`).
        candidate: digest of the candidate.

    Returns:
        How many candidates these people have judged, this one included: 1 or more.

    Raises:
        TouchError: the folder cannot be written, or the record is damaged.
    """
    place = Path(folder)
    try:
        if places.is_remote(folder):
            return _record_object(str(folder).rstrip("/"), people, candidate)
        place.mkdir(parents=True, exist_ok=True)
        with open(place / LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _record(place / FILE, people, candidate)
    except OSError as error:
        raise TouchError(
            f"The touch of the test split cannot be recorded in {folder} ({error}). Make the "
            "folder writable: a look that is not on record must not be taken."
        ) from error


def _record_object(address: str, people: str, candidate: str) -> int:
    """Writing twice is writing once; whoever counts has written before, so none is missed."""
    looks = places.below(address, people)
    if f"{candidate}.json" not in places.listed(looks):
        look = json.dumps(_line(people, candidate)).encode() + b"\n"
        places.write_bytes(places.below(looks, f"{candidate}.json"), look)
    return len(places.listed(looks))


def _record(path: Path, people: str, candidate: str) -> int:
    content = path.read_bytes() if path.exists() else b""
    *whole, torn = content.split(b"\n")
    seen = {entry["candidate"] for entry in map(_entry, whole) if entry["people"] == people}
    if candidate not in seen:
        line = _line(people, candidate)
        # What a power cut left of a last line is cut off: it was never answered with a count.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with open(descriptor, "r+b", buffering=0) as file:
            file.truncate(len(content) - len(torn))
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(line).encode() + b"\n")
            os.fsync(file.fileno())
        if not content:
            sync_folder(path.parent)
    return len(seen | {candidate})


def _line(people: str, candidate: str) -> dict[str, str]:
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"time": time, "people": people, "candidate": candidate}


def _entry(line: bytes) -> dict[str, str]:
    try:
        entry = json.loads(line)
        return {key: entry[key] for key in ("people", "candidate")}
    except (ValueError, KeyError, TypeError):
        raise TouchError(
            f"The record of touches of the test split is damaged (received the line {line[:80]!r})."
            f" Restore {FILE} from a backup; deleting it would hide looks at the test split."
        ) from None
