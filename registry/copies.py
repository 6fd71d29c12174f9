"""Copies of versions in folders of the caller, proved before they have their name."""

import os
import tempfile
from pathlib import Path

from registry import durable, manifest
from registry.interface import RegistryError, VerificationError, Version
from registry.store import Store


def fetch(store: Store, version: Version, target: Path) -> None:
    """Copies a version into a folder that does not exist yet.

    Args:
        store: where it lies.
        version: whose manifest is trusted.
        target: appears by one rename, with the bytes that the manifest tells.

    Raises:
        RegistryError: the folder exists or cannot be written.
        VerificationError: a file is not what was pushed.
    """
    if os.path.lexists(target):
        raise RegistryError(f"{target} exists already. Name a folder that does not.")
    try:
        durable.make_folder(target.parent)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
            copy = Path(scratch) / "version"
            store.fetch(version, copy)
            manifest.compare(copy, version.files)
            durable.system.rename(copy, target)
    except OSError as error:
        raise RegistryError(
            f"Version {version.number} was not copied to {target}: {error}. Mend the cause and "
            "repeat the command."
        ) from error


def cached(store: Store, version: Version) -> Path:
    """A copy of a version in the account's cache, made with the first question.

    A copy that is there is read and compared each time; a damaged one is made anew.

    Raises:
        RegistryError: it cannot be read or written.
        VerificationError: a file is not what was pushed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "cortexflow" / "versions" / version.digest
    if target.is_dir():
        try:
            manifest.compare(target, version.files)
            return target
        except VerificationError:
            durable.remove_tree(target)
    try:
        fetch(store, version, target)
    except RegistryError:
        if not target.is_dir():  # else another process was first
            raise
        manifest.compare(target, version.files)
    return target
