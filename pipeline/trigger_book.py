"""What a trigger remembers on disk: which objects led to which runs.

One JSON file, written beside its place and renamed, so that it is whole whatever kills the process.
An entry is written before its run is submitted, and again with the run: an entry without a run says
that somebody may have died in between.
"""

import datetime
import fcntl
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ingest.atomic import write_text
from schema.errors import CortexflowError

# Of entries; Pub/Sub delivers a message for 31 days at most, and a dataset grows less often.
KEEP = 2_000


class BookError(CortexflowError):
    """The folder of a trigger cannot be used."""


class Entry(BaseModel):
    """One state of an object. `run` is None until its run is known to exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    dataset: str
    order: int | None
    name: str
    run: str | None = None
    time: datetime.datetime


class _Pages(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    entries: tuple[Entry, ...] = ()


class Book:
    """The entries of one trigger. Holds the folder's lock until `close`.

    Args:
        folder: made where it is missing.
        keep: how many entries are kept, the newest.

    Raises:
        BookError: another process has the folder, it cannot be written, or the file is damaged.
    """

    def __init__(self, folder: Path, keep: int = KEEP):
        self._path = folder / "book.json"
        self._keep = keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BookError(
                f"The trigger cannot write to {folder}: {error.strerror}. Give a folder that it "
                "may write by --state."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BookError(
                f"Another trigger uses {folder}. Run one for each folder: two would not know of "
                "each other's runs."
            ) from None
        try:
            self._entries = self._read()
        except BookError:
            self.close()
            raise

    def _read(self) -> dict[str, Entry]:
        try:
            pages = _Pages.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise BookError(
                f"{self._path} cannot be read: {error}. Restore it, or remove it if every message "
                "that was delivered in the last days may start a run again."
            ) from error
        return {entry.key: entry for entry in pages.entries}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> Entry | None:
        """The entry of this very state."""
        return self._entries.get(key)

    def newest(self, dataset: str) -> Entry | None:
        """The entry of a dataset with the highest order, of those whose run exists."""
        known = [
            entry
            for entry in self._entries.values()
            if entry.dataset == dataset and entry.run is not None and entry.order is not None
        ]
        return max(known, key=lambda entry: entry.order or 0, default=None)

    def write(self, *entries: Entry) -> None:
        """Keeps entries, in place of those with the same keys; on disk when it returns.

        Raises:
            OSError: the disk refuses; nothing is changed then.
        """
        changed = dict(self._entries)
        for entry in entries:
            changed.pop(entry.key, None)
            changed[entry.key] = entry
        kept = list(changed.values())[-self._keep :]
        write_text(self._path, _Pages(entries=tuple(kept)).model_dump_json(indent=1) + "\n")
        self._entries = {entry.key: entry for entry in kept}

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self._lock)
