"""The audit log as an object: the same lines, chain and anchor as on a disk (registry.history).

Objects cannot be appended to. The log is copied to a scratch folder, changed there by the code that
keeps it on disks, and put back by compare-and-swap: if anybody else wrote meanwhile, nothing is
written. The anchor follows; a crash between the two is the one that `registry.chain` allows for.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from registry.bucket_objects import Objects, Stored
from registry.history import History
from registry.interface import Audit, Event, Traffic


class BucketHistory:
    """The changes of one model, in `FOLDER/history.jsonl` and `FOLDER/history.head`."""

    def __init__(self, objects: Objects, folder: str, key_file: Path | None = None):
        """Reads and writes nothing yet; arguments as of `registry.history.History`."""
        self._objects = objects
        self._names = (f"{folder}/history.jsonl", f"{folder}/history.head")
        self._key_file = key_file
        self._known: list[Stored | None] | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Reads the log once for the whole block; what others write meanwhile fails our writes."""
        self._known = self._read()
        try:
            yield
        finally:
            self._known = None

    def events(self) -> tuple[Event, ...]:
        """Reads all changes, oldest first.

        Raises:
            RegistryError: a line is damaged; names it.
        """
        with self._copy() as history:
            return history.events()

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
        """Writes an intent; see `History.begin`.

        Raises:
            RegistryError: the log's end is not as it was left, or somebody else wrote to it.
        """
        with self._copy(put_back=True) as history:
            return history.begin(
                action=action,
                version=version,
                previous=previous,
                wanted=wanted,
                who=who,
                reason=reason,
            )

    def close(
        self, sequence: int, *, state: str, traffic: Traffic, manifest_sha256: str | None = None
    ) -> None:
        """Writes the outcome of an intent; see `History.close`.

        Raises:
            RegistryError: the log's end is not as it was left, or somebody else wrote to it.
        """
        with self._copy(put_back=True) as history:
            history.close(sequence, state=state, traffic=traffic, manifest_sha256=manifest_sha256)

    def audit(self, head: str | None = None) -> Audit:
        """Looks for edits, deletions, truncation and reordering; see `registry.chain.Log.audit`."""
        with self._copy() as history:
            return history.audit(head)

    def _read(self) -> list[Stored | None]:
        return [self._objects.read(name) for name in self._names]

    @contextlib.contextmanager
    def _copy(self, put_back: bool = False) -> Iterator[History]:
        with tempfile.TemporaryDirectory(prefix="cortexflow-history-") as scratch:
            paths = [Path(scratch) / name.rpartition("/")[2] for name in self._names]
            stored = self._read() if self._known is None else self._known
            for path, found in zip(paths, stored, strict=True):
                if found is not None:
                    path.write_bytes(found.content)
            yield History(paths[0], self._key_file)
            if put_back:
                for place, (path, found) in enumerate(zip(paths, list(stored), strict=True)):
                    generation = 0 if found is None else found.generation
                    content = path.read_bytes()
                    new = self._objects.write(self._names[place], content, generation)
                    stored[place] = Stored(content, new)
