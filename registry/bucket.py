"""A registry in a Cloud Storage bucket: TF Serving's layout, as a local one has it.

    gs://BUCKET/PATH/models.config             the pointer: loaded versions, `live`, `canary`
    gs://BUCKET/PATH/.lock                     who changes something now, and until when
    gs://BUCKET/PATH/NAME/3/saved_model.pb …   version 3, immutable
    gs://BUCKET/PATH/NAME/manifests/3.json     its manifest; without it there is no version 3
    gs://BUCKET/PATH/NAME/history.jsonl        every change, hash-chained, intent first

TF Serving reads `gs://` itself, and loads only the versions that `models.config` names, so that it
never meets a folder that is still being uploaded.
"""

from typing import Any

from registry.bucket_lock import BucketLock
from registry.bucket_objects import ObjectDocument, Objects
from registry.bucket_store import BucketStore
from registry.history import History
from registry.keys import Keys
from registry.lease import Clock
from registry.parts import LivePointer, Parts
from registry.pointer import CONFIG, ConfigPointer
from registry.versioned import VersionedRegistry


def in_bucket(
    store: BucketStore, keys: Keys, clock: Clock | None, pointer: LivePointer | None = None
) -> Parts:
    """The parts of a registry that keeps its history and lock in a bucket.

    Args:
        store: versions, beside which the rest lies.
        keys: key files.
        clock: what the lock's expiry goes by.
        pointer: who answers; None: the object `models.config`.
    """
    objects, name = store.objects, store.name
    lines, head, config = (
        ObjectDocument(objects, path)
        for path in (f"{name}/history.jsonl", f"{name}/history.head", CONFIG)
    )
    guarded = (lines, head, config) if pointer is None else (lines, head)
    return Parts(
        place=objects.uri(),
        store=store,
        pointer=pointer or ConfigPointer(config, name, objects.uri(name)),
        history=History(lines, head, keys.audit),
        lock=BucketLock(objects, guarded, clock),
    )


class BucketRegistry(VersionedRegistry):
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
        keys = Keys.from_environment() if keys is None else keys
        objects = Objects(uri, client)
        self.root = objects.uri()
        super().__init__(name, in_bucket(BucketStore(objects, name, keys), keys, clock))
