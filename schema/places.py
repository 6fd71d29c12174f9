"""Folders by path or address: work on a local copy, whatever the pipeline's root is.

Most of what a node does needs files that can be mapped, renamed and handed to other programs. Where
an artifact lies behind an address (`gs://…`, `s3://…`), these two bring a copy here and take it
back; where it lies in a folder, they do nothing.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def is_remote(uri: str | os.PathLike[str]) -> bool:
    """Whether this is an address rather than a path."""
    return "://" in os.fspath(uri)


@contextlib.contextmanager
def fetched(uri: str | os.PathLike[str]) -> Iterator[Path]:
    """The folder itself, or a copy of all that lies below an address; gone afterwards.

    Raises:
        FileNotFoundError: nothing lies there.
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
def written(uri: str | os.PathLike[str]) -> Iterator[Path]:
    """The folder itself, made where it is missing, or a scratch folder that is copied up later.

    It is copied when the work ends, unless by an error.
    """
    if not is_remote(uri):
        Path(uri).mkdir(parents=True, exist_ok=True)
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="cortexflow-written-") as scratch:
        yield Path(scratch)
        copy(scratch, os.fspath(uri))


def copy(source: str, target: str) -> None:
    """Copies all files below `source` to below `target`, either of them a folder or an address.

    Raises:
        FileNotFoundError: nothing lies at `source`.
    """
    import tensorflow as tf  # its filesystems know the addresses that TFX and Beam know

    io = tf.io.gfile
    if not io.exists(source):
        raise FileNotFoundError(f"Nothing lies at {source}.")
    for folder, _, files in io.walk(source):
        below = folder[len(source.rstrip("/")) :].strip("/")
        place = os.path.join(target, below) if below else target
        if files:
            io.makedirs(place)
        for name in files:
            io.copy(os.path.join(folder, name), os.path.join(place, name), overwrite=True)
