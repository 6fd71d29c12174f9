"""Rights are least: what the code calls, and what is granted, are the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubeflow.kustomized import MANIFESTS, OVERLAYS, ROOT, built, named, pods

Right = tuple[str, str, str]  # API group, resource, verb

KFP = "pipelines.kubeflow.org"
# Which right Kubeflow Pipelines asks Kubernetes about, by method of its API v2beta1 (its API
# server's calls of IsAuthorized: resources of the group above, and verbs of its own).
ASKED: dict[str, Right] = {
    "experiment_service_list_experiments": (KFP, "experiments", "list"),
    "experiment_service_create_experiment": (KFP, "experiments", "create"),
    "run_service_create_run": (KFP, "runs", "create"),
    "run_service_get_run": (KFP, "runs", "get"),
    "run_service_list_runs": (KFP, "runs", "list"),
    "run_service_terminate_run": (KFP, "runs", "terminate"),
}
# What Kubeflow's own containers do in each node of a run, beside our code: the driver and launcher
# read their settings and the object store's credentials, Argo's executor reports what it saw.
OF_KUBEFLOW: set[Right] = {
    ("", "configmaps", "get"),
    ("", "secrets", "get"),
    ("argoproj.io", "workflowtaskresults", "create"),
    ("argoproj.io", "workflowtaskresults", "patch"),
}
# Of KubeflowBackend, where no version is kept and none is named (--keep): not reached.
NOT_REACHED = {"_version", "_versions", "_pipeline", "_package"}


def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def functions(tree: ast.AST) -> dict[str, ast.FunctionDef]:
    return {
        each.name: each
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def called(node: ast.AST, *owners: str) -> Iterator[str]:
    """Names of methods that are called on something named so (`backend`, `self._backend`)."""
    for each in ast.walk(node):
        method = each.func if isinstance(each, ast.Call) else None
        if isinstance(method, ast.Attribute) and ast.unparse(method.value) in owners:
            yield method.attr


def of_kubernetes(path: str) -> set[Right]:
    """Rights that calls of the kubernetes client need."""
    found = set()
    for name in called(parsed(path), "objects"):
        verb = re.fullmatch(r"(create|get|delete|list|patch)_namespaced_custom_object", name)
        assert verb, f"{name}: say which right it needs"
        found.add(("kubeflow.org", "tfjobs", verb[1]))
    for name in called(parsed(path), "core"):
        verb = re.fullmatch(r"(list|read|delete)_namespaced_pod", name)
        assert verb, f"{name}: say which right it needs"
        found.add(("", "pods", {"read": "get"}.get(verb[1], verb[1])))
    return found


def of_backend(*methods: str) -> set[Right]:
    """Rights that methods of KubeflowBackend need, with all that they call of their own."""
    own = functions(parsed("pipeline/backends/kubeflow.py"))
    seen: set[str] = set()
    waiting = [*methods]
    found = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in NOT_REACHED or name not in own:
            continue
        seen.add(name)
        waiting += called(own[name], "self")
        for text in ast.walk(own[name]):
            value = text.value if isinstance(text, ast.Constant) else None
            if isinstance(value, str) and re.fullmatch(r"[a-z_]+_service_\w+", value):
                found.add(ASKED[value])
    return found


def used() -> dict[str, set[Right]]:
    """Account → rights that its command needs."""
    command = functions(parsed("cli/submit.py"))
    submitting = set(called(command["submit"], "backend")) - {"upload"}  # --keep alone
    waiting = set(called(functions(parsed("pipeline/backends/following.py"))["follow"], "backend"))
    triggering = set(called(parsed("pipeline/trigger_service.py"), "self._backend"))
    assert (submitting, waiting, triggering) == ({"submit"}, {"get"}, {"runs", "submit"})
    return {
        "cortexflow-pipeline": of_kubernetes("components/training_jobs.py") | OF_KUBEFLOW,
        "cortexflow-submit": of_backend(*submitting, *waiting),
        "cortexflow-trigger": of_backend(*triggering),
        "cortexflow-server": set(),
        "cortexflow-monitor": set(),
    }


def granted(documents: list[dict]) -> dict[str, set[Right]]:
    """Account → rights that roles give it."""
    roles = named(documents, "Role")
    found: dict[str, set[Right]] = {name: set() for name in named(documents, "ServiceAccount")}
    for binding in named(documents, "RoleBinding").values():
        assert binding["roleRef"]["kind"] == "Role"
        for subject in binding["subjects"]:
            assert subject["kind"] == "ServiceAccount"
            for rule in roles[binding["roleRef"]["name"]]["rules"]:
                found[subject["name"]] |= {
                    (group, resource, verb)
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                }
    return found


@pytest.mark.parametrize("name", ["base", *(f"overlays/{each}" for each in OVERLAYS)])
def test_what_is_granted_is_what_is_used(name):
    documents = built(MANIFESTS / name)
    needed, given = used(), granted(documents)
    assert given.keys() == needed.keys()
    for account, rights in given.items():
        assert rights - needed[account] == set(), f"{account} may more than it needs"
        assert needed[account] - rights == set(), f"{account} may not what it needs"


def test_nothing_is_granted_to_all_or_everywhere():
    documents = built(MANIFESTS / "base")
    assert not {"ClusterRole", "ClusterRoleBinding"} & {it["kind"] for it in documents}
    for account, rights in granted(documents).items():
        assert not [right for right in rights if "*" in right], account


def test_secrets_are_named():
    for role in named(built(MANIFESTS / "base"), "Role").values():
        for rule in role["rules"]:
            if {"secrets", "configmaps"} & {*rule["resources"]}:
                assert rule["resourceNames"], role["metadata"]["name"]


def test_each_pod_runs_as_the_account_of_its_work():
    wanted = {
        "Deployment/cortexflow-trigger": "cortexflow-trigger",
        "Deployment/cortexflow-server": "cortexflow-server",
        "CronJob/recurring-run": "cortexflow-submit",
        "CronJob/monitor-drift": "cortexflow-monitor",
        "CronJob/monitor-history": "cortexflow-monitor",
    }
    found = built(MANIFESTS / "overlays/prod")
    assert {who: spec["serviceAccountName"] for who, _, spec in pods(found)} == wanted


def test_tokens_are_mounted_for_nodes_of_a_run_alone():
    """Kubeflow's API is asked with a token of its own audience, which Kubernetes does not take."""
    for name, account in named(built(MANIFESTS / "base"), "ServiceAccount").items():
        assert account["automountServiceAccountToken"] is (name == "cortexflow-pipeline")
    for who, _, spec in pods(built(MANIFESTS / "base")):
        audiences = [
            source["serviceAccountToken"]["audience"]
            for volume in spec["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
        ]
        asks = who in ("Deployment/cortexflow-trigger", "CronJob/recurring-run")
        assert audiences == ["pipelines.kubeflow.org"] * asks, who


def test_a_call_that_nobody_was_granted_is_noticed(tmp_path: Path, monkeypatch):
    text = (ROOT / "components/training_jobs.py").read_text()
    changed = text.replace("core.list_namespaced_pod(", "core.delete_namespaced_pod(")
    assert changed != text
    (tmp_path / "training_jobs.py").write_text(changed)
    found = of_kubernetes(str(tmp_path / "training_jobs.py"))
    assert ("", "pods", "delete") in found - granted(built(MANIFESTS / "base"))[
        "cortexflow-pipeline"
    ]
