"""A registry in a local folder, in TF Serving's own layout.

    REGISTRY/models.config              the pointer: loaded versions, `live`, `canary`, its share
    REGISTRY/.lock                      who changes something now
    REGISTRY/NAME/3/saved_model.pb …    version 3, immutable
    REGISTRY/NAME/manifests/3.json      SHA-256 of every file, metrics, lineage, who, why
    REGISTRY/NAME/history.jsonl         every change, with its intent written first
    REGISTRY/NAME/history.head          the hash at the history's end

A push copies beside the final place, makes the copy durable, reads it back, and only then renames
it; the pointer moves last and by one rename. TF Serving itself has served half-copied models
(tensorflow/serving#1086).
"""

import os
from pathlib import Path

from registry.documents import FileDocument
from registry.folder_store import FolderStore
from registry.history import History
from registry.interface import RegistryError
from registry.keys import Keys
from registry.lease import FolderLock
from registry.parts import Parts
from registry.pointer import CONFIG, ConfigPointer
from registry.versioned import VersionedRegistry, check_name


class LocalRegistry(VersionedRegistry):
    """Versions of the model `name` under `root`. Creates nothing before the first push."""

    def __init__(self, root: str | os.PathLike[str], name: str, keys: Keys | None = None):
        """Points at a registry, which need not exist yet.

        Args:
            root: folder of the registry.
            name: of the model.
            keys: key files; None takes those that the environment names.

        Raises:
            RegistryError: the name cannot be a folder's and a URL's, or `root` is not local.
        """
        check_name(name)
        if "://" in os.fspath(root):
            raise RegistryError(f"A local registry needs a local folder (received {root}).")
        keys = Keys.from_environment() if keys is None else keys
        self.root = Path(root).resolve()
        self._store = FolderStore(self.root, name, keys)
        folder = self._store.folder
        lines, head = (FileDocument(folder / f"history.{kind}") for kind in ("jsonl", "head"))
        super().__init__(
            name,
            Parts(
                place=str(self.root),
                store=self._store,
                pointer=ConfigPointer(FileDocument(self.root / CONFIG), name, str(folder)),
                history=History(lines, head, keys.audit),
                lock=FolderLock(self.root),
            ),
        )

    def path(self, version: int) -> Path:
        """Folder of a version itself, not proved: a SavedModel. Read it, never write to it."""
        return self._store.path(version)
