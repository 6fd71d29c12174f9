"""What a version consists of: scanning a folder, its content digest, its manifest, its proof."""

import dataclasses
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from registry.durable import BLOCK
from registry.interface import File, RegistryError, VerificationError, Version

SAVED_MODEL = "saved_model.pb"
MAX_FILES = 10_000
MAX_BYTES = 8 << 30  # the largest SimCLRv2 network (ResNet-152 ×3 with SK) is 3.2 GB in float32


def scan(folder: Path) -> dict[str, int]:
    """Lists the plain files of a folder: relative path → bytes, ordered by path.

    Raises:
        RegistryError: the folder is absent, holds a link or another special file, a name that
            cannot be printed, too many files or too many bytes.
    """
    if not folder.is_dir():
        raise RegistryError(f"There is no model folder at {folder}. Give an exported SavedModel.")
    sizes: dict[str, int] = {}
    total = 0
    for entry in _walk(folder):
        path = Path(entry.path).relative_to(folder).as_posix()
        check_name(path)
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            kind = "symbolic link" if stat.S_ISLNK(status.st_mode) else "special file"
            raise VerificationError(f"{path} in {folder} is a {kind}. A model holds plain files.")
        sizes[path] = status.st_size
        total += status.st_size
        if len(sizes) > MAX_FILES or total > MAX_BYTES:
            raise RegistryError(
                f"{folder} holds more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB. "
                "Push the exported model only, not the folder of the run."
            )
    return dict(sorted(sizes.items()))


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            else:
                yield entry


def check_name(path: str) -> None:
    """Refuses names that could leave the version's folder or mislead a reader.

    Raises:
        RegistryError: the name is absolute, holds `..`, a backslash or an unprintable character.
    """
    pure = PurePosixPath(path)
    unsafe = pure.is_absolute() or ".." in pure.parts or "\\" in path or not path.isprintable()
    if unsafe or pure.as_posix() != path or path == ".":
        raise VerificationError(f"{path!r} is not a file name that a model may hold. Rename it.")


def check_model(folder: Path, sizes: Mapping[str, int]) -> None:
    """Raises RegistryError unless `folder` is a SavedModel with a graph in it."""
    if not sizes.get(SAVED_MODEL):
        found = ", ".join(list(sizes)[:5]) or "nothing"
        raise RegistryError(
            f"{folder} is no SavedModel: no {SAVED_MODEL} with content (received: {found}). "
            "Give the folder that `Format-Serving` holds."
        )


def sha256(path: Path) -> str:
    """Hex SHA-256 of a plain file; a symbolic link is an OSError."""
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def content_digest(files: tuple[File, ...]) -> str:
    """Hex SHA-256 over the names, sizes and digests of all files, ordered by path."""
    lines = (
        json.dumps([file.path, file.size, file.sha256]) + "\n"
        for file in sorted(files, key=lambda file: file.path)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def inventory(folder: Path) -> tuple[File, ...]:
    """Reads every file of a folder: names, sizes and digests, ordered by path."""
    return tuple(File(path, size, sha256(folder / path)) for path, size in scan(folder).items())


def to_json(version: Version) -> bytes:
    """The manifest's bytes: equal versions give equal bytes. Not-a-number becomes null.

    Raises:
        TypeError: metrics or lineage hold what JSON cannot.
    """
    fields = dataclasses.asdict(version)
    del fields["already_present"]
    fields["metrics"], fields["lineage"] = _plain(version.metrics), _plain(version.lineage)
    return json.dumps(fields, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(content: bytes, origin: str | Path) -> Version:
    """Reads a manifest; `origin` is its name, for messages.

    Raises:
        VerificationError: it is not what `to_json` wrote.
    """
    try:
        fields = json.loads(content)
        files = tuple(File(**file) for file in fields.pop("files"))
        version = Version(files=files, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VerificationError(f"The manifest {origin} is damaged: {error}.") from error
    for file in files:
        check_name(file.path)
    if version.digest != content_digest(files):
        raise VerificationError(f"The manifest {origin} was edited: its digest does not match.")
    return version


def compare(folder: Path, files: tuple[File, ...]) -> None:
    """Proves that a folder holds exactly these files, byte for byte.

    Raises:
        VerificationError: a file is missing, extra, changed or not a plain file; names it.
    """
    if folder.is_symlink():
        raise VerificationError(f"{folder} is a symbolic link, not a version's own folder.")
    expected = {file.path: file for file in files}
    sizes = scan(folder)
    if missing := sorted(expected.keys() - sizes.keys()):
        raise VerificationError(f"{missing[0]} is missing from {folder}.")
    if extra := sorted(sizes.keys() - expected.keys()):
        raise VerificationError(f"{extra[0]} in {folder} was not pushed.")
    for path, file in expected.items():
        if sizes[path] != file.size or sha256(folder / path) != file.sha256:
            raise VerificationError(f"{path} in {folder} was changed after it was pushed.")
