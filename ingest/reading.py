"""Reading the bytes of source images, from files or from records, one at a time."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from ingest.containers import RefusedImageError
from ingest.images import ImageLimits
from ingest.records import RecordError, decode_example, read_records
from ingest.sources import SourceImage
from schema.features import IMAGE

Outcome = bytes | RefusedImageError


def read_file(path: str, max_bytes: int = ImageLimits.max_bytes) -> bytes:
    """Reads a regular file.

    Raises:
        RefusedImageError: it is too large, no regular file, or cannot be read.
    """
    try:
        # A pipe or device in the folder must not block the import: ask before opening.
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise RefusedImageError("unreadable", "It is no regular file.")
        if info.st_size > max_bytes:
            raise RefusedImageError("too_large", f"{info.st_size} bytes; at most {max_bytes}.")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise RefusedImageError("unreadable", f"{error.strerror}.") from error


def read_sources(
    images: Sequence[SourceImage], max_bytes: int = ImageLimits.max_bytes
) -> Iterator[tuple[SourceImage, Outcome]]:
    """Yields each image with its bytes, or with the reason why they cannot be read.

    Images of one TFRecord file must be neighbours, by rising record index: the file is read once,
    front to back. Memory is one image.
    """
    for path, group in groupby(images, key=lambda image: image.path):
        members = list(group)
        if members[0].record is None:
            for image in members:
                yield image, _try_file(path, max_bytes)
        else:
            yield from _read_members(path, members)


def _try_file(path: str, max_bytes: int = ImageLimits.max_bytes) -> Outcome:
    try:
        return read_file(path, max_bytes)
    except RefusedImageError as refused:
        return refused


def _read_members(
    path: str, members: Sequence[SourceImage]
) -> Iterator[tuple[SourceImage, Outcome]]:
    wanted = iter(members)
    image = next(wanted, None)
    for index, record in enumerate(read_records_safely(path)):
        if image is None:
            return
        if index == image.record:
            yield image, _image_of(record)
            image = next(wanted, None)
    while image is not None:
        yield image, RefusedImageError("unreadable", "The record is no longer in the file.")
        image = next(wanted, None)


def read_records_safely(path: str) -> Iterator[bytes]:
    """Yields records up to the first that is damaged; the rest of such a file is unreadable."""
    try:
        yield from read_records(Path(path))
    except RecordError:
        return


def _image_of(record: bytes) -> Outcome:
    try:
        values = decode_example(record).get(IMAGE, [])
    except RecordError as error:
        return RefusedImageError("invalid_record", str(error))
    if len(values) != 1 or not isinstance(values[0], bytes):
        return RefusedImageError("invalid_record", f"It holds {len(values)} values of {IMAGE!r}.")
    return values[0]


def digests(images: Sequence[SourceImage]) -> list[str]:
    """SHA-256 of each image's bytes, hex; the reason code where it cannot be read."""

    def digest(outcome: Outcome) -> str:
        if isinstance(outcome, RefusedImageError):
            return outcome.reason
        return hashlib.sha256(outcome).hexdigest()

    if any(image.record is not None for image in images):
        return [digest(outcome) for _, outcome in read_sources(images)]
    with ThreadPoolExecutor(4) as pool:  # hashing and reading both release the lock
        return list(
            pool.map(
                lambda i: digest(_try_file(i.path, ImageLimits.max_bytes)), images, chunksize=64
            )
        )
