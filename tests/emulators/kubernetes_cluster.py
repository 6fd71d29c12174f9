"""Starts the emulated Kubernetes, and points the client library of a test to it."""

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.emulators.processes import program

NAMESPACE = "mine"


class Cluster:
    """The emulated API server, and what happened there since a test began."""

    def __init__(self, port: int):
        self.address = f"http://127.0.0.1:{port}"
        self._before = 0

    def ask(self, path: str) -> dict:
        """An order for the emulator."""
        with urllib.request.urlopen(self.address + path, timeout=10) as answer:
            return json.load(answer)

    @property
    def told(self) -> list[str]:
        """What happened, in order."""
        return self.ask("/told")["told"][self._before :]

    def point_here(self, folder: Path, monkeypatch) -> None:
        """Makes this the cluster of kubectl's present context, and forgets what happened."""
        self.ask("/away?questions=0")
        self._before = len(self.ask("/told")["told"])
        context = {"cluster": "here", "user": "me", "namespace": NAMESPACE}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.address}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": context}],
        }
        file = folder / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig))
        # The client read the variable when it was imported, perhaps by a test before this one.
        place = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(place, str(file))


@contextlib.contextmanager
def kubernetes() -> Iterator[Cluster]:
    """A cluster with the training operator."""
    with program("tests.emulators.kubernetes_api") as port:
        yield Cluster(port)
