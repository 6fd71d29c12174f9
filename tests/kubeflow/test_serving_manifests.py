"""The servers' manifests: what they start, with which arguments, and as whom."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "kubeflow" / "serving"
REGISTRY = "/srv/cortexflow/registry"
SERVERS = ("cortexflow", "tensorflow-serving", "kserve")


def documents(server: str) -> dict[str, dict]:
    """Kind → document of a folder, by way of its kustomization."""
    resources = yaml.safe_load((FOLDER / server / "kustomization.yaml").read_text())["resources"]
    texts = [(FOLDER / server / name).read_text() for name in resources]
    return {it["kind"]: it for text in texts for it in yaml.safe_load_all(text)}


def pod(server: str) -> dict:
    found = documents(server)
    if "Deployment" in found:
        return found["Deployment"]["spec"]["template"]["spec"]
    return found["InferenceService"]["spec"]["predictor"]


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_is_nobody_and_may_write_nowhere_but_its_volumes(server):
    spec = pod(server)
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"]["cpu"]


@pytest.mark.parametrize("server", SERVERS)
def test_volumes_that_are_mounted_exist_and_the_registry_is_one(server):
    spec = pod(server)
    [container] = spec["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
    assert mounts["registry"] == REGISTRY


@pytest.mark.parametrize("server", ["cortexflow", "kserve"])
def test_our_server_is_started_with_options_that_it_has(server):
    import typer

    from cli import serve

    [container] = pod(server)["containers"]
    program, command, *options = container["args"]
    assert (program, command) == ("cortexflow", "serve")
    known = {
        name
        for parameter in typer.main.get_command(serve.app).params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    assert {option.split("=")[0] for option in options} <= known
    assert f"--registry={REGISTRY}" in options
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_tensorflow_serving_reads_the_registrys_file_with_its_labels():
    arguments = pod("tensorflow-serving")["containers"][0]["args"]
    assert f"--model_config_file={REGISTRY}/models.config" in arguments
    assert "--allow_version_labels_for_unavailable_models=true" in arguments
    mount = pod("tensorflow-serving")["containers"][0]["volumeMounts"][0]
    assert mount["readOnly"] is True


@pytest.mark.parametrize("server", ["cortexflow", "tensorflow-serving"])
def test_a_service_leads_to_the_ports_that_are_open(server):
    found = documents(server)
    [container] = pod(server)["containers"]
    opened = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} == opened
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= labels.items()
