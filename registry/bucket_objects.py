"""Objects of a Cloud Storage bucket below one prefix, replaced by compare-and-swap.

An object is visible whole or not at all, and `ifGenerationMatch` makes a write or removal happen
only where the object is still the one that was read: https://cloud.google.com/storage/docs/
request-preconditions. Every upload is checked by CRC32C on the way.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.durable import BLOCK
from registry.interface import RegistryError

TIMEOUT = 120.0  # seconds for one request

_URI = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<prefix>[^?#]*))?")


class ObjectChanged(RegistryError):
    """Somebody else replaced an object between our reading and our writing."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An object as it was read.

    Attributes:
        content: all of it.
        generation: number that changes with every replacement; 0 is that of an absent object.
    """

    content: bytes
    generation: int


class Objects:
    """The objects below `gs://bucket/prefix`. Connects with the first request, not before."""

    def __init__(self, uri: str, client: Any = None):
        """Points at a bucket.

        Args:
            uri: `gs://bucket` or `gs://bucket/prefix`.
            client: a `google.cloud.storage.Client`; None makes one from the environment.

        Raises:
            RegistryError: `uri` names no bucket.
        """
        match = _URI.fullmatch(uri.rstrip("/"))
        parts = ((match and match["prefix"]) or "").split("/")
        if match is None or ".." in parts or (len(parts) > 1 and "" in parts):
            raise RegistryError(f"A bucket is named as gs://bucket/prefix (received {uri!r}).")
        self._bucket_name = match["bucket"]
        self._prefix = f"{match['prefix']}/" if match["prefix"] else ""
        self._client = client
        self._made: Any = None

    def uri(self, name: str = "") -> str:
        """`gs://` address of an object or folder."""
        return f"gs://{self._bucket_name}/{self._prefix}{name}".rstrip("/")

    def read(self, name: str) -> Stored | None:
        """Reads an object; None where there is none.

        Raises:
            RegistryError: it cannot be read.
        """
        from google.api_core.exceptions import NotFound, PreconditionFailed

        with self._asking(f"read {self.uri(name)}"):
            for _ in range(5):  # it may be replaced between the two requests
                blob = self._bucket().get_blob(self._prefix + name, timeout=TIMEOUT)
                if blob is None:
                    return None
                generation = int(blob.generation)
                with contextlib.suppress(NotFound, PreconditionFailed):
                    content = blob.download_as_bytes(
                        if_generation_match=generation, checksum="crc32c", timeout=TIMEOUT
                    )
                    return Stored(content, generation)
        raise ObjectChanged(f"{self.uri(name)} changes all the while. Try again.")

    def write(self, name: str, content: bytes, generation: int | None = None) -> int:
        """Replaces an object in one step; returns its new generation.

        Args:
            name: of the object.
            content: all of it.
            generation: the one it must still have; 0: it must be absent; None: whatever it is.

        Raises:
            ObjectChanged: it has another generation.
            RegistryError: it cannot be written.
        """
        from google.api_core.exceptions import PreconditionFailed

        with self._asking(f"write {self.uri(name)}"):
            blob = self._bucket().blob(self._prefix + name)
            try:
                blob.upload_from_string(
                    content,
                    content_type="application/octet-stream",
                    if_generation_match=generation,
                    checksum="crc32c",
                    timeout=TIMEOUT,
                )
            except PreconditionFailed as error:
                # The client repeats a request whose answer was lost: then it was ours that won.
                found = self.read(name)
                if found is not None and found.content == content:
                    return found.generation
                raise ObjectChanged(
                    f"{self.uri(name)} was replaced meanwhile by another change. Try again."
                ) from error
            return int(blob.generation)

    def upload(self, name: str, path: Path) -> None:
        """Uploads a file; what was there is replaced.

        Raises:
            RegistryError: it cannot be written, or arrived damaged.
        """
        from google.cloud.storage.retry import DEFAULT_RETRY

        with self._asking(f"write {self.uri(name)}"):
            self._bucket().blob(self._prefix + name).upload_from_filename(
                path,
                content_type="application/octet-stream",
                checksum="crc32c",
                retry=DEFAULT_RETRY,  # the same content again is no harm
                timeout=TIMEOUT,
            )

    def sha256(self, name: str, copy_to: Path | None = None) -> str:
        """Reads a whole object; returns its hex SHA-256, and keeps a copy if asked.

        Raises:
            RegistryError: it is absent or cannot be read.
        """
        digest = hashlib.sha256()
        with self._asking(f"read {self.uri(name)}"):
            blob = self._bucket().blob(self._prefix + name, chunk_size=8 * BLOCK)
            with contextlib.ExitStack() as opened:
                reader = opened.enter_context(blob.open("rb", timeout=TIMEOUT))
                writer = opened.enter_context(copy_to.open("wb")) if copy_to else None
                while block := reader.read(8 * BLOCK):
                    digest.update(block)
                    if writer is not None:
                        writer.write(block)
        return digest.hexdigest()

    def list(self, folder: str) -> dict[str, int]:
        """Objects below a folder: name → bytes, by name.

        Raises:
            RegistryError: they cannot be listed.
        """
        start = f"{self._prefix}{folder}/" if folder else self._prefix
        with self._asking(f"list {self.uri(folder)}"):
            client = self._storage()
            blobs = client.list_blobs(self._bucket_name, prefix=start, timeout=TIMEOUT)
            found = {blob.name.removeprefix(self._prefix): int(blob.size or 0) for blob in blobs}
        return dict(sorted(found.items()))

    def delete(self, name: str, generation: int | None = None) -> None:
        """Removes an object; an absent one is no error.

        Raises:
            ObjectChanged: it has another generation than the one given.
            RegistryError: it cannot be removed.
        """
        from google.api_core.exceptions import NotFound, PreconditionFailed
        from google.cloud.storage.retry import DEFAULT_RETRY

        with self._asking(f"remove {self.uri(name)}"), contextlib.suppress(NotFound):
            try:
                self._bucket().blob(self._prefix + name).delete(
                    if_generation_match=generation, retry=DEFAULT_RETRY, timeout=TIMEOUT
                )
            except PreconditionFailed as error:
                raise ObjectChanged(f"{self.uri(name)} is not ours any more.") from error

    def _storage(self) -> Any:
        if self._client is None:
            from google.cloud.storage import Client

            self._client = Client()
        return self._client

    def _bucket(self) -> Any:
        if self._made is None:
            self._made = self._storage().bucket(self._bucket_name)
        return self._made

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turns the client's errors into ours."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        try:
            yield
        except (GoogleAPIError, GoogleAuthError, RequestException) as error:
            raise RegistryError(
                f"Cloud Storage did not {what}: {error}. Look after the bucket, the account's "
                "rights (docs/vertex.md) and the network, then repeat the command."
            ) from error


class ObjectDocument:
    """An object as a document (`registry.documents`): written only over what was read last."""

    def __init__(self, objects: Objects, name: str):
        """Names an object, which need not exist."""
        self._objects = objects
        self._path = name
        self._seen: Stored | None = None
        self._held = False
        self.where = objects.uri(name)
        self.name = name.rpartition("/")[2]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Reads it once for the whole block; what others write meanwhile fails our writes."""
        self.read()
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def read(self) -> bytes | None:
        """All of it, None where there is none."""
        if not self._held:
            self._seen = self._objects.read(self._path)
        return None if self._seen is None else self._seen.content

    def write(self, content: bytes) -> None:
        """Replaces it by compare-and-swap.

        Raises:
            ObjectChanged: somebody else replaced it since it was read.
        """
        generation = 0 if self._seen is None else self._seen.generation
        self._seen = Stored(content, self._objects.write(self._path, content, generation))

    def append(self, line: bytes) -> None:
        """Adds one line: objects cannot be appended to, so all of it is written anew."""
        self.write((b"" if self._seen is None else self._seen.content) + line + b"\n")

    def cut(self, size: int) -> None:
        """Cuts it off, likewise."""
        self.write((b"" if self._seen is None else self._seen.content)[:size])

    def fence(self) -> None:
        """Gives it a new generation: who read the old one cannot replace it any more."""
        content = self.read()
        if content is not None:
            self.write(content)
