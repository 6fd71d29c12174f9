"""Opens the registry at a path or URI: one place that knows which backends there are."""

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from registry.interface import RegistryError
from registry.local import LocalRegistry

if TYPE_CHECKING:
    from registry.interface import Registry


def models(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the models that have a history under the folder `root`, in order."""
    return tuple(sorted(record.parent.name for record in Path(root).glob("*/history.jsonl")))


def find(root: str | os.PathLike[str], name: str | None = None) -> LocalRegistry:
    """The local registry of the named model, or of the only one there is.

    Raises:
        RegistryError: there is no such model, or none is named and there are several.
    """
    known = models(root)
    if name is None and len(known) == 1:
        name = known[0]
    if name is None or name not in known:
        names = ", ".join(known) or "none yet: `cortexflow run quickstart` trains one"
        problem = "No model is named" if name is None else f"There is no model {name!r}"
        near = difflib.get_close_matches(name or "", known, n=1)
        hint = f" Did you mean {near[0]}?" if near else " Choose one with --name."
        raise RegistryError(f"{problem} in {root} (models: {names}).{hint}")
    return LocalRegistry(root, name)


def open_registry(
    where: str | os.PathLike[str], name: str | None = None, *, create: bool = False
) -> "Registry":
    """The registry of one model, wherever it is kept.

    Args:
        where: a folder, `gs://BUCKET/PATH`, or `vertex://PROJECT/LOCATION/MODEL`.
        name: of the model; None takes the only one in a folder, and on Vertex AI the URI's.
        create: the model need not exist yet, but must then be named.

    Raises:
        RegistryError: there is no such model, or the URI is none that is known.
    """
    text = os.fspath(where)
    if "://" not in text:
        return LocalRegistry(text, name) if create and name else find(text, name)
    uri = urlsplit(text)
    if uri.scheme == "gs":
        if not uri.netloc or not name:
            missing = "bucket" if not uri.netloc else "model's name; give --name"
            raise RegistryError(f"{text} lacks a {missing}. Write gs://BUCKET/PATH.")
        from registry.bucket import BucketRegistry

        return BucketRegistry(text, name)
    if uri.scheme == "vertex":
        parts = [uri.netloc, *uri.path.strip("/").split("/")]
        if len(parts) != 3 or not all(parts):
            raise RegistryError(
                f"{text} names no model on Vertex AI. Write vertex://PROJECT/LOCATION/MODEL."
            )
        if name not in (None, parts[2]):
            raise RegistryError(f"{text} is the model {parts[2]}, not {name}. Leave out --name.")
        from registry.vertex import VertexRegistry

        return VertexRegistry(*parts)
    raise RegistryError(
        f"{uri.scheme}:// is no place for a registry (received {text}). Give a folder, "
        "gs://BUCKET/PATH or vertex://PROJECT/LOCATION/MODEL."
    )
