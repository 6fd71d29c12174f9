"""What the server answered, for monitoring: TFRecord spans without images and without names.

    LOG/span-N/predictions-00000-of-00001.tfrecord.gz    finished spans, one tf.Example per image
    LOG/manifest.jsonl                                   one line per finished span
    LOG/.open/span-N.tfrecord                            the open span, uncompressed

A thread of its own takes observations from a bounded queue and appends them to the open span, so
that a slow disk drops records (counted) and never delays an answer. What was appended outlives
kill -9; the next start finishes the span that was left open. A finished span is compressed beside
its place and renamed; while that takes its second, observations wait in the queue.

A request id could lead back to a person through a client's own records. Written is only its HMAC
with a random key that lives in memory and is renewed each day: equal ids are equal within a day of
one process, and nobody can search for one afterwards.
"""

import collections
import contextlib
import datetime
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ingest.records import (
    Feature,
    RecordError,
    compress_records,
    decode_example,
    encode_example,
    framed,
    read_records,
)
from registry import durable
from schema.errors import CortexflowError
from schema.features import DESCRIPTOR_PREFIX
from serving import logs
from serving.config import LogSettings
from serving.interface import Observation

FILE = "predictions-00000-of-00001.tfrecord.gz"
MANIFEST = "manifest.jsonl"


class PredictionLogError(CortexflowError):
    """The folder of the prediction log cannot be used."""


class Pseudonyms:
    """Stands for request ids within one day (UTC)."""

    def __init__(self) -> None:
        self._day: int | None = None
        self._key = b""

    def of(self, request_id: str, moment: float) -> bytes:
        """Returns 32 hex digits.

        Args:
            request_id: as the client gave it.
            moment: Unix time in seconds, which chooses the key.
        """
        day = int(moment // 86400)
        if day != self._day:
            self._day, self._key = day, secrets.token_bytes(32)
        digest = hmac.digest(self._key, request_id.encode(), hashlib.sha256)
        return digest[:16].hex().encode()


def examples(observation: Observation, moment: float, pseudonym: bytes) -> Iterator[bytes]:
    """One observation as serialized `tf.Example`s.

    One per image where something was measured on images, else one for the request.

    Args:
        observation: of a request.
        moment: Unix time of its end, seconds.
        pseudonym: instead of its id.
    """
    common: dict[str, Feature] = {
        "time_ms": _ms(moment),
        "model": observation.model.encode(),
        "code": observation.code.encode(),
        "canary": int(observation.canary),
        "routed": int(observation.routed),
        "latency_ms": observation.seconds * 1000.0,
        "images": observation.images,
        "request": pseudonym,
    }
    if observation.version is not None:
        common["version"] = observation.version
    columns = [] if observation.descriptors is None else list(observation.descriptors.items())
    names = [DESCRIPTOR_PREFIX + name for name, _ in columns]
    values = [column.tolist() for _, column in columns]
    answers = [] if observation.probabilities is None else observation.probabilities.tolist()
    for index in range(max(1, len(answers), len(values[0]) if values else 0)):
        example = {**common, "instance": index}
        if index < len(answers):
            example["probabilities"] = answers[index]
        example.update(
            (name, column[index])
            for name, column in zip(names, values, strict=True)
            if index < len(column)
        )
        yield encode_example(example)


class Contents(NamedTuple):
    """What a span holds.

    Attributes:
        records: how many.
        bytes: of them, framed.
        first, last: when, Unix time in milliseconds; 0 without a record.
    """

    records: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0

    def plus(self, records: int, size: int, first: int, last: int) -> "Contents":
        """With some more records."""
        if self.records:
            first, last = min(self.first, first), max(self.last, last)
        return Contents(self.records + records, self.bytes + size, first, last)


class PredictionLog:
    """Writes the spans of one folder; one process at a time.

    Args:
        folder: created when absent.
        settings: when a span is closed.
        counted: called with numbers of records written and dropped, from the log's thread.
    """

    def __init__(
        self, folder: Path, settings: LogSettings, counted: Callable[[int, int], None] | None = None
    ):
        self._folder = folder
        self._settings = settings
        self._counted = counted or (lambda _written, _dropped: None)
        self._queue: collections.deque[tuple[float, Observation]] = collections.deque()
        self._pseudonyms = Pseudonyms()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._held = contextlib.ExitStack()
        self._dropped = 0
        self._file: int | None = None
        self._span = 0
        self._contents = Contents()
        self._opened = 0.0

    def start(self) -> None:
        """Takes the folder, finishes a span that a crash left open, and begins to write.

        Raises:
            PredictionLogError: another process writes there, or the folder cannot be written.
        """
        try:
            durable.make_folder(self._folder / ".open")
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o640)
            self._held.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it if we die
            self._recover()
        except BlockingIOError:
            self._held.close()
            raise PredictionLogError(
                f"Another process writes the prediction log in {self._folder}. Give this server "
                "a folder of its own."
            ) from None
        except OSError as error:
            raise PredictionLogError(
                f"The prediction log cannot be written in {self._folder}: {error.strerror}."
            ) from error
        self._thread.start()

    def observe(self, observation: Observation) -> None:
        """Takes one observation; never waits."""
        if len(self._queue) >= self._settings.queue:
            self._dropped += 1
        else:
            self._queue.append((time.time(), observation))

    def close(self) -> None:
        """Writes what waits, finishes the span and gives the folder back."""
        if self._thread.is_alive():
            self._stopping.set()
            self._thread.join()
        self._held.close()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.flush_seconds):
            self._turn()
        self._turn()
        with _told("finishing a span failed"):
            self._finish()

    def _turn(self) -> None:
        dropped, self._dropped = self._dropped, 0
        records: list[bytes] = []
        moments: list[float] = []
        for _ in range(len(self._queue)):
            moment, observation = self._queue.popleft()
            moments.append(moment)
            pseudonym = self._pseudonyms.of(observation.request_id, moment)
            records += map(framed, examples(observation, moment, pseudonym))
            time.sleep(0)  # gives the interpreter to who answers requests
        written = 0
        try:
            if records:
                self._append(b"".join(records))
                written = len(records)
                self._contents = self._contents.plus(
                    written, sum(map(len, records)), _ms(min(moments)), _ms(max(moments))
                )
        except OSError as error:
            logs.error("writing the prediction log failed", error)
            dropped += len(records)
        if written or dropped:
            self._counted(written, dropped)
        age = time.monotonic() - self._opened
        old = self._contents.records and age >= self._settings.max_seconds
        if old or self._contents.bytes >= self._settings.max_bytes:
            with _told("finishing a span failed"):
                self._finish()

    def _append(self, content: bytes) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._file = os.open(self._open_path(self._span + 1), flags, 0o640)
            self._span += 1
            self._contents, self._opened = Contents(), time.monotonic()
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            # Half a record would hide all that follow.
            os.ftruncate(self._file, self._contents.bytes)
            raise

    def _finish(self) -> None:
        if self._file is None:
            return
        os.close(self._file)
        contents, self._file, self._contents = self._contents, None, Contents()
        self._publish(self._span, contents)

    def _publish(self, span: int, contents: Contents, recovered: bool = False) -> None:
        """Compresses a span beside its place, renames it and adds its line."""
        source = self._open_path(span)
        if contents.records:
            staged = self._folder / f".span-{span}.partial"
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            compress_records(source, staged / FILE)
            durable.sync_folder(staged)
            staged.rename(self._folder / f"span-{span}")
            durable.sync_folder(self._folder)
            self._add_line(span, contents, recovered)
        source.unlink()

    def _add_line(self, span: int, contents: Contents, recovered: bool) -> None:
        path = self._folder / f"span-{span}" / FILE
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        line = {
            "span": span,
            "file": f"span-{span}/{FILE}",
            "records": contents.records,
            "first": _iso(contents.first),
            "last": _iso(contents.last),
            "sha256": digest,
            "recovered": recovered,
        }
        durable.append(self._folder / MANIFEST, json.dumps(line).encode())

    def _recover(self) -> None:
        """Settles what a killed process left: published but unlisted spans, and an open one."""
        finished = {_number(path): path for path in self._folder.glob("span-*")}
        manifest = self._folder / MANIFEST
        text = manifest.read_text() if manifest.exists() else ""
        listed = set()
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                listed.add(json.loads(line)["span"])
        if text and not text.endswith("\n"):
            durable.append(manifest, b"")  # ends a line that was cut short
        for number in sorted(set(finished) - listed):
            self._add_line(number, _contents(finished[number] / FILE), recovered=True)
        left = {_number(path): path for path in (self._folder / ".open").glob("span-*.tfrecord")}
        for number, path in sorted(left.items()):
            if number in finished:
                path.unlink()
            else:
                contents = _contents(path)
                os.truncate(path, contents.bytes)
                self._publish(number, contents, recovered=True)
        self._span = max([0, *finished, *left, *listed])

    def _open_path(self, span: int) -> Path:
        return self._folder / ".open" / f"span-{span}.tfrecord"


def _contents(path: Path) -> Contents:
    """What a span holds that another process wrote, up to where a crash cut it."""
    contents = Contents()
    with contextlib.suppress(RecordError):
        for record in read_records(path):
            moment = int(decode_example(record)["time_ms"][0])
            contents = contents.plus(1, len(framed(record)), moment, moment)
    return contents


def _ms(moment: float) -> int:
    return int(moment * 1000)


def _iso(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(
        timespec="milliseconds"
    )


def _number(path: Path) -> int:
    digits = path.name.removeprefix("span-").removesuffix(".tfrecord")
    return int(digits) if digits.isdecimal() else 0


@contextlib.contextmanager
def _told(what: str, **fields: Any) -> Iterator[None]:
    """Keeps a full disk or a damaged file from ending the log's thread."""
    try:
        yield
    except (OSError, RecordError) as error:
        logs.error(what, error, **fields)
