"""From what a user names to a place on this machine: alias, address or path."""

import os
import shutil
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import tensorflow as tf
import tensorflow_hub as hub

from trainer.checkpoints import aliases, download, places
from trainer.checkpoints.download import LOG, Progress, quiet
from trainer.checkpoints.errors import DownloadError
from trainer.checkpoints.locking import locked
from trainer.config import BackboneSettings

_HUB_CACHE = "TFHUB_CACHE_DIR"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Located:
    """A checkpoint on this machine.

    Attributes:
        path: its folder, or a checkpoint's prefix.
        expected: the backbone that its name promises, if it promises any.
        anew: whether it was downloaded for this.
    """

    path: Path
    expected: BackboneSettings | None = None
    anew: bool = False


def locate(text: str, cache: Path, progress: Progress = quiet) -> Located:
    """Finds a checkpoint, and downloads it when it is not here yet.

    Args:
        text: a path; an alias such as `simclrv2/pretrained/r50_1x_sk0`; a `gs://` folder of a
            public bucket; the `https://` address of a `.tar.gz` of a SavedModel (fetched by
            tensorflow-hub); or a folder in any other file system that TensorFlow reads.
        cache: where downloads are kept.
        progress: told of the file at hand, and of bytes done and in all.

    Raises:
        UnknownCheckpoint: there is neither such a file nor such an alias; names the nearest.
        DownloadError: it could not be fetched; says how to fetch it by hand.
    """
    published = aliases.known(text)
    if "://" not in text and published is None:
        return Located(Path(text).expanduser().resolve())
    url = published.url if published else text
    target = places.kept_at(url, cache)
    anew = not places.is_kept(target)
    scheme = urlsplit(url).scheme
    if scheme == "gs":
        download.folder(url, target, progress)
    elif scheme in ("https", "http"):
        _archive(url, target)
    else:
        _copied(url, target)
    return Located(target, published.backbone if published else None, anew)


def _archive(url: str, target: Path) -> None:
    """An archive, fetched and unpacked by tensorflow-hub."""
    if urlsplit(url).scheme == "http" and urlsplit(url).hostname not in _LOOPBACK:
        raise DownloadError(f"{url} could be altered on its way. Use its https:// address.")
    with locked(target, LOG):
        if places.is_kept(target):
            return
        LOG.info("downloading %s", url)
        partial = _emptied(target)
        try:
            with _hub_cache(partial):
                unpacked = Path(hub.resolve(url))
        except (OSError, ValueError, RuntimeError, urllib.error.URLError) as error:
            raise DownloadError(
                f"{url} could not be fetched or unpacked: {error}. Without a network here, fetch "
                "the archive elsewhere, unpack it, and use the folder: --set pretrain=null --set "
                "checkpoint=FOLDER"
            ) from error
        _keep(unpacked, target, url)
        shutil.rmtree(partial)


@contextmanager
def _hub_cache(folder: Path) -> Iterator[None]:
    """Leads tensorflow-hub, which knows this variable alone, to the workspace."""
    before = os.environ.get(_HUB_CACHE)
    os.environ[_HUB_CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_HUB_CACHE]
        else:
            os.environ[_HUB_CACHE] = before


def _copied(url: str, target: Path) -> None:
    """A folder of any file system that `tf.io.gfile` reads, copied here."""
    with locked(target, LOG):
        if places.is_kept(target):
            return
        partial = _emptied(target)
        try:
            if not tf.io.gfile.isdir(url):
                raise DownloadError(f"There is no folder at {url}.")
            for source, _, files in tf.io.gfile.walk(url):
                inside = source.removeprefix(url).strip("/")
                (partial / inside).mkdir(parents=True, exist_ok=True)
                for name in files:
                    there = f"{source.rstrip('/')}/{name}"
                    tf.io.gfile.copy(there, str(partial / inside / name))
        except (tf.errors.OpError, OSError) as error:
            raise DownloadError(
                f"{url} cannot be read: {error}. Copy the folder to this machine and name its path."
            ) from error
        _keep(partial, target, url)


def _emptied(target: Path) -> Path:
    """The folder in which a download gathers, without what an earlier attempt left."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def _keep(filled: Path, target: Path, url: str) -> None:
    found = [path for path in sorted(filled.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(filled)): (path.stat().st_size, None) for path in found}
    download.check_names(list(files), url)
    places.keep(filled, target, url, files)
