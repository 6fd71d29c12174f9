"""Copies a folder of a public bucket to this machine, going on where a cut connection stopped.

Bytes are appended to a partial file that carries the generation of its object, so that an object
replaced in between starts anew; a file takes its name once its size and its checksum are those of
the bucket. The folder takes its name once all files are there, and is then not looked at again
(`places`).
"""

import base64
import hashlib
import logging
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

import google_crc32c
import requests
import urllib3
from google.api_core import exceptions
from google.auth.exceptions import TransportError
from google.cloud import storage

from trainer.checkpoints.errors import DownloadError
from trainer.checkpoints.locking import locked
from trainer.checkpoints.places import MANIFEST, is_kept, keep

LOG = logging.getLogger(__name__)

_CHUNK = 8 << 20
_PATIENCE = (1.0, 2.0, 4.0)  # seconds before each new attempt; progress starts them over
_TIMEOUT = (10, 60)  # seconds to connect, and to wait for the next bytes

_FINAL = (exceptions.NotFound, exceptions.Forbidden, exceptions.Unauthorized)
_NO_CONNECTION = (  # the bucket did not answer, or not to the end
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    TransportError,
    ConnectionError,
    TimeoutError,
)
_PASSING = (exceptions.GoogleAPICallError, *_NO_CONNECTION)  # another attempt may not meet them
_PUBLISHED = "Published ones: `cortexflow checkpoint list`."
T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Object:
    """An object as the bucket listed it; a `Blob` takes over what each answer says of it.

    Attributes:
        blob: to read from.
        name: below the folder asked for.
        size: bytes.
        generation: of its content.
        md5: base64, or None of objects that were put together in the bucket.
        crc32c: base64.
    """

    blob: storage.Blob
    name: str
    size: int
    generation: int | None
    md5: str | None
    crc32c: str | None


def quiet(name: str, done: int, total: int) -> None:
    """Shows nothing."""


def folder(
    url: str, target: Path, progress: Progress = quiet, *, patience: tuple[float, ...] = _PATIENCE
) -> Path:
    """Downloads all below a bucket's address, unless that was done before.

    What was fetched once is kept as it was then, whatever becomes of the bucket (`places`). Access
    is anonymous; `STORAGE_EMULATOR_HOST` leads to a server of one's own.

    Args:
        url: `gs://bucket/path/of/a/folder`.
        target: the folder to fill (`places.kept_at`); it appears when it is whole.
        progress: told of the file at hand, and of bytes done and in all.
        patience: seconds to wait before each new attempt after a failure.

    Returns:
        `target`.

    Raises:
        DownloadError: the bucket cannot be reached, has no such folder or names that no folder here
            can hold, or its bytes do not match their checksum; says what to do.
    """
    with locked(target, LOG):
        if is_kept(target):
            return target
        partial = target.with_name(target.name + ".partial")
        objects = _attempt(lambda: _listed(url), url, patience)
        _sweep(partial, objects)
        total, done = sum(each.size for each in objects), 0
        for each in objects:
            place = partial / each.name
            if not (place.is_file() and _sound(each, place)):

                def told(here: int, each: _Object = each, before: int = done) -> None:
                    progress(each.name, before + here, total)

                _file(each, place, url, patience, told)
            done += each.size
            progress(each.name, done, total)
        files = {each.name: (each.size, each.generation) for each in objects}
        keep(partial, target, url, files)
    return target


def by_hand(url: str) -> str:
    """How to copy a bucket's folder without this program, and what to do with it then."""
    return (
        f"Without a network here, run `gsutil -m cp -r {url.rstrip('/')} DEST` elsewhere, copy "
        "DEST to this machine, and use it: --set pretrain=null --set checkpoint=DEST"
    )


def _listed(url: str) -> list[_Object]:
    bucket, _, path = url.removeprefix("gs://").partition("/")
    prefix = path.rstrip("/") + "/"
    # A client of its own: its connections are not shared between threads or forks.
    client = storage.Client.create_anonymous_client()
    blobs = client.list_blobs(bucket, prefix=prefix, timeout=_TIMEOUT, retry=None)
    objects = [
        _Object(
            blob,
            blob.name.removeprefix(prefix),
            int(blob.size or 0),
            blob.generation,
            blob.md5_hash,
            blob.crc32c,
        )
        for blob in blobs
        if not blob.name.endswith("/")
    ]
    if not objects:
        raise DownloadError(f"{url} holds no files. {_PUBLISHED}")
    check_names([each.name for each in objects], url)
    return objects


def check_names(names: Sequence[str], url: str) -> None:
    """Refuses names that files of one folder cannot have together.

    Raises:
        DownloadError: one lies outside the folder, is a file and a folder at once, is spelt as no
            file system would, or is the name of our own record.
    """
    known = set(names)
    for name in names:
        path = PurePosixPath(name)
        above = [str(parent) for parent in path.parents if str(parent) in known]
        if {"..", "/"} & set(path.parts):
            what = f"a file outside its folder: {name!r}"
        elif above:
            what = f"{above[0]!r} and {name!r}, so that one name is a file and a folder at once"
        elif str(path) != name:
            what = f"a file whose name no folder here can have: {name!r}"
        elif name == MANIFEST:
            what = f"a file {name!r}, which is the name of the record kept of a download"
        else:
            continue
        raise DownloadError(
            f"{url} holds {what}. Name the folder of one checkpoint alone. {_PUBLISHED}"
        )


def _sweep(partial: Path, objects: Sequence[_Object]) -> None:
    """Removes what an earlier attempt fetched and the bucket no longer lists."""
    wanted = {partial / each.name for each in objects}
    wanted |= {_part(partial / each.name, each) for each in objects}
    for path in sorted(partial.rglob("*"), reverse=True):  # what is in a folder before the folder
        if not path.is_dir():
            if path not in wanted:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def _part(place: Path, each: _Object) -> Path:
    """Where the bytes of a file gather until it is whole."""
    return place.with_name(f".{place.name}.{each.generation}.part")


def _file(
    each: _Object,
    place: Path,
    url: str,
    patience: tuple[float, ...],
    told: Callable[[int], None],
) -> None:
    """Fills one file, from where an earlier attempt stopped."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = _part(place, each)
    part.touch()
    while part.stat().st_size < each.size:
        _attempt(lambda: _append(each, part), url, patience)
        told(part.stat().st_size)
    if not _sound(each, part):
        part.unlink()
        raise DownloadError(
            f"{each.name} of {url} arrived with another checksum than the bucket's; it was thrown "
            "away. Run the same command again to fetch it anew."
        )
    part.rename(place)


def _append(each: _Object, part: Path) -> None:
    """Adds the next bytes; those that came before a cut stay."""
    first = part.stat().st_size
    with part.open("ab") as file:
        each.blob.download_to_file(
            file,
            start=first,
            end=min(first + _CHUNK, each.size) - 1,
            raw_download=True,
            checksum=None,  # of the whole object, which a range has not: compared at the end
            if_generation_match=each.generation,
            timeout=_TIMEOUT,
            retry=None,
        )
    if part.stat().st_size == first:
        raise ConnectionError(f"no bytes came of {each.name} after byte {first}")


def _sound(each: _Object, part: Path) -> bool:
    """Whether size and checksum are the bucket's: MD5, or CRC32C of objects put together there."""
    md5, crc = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()
    size = 0
    with part.open("rb") as file:
        while block := file.read(_CHUNK):
            md5.update(block)
            crc.update(block)
            size += len(block)
    wanted = [(each.md5, md5.digest()), (each.crc32c, crc.digest())]
    told = [(text, digest) for text, digest in wanted if text]
    return (
        size == each.size
        and bool(told)
        and all(base64.b64encode(digest).decode() == text for text, digest in told)
    )


def _unreachable(url: str, error: Exception) -> str:
    """What went wrong, what to do, and last what the library said."""
    request = getattr(error, "request", None)
    host = urlsplit(getattr(request, "url", None) or url).netloc
    cut_off = isinstance(error, _NO_CONNECTION)
    problem = f"No connection to {host}" if cut_off else f"{url} cannot be reached"
    said = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")
    return (
        f"{problem}. {by_hand(url)}. What has arrived is kept: the same command goes on from "
        f"there. ({said})"
    )


def _attempt(work: Callable[[], T], url: str, patience: tuple[float, ...]) -> T:
    """Does a piece of work, again after each failure that may pass."""
    for seconds in (*patience, None):
        try:
            return work()
        except _FINAL as error:
            raise DownloadError(
                f"{url} is not there for everybody: {error.message}. {_PUBLISHED}"
            ) from error
        except exceptions.PreconditionFailed as error:
            raise DownloadError(
                f"{url} was replaced while it was fetched. Run the same command again."
            ) from error
        except _PASSING as error:
            if seconds is None:
                raise DownloadError(_unreachable(url, error)) from error
            LOG.info("connection lost; trying again in %.0f s", seconds)
            time.sleep(seconds)
    raise AssertionError("unreachable: the last attempt returns or raises")
