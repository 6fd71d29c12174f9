"""A registry in a Cloud Storage bucket: TF Serving's layout, as a local one has it.

    gs://BUCKET/PATH/models.config             the pointer: loaded versions, `live`, `canary`
    gs://BUCKET/PATH/.lock                     who changes something now, and until when
    gs://BUCKET/PATH/NAME/3/saved_model.pb …   version 3, immutable
    gs://BUCKET/PATH/NAME/manifests/3.json     its manifest; without it there is no version 3
    gs://BUCKET/PATH/NAME/history.jsonl        every change, hash-chained, intent first

The rules are those of `registry.local`; the parts below them differ. TF Serving reads `gs://`
itself, and loads only the versions that `models.config` names, so that it never meets a folder that
is still being uploaded.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from registry.bucket_changes import BucketChanges
from registry.bucket_history import BucketHistory
from registry.bucket_lock import Clock
from registry.bucket_objects import Objects
from registry.bucket_store import BucketStore
from registry.interface import RegistryError, Traffic, Version
from registry.keys import Keys
from registry.local import LocalRegistry
from registry.pointer import Pointer

CONFIG = "models.config"


class BucketPointer:
    """The live pointer as an object: changed in a scratch copy, replaced by compare-and-swap."""

    def __init__(self, objects: Objects, name: str):
        """Points into the object `models.config`, which need not exist."""
        self._objects = objects
        self._name = name

    def read(self) -> Traffic:
        """Returns who answers; nobody where the object or the model's entry is absent."""
        with self._copy() as pointer:
            return pointer.read()

    def loaded(self) -> frozenset[int]:
        """Returns the versions that a server of this object loads."""
        with self._copy() as pointer:
            return pointer.loaded()

    def move(self, traffic: Traffic, ready: tuple[int, ...] = ()) -> None:
        """Says in one step who answers; other models and people's own labels are untouched.

        Raises:
            RegistryError: it is malformed, or somebody else replaced it meanwhile.
        """
        with self._copy(put_back=True) as pointer:
            pointer.move(traffic, ready)

    def fence(self) -> None:
        """Gives the object a new generation: who read the old one cannot replace it any more."""
        found = self._objects.read(CONFIG)
        if found is not None:
            self._objects.write(CONFIG, found.content, found.generation)

    def tidy(self, ready: tuple[int, ...] = ()) -> None:
        """Nothing follows a move here."""

    @contextlib.contextmanager
    def _copy(self, put_back: bool = False) -> Iterator[Pointer]:
        found = self._objects.read(CONFIG)
        with tempfile.TemporaryDirectory(prefix="cortexflow-pointer-") as scratch:
            path = Path(scratch) / CONFIG
            if found is not None:
                path.write_bytes(found.content)
            yield Pointer(path, self._name, cast(Any, self._objects.uri(self._name)))
            if put_back:
                generation = 0 if found is None else found.generation
                self._objects.write(CONFIG, path.read_bytes(), generation)


class RemoteRegistry(LocalRegistry):
    """The rules of a local registry over parts that are elsewhere."""

    _store: Any

    def _compose(self, store: BucketStore, pointer: Any, keys: Keys, clock: Clock | None) -> None:
        """Puts the parts together; what reads and changes them is inherited."""
        history = BucketHistory(store.objects, self.name, keys.audit)
        self.root = cast(Any, store.objects.uri())
        self._store = store
        self._history = cast(Any, history)
        self._pointer = pointer
        self._changes = BucketChanges(store, history, pointer, clock)

    def fetch(self, version: int, target: str | os.PathLike[str]) -> Version:
        """Downloads a version into a folder that does not exist yet, and proves the copy.

        Raises:
            RegistryError: there is no such version, or the folder exists.
            VerificationError: it is not what was pushed.
        """
        if Path(target).exists():
            raise RegistryError(f"{target} exists already. Name a folder that does not.")
        return self._store.fetch(version, Path(target))

    def uri(self, version: int) -> str:
        """`gs://` address of a version's folder: a SavedModel."""
        return self._store.uri(version)


class BucketRegistry(RemoteRegistry):
    """Versions of the model `name` in a bucket. Connects with the first question, not before."""

    def __init__(
        self,
        uri: str,
        name: str,
        keys: Keys | None = None,
        client: Any = None,
        clock: Clock | None = None,
    ):
        """Points at a registry, which need not exist yet.

        Args:
            uri: `gs://BUCKET` or `gs://BUCKET/PATH`.
            name: of the model.
            keys: key files; None takes those that the environment names.
            client: a `google.cloud.storage.Client`; None makes one from the environment.
            clock: what the lock's expiry goes by.

        Raises:
            RegistryError: the name cannot be a folder's and a URL's, or `uri` names no bucket.
        """
        super().__init__(os.curdir, name, keys)
        keys = Keys.from_environment() if keys is None else keys
        objects = Objects(uri, client)
        pointer = BucketPointer(objects, name)
        self._compose(BucketStore(objects, name, keys), pointer, keys, clock)
