"""Manifests as kubectl builds them, and what the tests ask of them."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "kubeflow" / "manifests"
OVERLAYS = ("dev", "prod", "prod-bucket")
SERVERS = ("cortexflow", "tensorflow-serving", "kserve", "kserve-canary")
CUSTOM = {
    "InferenceService": "inferenceservice",
    "ServiceMonitor": "servicemonitor",
    "PrometheusRule": "prometheusrule",
}


@functools.cache
def built(folder: Path) -> list[dict]:
    """All documents of a kustomization."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH; it builds kustomizations offline")
    answer = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


def everything(folder: Path) -> dict[str, list[dict]]:
    """Base, overlays, and the base with each server: name → documents.

    Args:
        folder: an empty one, for the kustomizations that are only tried.
    """
    found = {"base": built(MANIFESTS / "base")}
    found |= {name: built(MANIFESTS / "overlays" / name) for name in OVERLAYS}
    for server in SERVERS:
        place = folder / server
        place.mkdir()
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "cortexflow",
            "resources": [os.path.relpath(MANIFESTS / "base", place)],
            "components": [os.path.relpath(MANIFESTS / "servers" / server, place)],
        }
        (place / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        found[f"base with {server}"] = built(place)
    return found


def pods(documents: list[dict]) -> Iterator[tuple[str, dict, dict]]:
    """(who, metadata, pod spec) of everything that starts pods."""
    for it in documents:
        spec = it.get("spec", {})
        who = f"{it['kind']}/{it['metadata']['name']}"
        if it["kind"] == "Deployment":
            yield who, spec["template"].get("metadata", {}), spec["template"]["spec"]
        elif it["kind"] == "CronJob":
            template = spec["jobTemplate"]["spec"]["template"]
            yield who, template.get("metadata", {}), template["spec"]
        elif it["kind"] == "InferenceService":
            own = {"minReplicas", "maxReplicas", "canaryTrafficPercent"}
            pod = {key: value for key, value in spec["predictor"].items() if key not in own}
            yield who, {"labels": {"serving.kserve.io/inferenceservice": "cortexflow"}}, pod


def named(documents: list[dict], kind: str) -> dict[str, dict]:
    """Name → document of a kind."""
    return {it["metadata"]["name"]: it for it in documents if it["kind"] == kind}
