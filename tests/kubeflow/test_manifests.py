"""Every manifest, as kustomize builds it: by schema, and by what it refers to."""

import copy
import functools
import json

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.kubeflow.kustomized import (
    CUSTOM,
    MANIFESTS,
    OVERLAYS,
    ROOT,
    SERVERS,
    everything,
    named,
    pods,
)

VERSIONS = ("1.32", "1.37")
NAMES = ("base", *OVERLAYS, *(f"base with {server}" for server in SERVERS))


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("kustomizations"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_satisfies_kubernetes(builds, name, version):
    for it in builds[name]:
        if it["kind"] not in CUSTOM:
            validated(json.dumps(it), version)
    for who, metadata, spec in pods(builds[name]):
        named_metadata = {"name": who.rpartition("/")[2], **metadata}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": named_metadata, "spec": spec}
        validated(json.dumps(pod), version)


@functools.cache  # builds share most of what they hold
def validated(text: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_custom_resource_satisfies_its_definition(builds, name):
    for it in builds[name]:
        if it["kind"] not in CUSTOM:
            assert not it["apiVersion"].startswith(("serving.", "monitoring.", "kubeflow."))
            continue
        schema = ROOT / "tests/kubeflow/schemas" / f"{CUSTOM[it['kind']]}.yaml"
        jsonschema.validate(it, yaml.safe_load(schema.read_text()))


def test_a_field_that_is_misspelt_is_noticed(builds):
    [cron, *_] = named(builds["base"], "CronJob").values()
    broken = copy.deepcopy(cron)
    broken["spec"]["concurrencyPolicies"] = broken["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_all_is_in_the_namespace_that_restricts_pods(builds, name):
    [namespace] = named(builds[name], "Namespace").values()
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert labels["pod-security.kubernetes.io/warn"] == "restricted"
    for it in builds[name]:
        if it["kind"] != "Namespace":
            assert it["metadata"]["namespace"] == namespace["metadata"]["name"]


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_satisfies_the_restricted_standard(builds, name):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    allowed = {"configMap", "csi", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for who, _, spec in pods(builds[name]):
        assert spec["securityContext"]["runAsNonRoot"] is True, who
        assert spec["securityContext"]["runAsUser"] == 10001, who
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, who
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), who
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= allowed, who
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, who


@pytest.mark.parametrize("name", NAMES)
def test_every_container_says_what_it_needs_and_mounts_what_there_is(builds, name):
    claims = named(builds[name], "PersistentVolumeClaim")
    maps = named(builds[name], "ConfigMap")
    accounts = named(builds[name], "ServiceAccount")
    for who, _, spec in pods(builds[name]):
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert spec["serviceAccountName"] in accounts, who
        assert spec["automountServiceAccountToken"] is False, who
        used = set()
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), who
            assert "memory" in resources["limits"], who
            used |= {mount["name"] for mount in container["volumeMounts"]}
            for source in container.get("envFrom", ()):
                assert source["configMapRef"]["name"] in maps, who
        assert used == volumes, who
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, who
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps, who


@pytest.mark.parametrize("name", NAMES)
def test_what_serves_is_probed_and_reached(builds, name):
    serving = 0
    for who, _, spec in pods(builds[name]):
        for container in spec["containers"]:
            if "ports" not in container:
                continue
            serving += 1
            assert "readinessProbe" in container, who
            if who != "InferenceService/cortexflow":  # Knative adds its own
                assert "livenessProbe" in container, who
    assert serving >= 1
    for service in named(builds[name], "Service").values():
        backs = [
            {port["name"] for port in spec["containers"][0]["ports"]}
            for _, metadata, spec in pods(builds[name])
            if service["spec"]["selector"].items() <= metadata["labels"].items()
        ]
        assert backs == [{port["targetPort"] for port in service["spec"]["ports"]}]


def selects(selector: dict, labels: dict) -> bool:
    """Whether a selector of Kubernetes fits labels."""
    fits = selector.get("matchLabels", {}).items() <= labels.items()
    for each in selector.get("matchExpressions", ()):
        there = each["key"] in labels
        fits &= there if each["operator"] == "Exists" else labels.get(each["key"]) in each["values"]
    return fits


@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_reached_but_where_a_policy_allows_it(builds, name):
    policies = named(builds[name], "NetworkPolicy")
    deny = policies["deny-all"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for who, metadata, spec in pods(builds[name]):
        opened = {
            port["port"]
            for policy in policies.values()
            if selects(policy["spec"]["podSelector"], metadata["labels"])
            for rule in policy["spec"].get("ingress", ())
            for port in rule["ports"]
        }
        ports = {
            port["containerPort"]
            for container in spec["containers"]
            for port in container.get("ports", ())
        }
        # Knative puts its proxy in front of a KServe container's port.
        own = {8012, 8022} if who.startswith("InferenceService") else set()
        assert opened - own == ports - ({8500} if own else set()), who


def test_every_policy_is_for_somebody(builds):
    """A label that was renamed would leave a policy for nobody."""
    elsewhere = {"workflows.argoproj.io/workflow": "x", "app.kubernetes.io/name": "none"}
    training = {"app.kubernetes.io/name": "cortexflow-training"}
    for name in NAMES:
        labels = [metadata["labels"] for _, metadata, _ in pods(builds[name])]
        for policy in named(builds[name], "NetworkPolicy").values():
            selector = policy["spec"]["podSelector"]
            assert any(selects(selector, each) for each in [*labels, elsewhere, training]), policy


def test_the_policy_for_workers_knows_their_label():
    from pipeline.distributed import POD_LABELS

    text = (MANIFESTS / "base/network.yaml").read_text()
    [label] = POD_LABELS.items()
    assert f"{label[0]}: {label[1]}" in text


@pytest.mark.parametrize("name", OVERLAYS)
def test_images_of_an_overlay_are_pinned(builds, name):
    wanted = "@sha256:" if name.startswith("prod") else ":dev"
    for who, _, spec in pods(builds[name]):
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            image = container["image"]
            assert not image.endswith(":latest"), who
            assert ":" in image, who
            if "/cortexflow" in image:
                assert wanted in image, who
    settings = next(it for key, it in named(builds[name], "ConfigMap").items() if "settings" in key)
    trigger = named(builds[name], "Deployment")["cortexflow-trigger"]
    own = trigger["spec"]["template"]["spec"]["containers"][0]["image"]
    assert settings["data"]["IMAGE"] == own


def test_prod_is_larger_and_more_careful_than_dev(builds):
    scale = {
        name: next(iter(named(builds[name], "HorizontalPodAutoscaler").values()))["spec"]
        for name in OVERLAYS
    }
    assert scale["dev"]["minReplicas"] == 1
    assert scale["prod"]["minReplicas"] == scale["prod-bucket"]["minReplicas"] == 3
    for name in ("prod", "prod-bucket"):
        text = yaml.safe_dump_all(builds[name])
        assert "CORTEXFLOW_TRIGGER_NO_TOKEN" not in text
        assert "CORTEXFLOW_TRIGGER_AUDIENCE" in text
    assert "gs://BUCKET/registry" in yaml.safe_dump_all(builds["prod-bucket"])


@pytest.mark.parametrize(
    "name", [*OVERLAYS, "base with cortexflow", "base with tensorflow-serving"]
)
def test_autoscaler_and_budget_are_of_a_deployment_that_is_there(builds, name):
    deployments = named(builds[name], "Deployment")
    [scaler] = named(builds[name], "HorizontalPodAutoscaler").values()
    [budget] = named(builds[name], "PodDisruptionBudget").values()
    scaled = deployments[scaler["spec"]["scaleTargetRef"]["name"]]
    assert "replicas" not in scaled["spec"], "applied again, it would undo the autoscaler"
    labels = scaled["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    [container] = scaled["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"], "utilization is of what was requested"


def test_the_dashboard_reaches_grafana(builds):
    board = named(builds["prod"], "ConfigMap")["cortexflow-dashboard"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["dashboard.json"])["uid"] == "cortexflow-server"


@pytest.mark.parametrize(
    "name", [*OVERLAYS, "base with cortexflow", "base with tensorflow-serving"]
)
def test_prometheus_asks_a_port_that_a_service_has(builds, name):
    services = named(builds[name], "Service").values()
    for monitor in named(builds[name], "ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [it for it in services if wanted <= it["metadata"]["labels"].items()]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {each["port"] for each in monitor["spec"]["endpoints"]} <= ports
