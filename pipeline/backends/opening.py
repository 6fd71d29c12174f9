"""Opens the place that a URI names: one place that knows which backends there are."""

import difflib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.backends.interface import BackendError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.backends.interface import Backend, Watched
    from pipeline.cluster import Target

LOCAL = "local"
LATEST = "latest"
FORMS = "local, kubeflow://HOST[:PORT][/NAMESPACE], vertex://PROJECT/LOCATION"
_SCHEMES: dict[str, "Target"] = {
    "kubeflow": "kubeflow",
    "kubeflow+http": "kubeflow",
    "vertex": "vertex",
}


def target_of(uri: str) -> "Target | None":
    """What a pipeline must be compiled for to run there; None: this machine.

    Raises:
        BackendError: the URI is none that is known.
    """
    if uri == LOCAL:
        return None
    scheme, found, _ = uri.partition("://")
    if not found or scheme not in _SCHEMES:
        near = difflib.get_close_matches(scheme, [LOCAL, *_SCHEMES], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BackendError(f"{uri!r} is no place where pipelines run.{hint} Give one of: {FORMS}.")
    return _SCHEMES[scheme]


def open_backend(uri: str, workspace: "Path | None" = None) -> "Watched":
    """The backend that a URI names. Nothing is asked of it yet.

    Args:
        uri: `local`, `kubeflow://HOST[:PORT][/NAMESPACE]` (https; `kubeflow+http://` without
            encryption), or `vertex://PROJECT/LOCATION`.
        workspace: of `local`; None: `$CORTEXFLOW_WORKSPACE`, else `./workspace`.

    Raises:
        BackendError: the URI is none that is known.
    """
    if target_of(uri) is None:
        from pipeline.backends.local import LocalBackend
        from pipeline.workspace import Workspace

        return LocalBackend(Workspace.at(workspace))
    return open_cluster(uri)


def open_cluster(uri: str) -> "Backend":
    """The backend that a URI names, which must be one that takes compiled pipelines.

    Raises:
        BackendError: the URI is none that is known, or `local`.
    """
    target = target_of(uri)
    if target is None:
        raise BackendError(
            "This machine takes no compiled pipelines and keeps no schedules (received local). "
            f"Give a cluster, one of: {FORMS}. On this machine: cortexflow run PRESET, started by "
            "cron(8) where it shall recur."
        )
    parts = urlsplit(uri)
    folders = [folder for folder in parts.path.split("/") if folder]
    if parts.username or parts.password:
        raise BackendError(
            f"{parts.scheme}:// takes no user or password: other programs on this machine could "
            "read them. Credentials come from the environment (docs/running-on-clusters.md)."
        )
    if target == "vertex":
        if not parts.netloc or len(folders) != 1:
            raise BackendError(
                f"{uri} names no location of Vertex AI. Write vertex://PROJECT/LOCATION, for "
                "example vertex://my-project/europe-west4."
            )
        from pipeline.backends.vertex import VertexBackend

        return VertexBackend(parts.netloc, folders[0])
    if not parts.netloc:
        raise BackendError(f"{uri} names no host. Write kubeflow://HOST[:PORT][/NAMESPACE].")
    from pipeline.backends.kubeflow import KubeflowBackend

    scheme = "http" if parts.scheme.endswith("+http") else "https"
    prefix = "".join(f"/{folder}" for folder in folders[:-1])
    return KubeflowBackend(
        uri, f"{scheme}://{parts.netloc}{prefix}", namespace=folders[-1] if folders else ""
    )


def named_run(backend: "Watched", run_id: str) -> str:
    """The id of a run; `latest` is the newest there.

    Raises:
        BackendError: there is none yet.
    """
    if run_id != LATEST:
        return run_id
    newest = backend.runs(limit=1)
    if not newest:
        raise BackendError(f"There are no runs at {backend.uri} yet.")
    return newest[0].id
