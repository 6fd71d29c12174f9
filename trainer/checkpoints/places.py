"""Where downloads are kept on this machine.

A download is pinned: what was fetched once is used from then on, without asking the bucket again,
so that a run gives the same result next year and without a network. Removing its folder fetches
anew.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "download.json"  # written last: a folder without it is no download
_LONGEST_TAIL = 80  # characters; with hash, `.partial` and a lock's dots far below the 255 allowed


def kept_at(url: str, cache: Path) -> Path:
    """Where the download of an address is kept: one folder for each full address, side by side.

    Its name ends in a hash of the address, and begins with what can be read of it.
    """
    address = url.rstrip("/")
    tail = re.sub(r"[^A-Za-z0-9.-]+", "_", address.partition("://")[2])[-_LONGEST_TAIL:]
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    return cache / "downloads" / f"{tail.strip('._-') or 'checkpoint'}-{digest}"


def is_kept(folder: Path) -> bool:
    """Whether a folder is a whole download."""
    return (folder / MANIFEST).is_file()


def keep(
    partial: Path, folder: Path, url: str, files: Mapping[str, tuple[int, int | None]]
) -> None:
    """Makes a filled folder a download, and moves it to its place.

    Args:
        partial: what was fetched.
        folder: where it is kept; whatever lies there is no whole download, and is removed.
        url: where it came from.
        files: bytes, and generation where the store has such, by name.
    """
    record = {"url": url, "files": files}
    (partial / MANIFEST).write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
