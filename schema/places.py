"""Folders by path or address: work on a local copy, whatever the pipeline's root is.

Most of what a node does needs files that can be mapped, renamed and handed to other programs. Where
an artifact lies behind an address (`gs://…`, `s3://…`), `fetched` and `written` bring a copy here
and take it back; where it lies in a folder, they do nothing. What can be read or listed where it
lies, is.
"""

import contextlib
import ctypes
import functools
import importlib
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Place = str | os.PathLike[str]


def is_remote(uri: Place) -> bool:
    """Whether this is an address rather than a path."""
    return "://" in os.fspath(uri)


def below(uri: Place, *names: str) -> str:
    """The place of something below a folder or an address; `Path` would spoil an address."""
    return posixpath.join(os.fspath(uri), *names)


def _told_as_os_errors(work: Callable[P, T]) -> Callable[P, T]:
    """TensorFlow's errors as those that whoever handles files handles anyway."""

    @functools.wraps(work)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        import tensorflow as tf

        try:
            return work(*args, **kwargs)
        except tf.errors.NotFoundError as error:
            raise FileNotFoundError(error.message) from None
        except tf.errors.OpError as error:
            raise OSError(error.message) from None

    return told


@contextlib.contextmanager
def fetched(uri: Place) -> Iterator[Path]:
    """The folder itself, or a copy of all that lies below an address; gone afterwards.

    Raises:
        FileNotFoundError: nothing lies there.
        OSError: the address cannot be read.
    """
    if not is_remote(uri):
        if not os.path.exists(uri):
            raise FileNotFoundError(f"Nothing lies at {os.fspath(uri)}.")
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="cortexflow-fetched-") as scratch:
        copy(os.fspath(uri), scratch)
        yield Path(scratch)


@contextlib.contextmanager
def written(uri: Place) -> Iterator[Path]:
    """The folder itself, made where it is missing, or a scratch folder that is copied up later.

    It is copied when the work ends, unless by an error.

    Raises:
        OSError: the address cannot be written.
    """
    if not is_remote(uri):
        Path(uri).mkdir(parents=True, exist_ok=True)
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="cortexflow-written-") as scratch:
        yield Path(scratch)
        copy(scratch, os.fspath(uri))


@_told_as_os_errors
def copy(source: str, target: str) -> None:
    """Copies all files below `source` to below `target`, either of them a folder or an address.

    Raises:
        FileNotFoundError: nothing lies at `source`.
        OSError: one of them cannot be read or written.
    """
    io = _filesystems(source, target)
    if not io.exists(source):
        raise FileNotFoundError(f"Nothing lies at {source}.")
    for folder, _, files in io.walk(source):
        inner = folder[len(source.rstrip("/")) :].strip("/")
        place = below(target, inner) if inner else target
        if files:
            io.makedirs(place)
        for name in files:
            io.copy(below(folder, name), below(place, name), overwrite=True)


@_told_as_os_errors
def copy_file(source: str, target: str) -> None:
    """Copies one file, replacing what was there.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: one of them cannot be read or written.
    """
    io = _filesystems(source, target)
    io.makedirs(posixpath.dirname(target))
    io.copy(source, target, overwrite=True)


def listed(uri: Place) -> list[str]:
    """Names of files and folders directly below a folder or an address; none where it is missing.

    Raises:
        OSError: it cannot be read.
    """
    place = os.fspath(uri)
    if not is_remote(place):
        return sorted(os.listdir(place)) if os.path.isdir(place) else []
    return _listed(place)


@_told_as_os_errors
def _listed(place: str) -> list[str]:
    io = _filesystems(place)
    if not io.exists(place):
        return []
    return sorted({name.rstrip("/") for name in io.listdir(place)} - {""})


def exists(uri: Place) -> bool:
    """Whether a file or folder lies there.

    Raises:
        OSError: it cannot be read.
    """
    return _exists(os.fspath(uri)) if is_remote(uri) else os.path.exists(uri)


@_told_as_os_errors
def _exists(place: str) -> bool:
    return bool(_filesystems(place).exists(place))


def read_bytes(uri: Place) -> bytes:
    """What a file holds.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    return _read(os.fspath(uri)) if is_remote(uri) else Path(uri).read_bytes()


@_told_as_os_errors
def _read(uri: str) -> bytes:
    with _filesystems(uri).GFile(uri, "rb") as file:
        return bytes(file.read())


@_told_as_os_errors
def write_bytes(uri: Place, content: bytes) -> None:
    """Writes a file, whole where it lies behind an address of an object store.

    Raises:
        OSError: it cannot be written.
    """
    io = _filesystems(uri)
    place = os.fspath(uri)
    io.makedirs(posixpath.dirname(place))
    with io.GFile(place, "wb") as file:
        file.write(content)


@_told_as_os_errors
def modified(uri: Place) -> int:
    """When the newest file below a folder or address was written, in ns since 1970; 0: none.

    Raises:
        OSError: it cannot be read.
    """
    io = _filesystems(uri)
    return max(
        (
            int(io.stat(below(folder, name)).mtime_nsec)
            for folder, _, files in io.walk(os.fspath(uri))
            for name in files
        ),
        default=0,
    )


@_told_as_os_errors
def remove(uri: Place) -> None:
    """Removes a file, or a folder with all below it; nothing where there is none.

    Raises:
        OSError: it cannot be removed.
    """
    io = _filesystems(uri)
    place = os.fspath(uri)
    if not io.exists(place):
        return
    if io.isdir(place):
        io.rmtree(place)
    else:
        io.remove(place)


@functools.cache
def prepare_s3() -> None:
    """Lets TensorFlow, and with it TFX, know `s3://`, which is an add-on's; once per process.

    Raises:
        ImportError: the add-on is not installed.
    """
    importlib.import_module("tensorflow_io")  # adds its filesystems when it is loaded
    # Its destructors abort the process when it ends ("pure virtual method called", 0.37.1), and
    # with it goes the exit code. glibc calls what is registered last first: Python is done by then,
    # and `_exit` takes the very status that it is called with.
    libc = ctypes.CDLL(None)
    libc.on_exit(libc._exit, None)


def _filesystems(*uris: Place) -> Any:
    if any(os.fspath(uri).startswith("s3://") for uri in uris):
        prepare_s3()
    import tensorflow as tf  # its filesystems know the addresses that TFX and Beam know

    return tf.io.gfile
