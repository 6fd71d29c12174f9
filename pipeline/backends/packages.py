"""A compiled pipeline as text: its spec, its parameters, its nodes in order, what each node gets.

The form is Kubeflow's pipeline_spec.proto (schema 2.1), which both Kubeflow and Vertex AI take.
"""

import copy
import dataclasses
import difflib
import graphlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.backends.interface import BackendError

_TEXT_FORMS = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}


@dataclasses.dataclass(frozen=True)
class Package:
    """The documents of one compiled pipeline.

    Attributes:
        spec: the PipelineSpec.
        platform: the PlatformSpec, None where there is none.
    """

    spec: dict[str, Any]
    platform: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.get("pipelineInfo", {}).get("name", "")

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Runtime parameters by name: `parameterType`, and `defaultValue` where there is one."""
        return dict(self.spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {}))

    def for_kubeflow(self) -> dict[str, Any]:
        """Both documents as Kubeflow's API takes them in one field."""
        if self.platform is None:
            return self.spec
        return {"pipeline_spec": self.spec, "platform_spec": self.platform}

    def without_cache(self) -> "Package":
        """The same pipeline, none of whose nodes may be answered by an execution of before."""
        spec = copy.deepcopy(self.spec)
        for task in spec["root"]["dag"]["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
        return Package(spec, self.platform)


def read(text: str) -> Package:
    """Reads a compiled pipeline.

    Args:
        text: YAML (or JSON), one or two documents.

    Raises:
        BackendError: it is no compiled pipeline.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = [found for found in yaml.load_all(text, loader) if found]
    except yaml.YAMLError as error:
        raise BackendError(f"The compiled pipeline is no YAML: {error}.") from None
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise BackendError("The file holds no compiled pipeline. Write one: cortexflow compile.")
    return of_document(documents[0], documents[1] if len(documents) > 1 else None)


def of_document(document: Mapping[str, Any], platform: dict[str, Any] | None = None) -> Package:
    """The package in a document, which may hold the spec itself or both (as Kubeflow keeps them).

    Raises:
        BackendError: there is no pipeline in it.
    """
    spec = document.get("pipeline_spec", document)
    if "root" not in spec or "dag" not in spec["root"] or "pipelineInfo" not in spec:
        raise BackendError(
            "The document has no pipelineInfo and root.dag (received the keys "
            f"{', '.join(sorted(map(str, spec))) or 'none'}). Write a pipeline with: "
            "cortexflow compile."
        )
    return Package(dict(spec), document.get("platform_spec", platform))


def order(spec: Mapping[str, Any]) -> list[str]:
    """Names of the nodes, each after those it waits for."""
    tasks = spec["root"]["dag"]["tasks"]
    graph = {name: _before(tasks[name]) for name in sorted(tasks)}
    return list(graphlib.TopologicalSorter(graph).static_order())


def _before(task: Mapping[str, Any]) -> list[str]:
    """The nodes that a node waits for, in order: by name, and for what they make."""
    told = task.get("inputs", {}).get("artifacts", {}).values()
    made = {it["taskOutputArtifact"]["producerTask"] for it in told if "taskOutputArtifact" in it}
    return sorted(made | set(task.get("dependentTasks", [])))


def resources(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each node gets, by node, in order.

    Returns:
        `image`, and `cpu`, `memory`, `accelerator` as the spec says them, "" where it says nothing.
    """
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    told = {}
    for name in order(spec):
        component = spec["root"]["dag"]["tasks"][name]["componentRef"]["name"]
        executor = executors.get(spec["components"][component].get("executorLabel"), {})
        container = executor.get("container", {})
        given = container.get("resources", {})
        device = given.get("accelerator", {})
        kind = device.get("resourceType") or device.get("type", "")
        count = device.get("resourceCount") or device.get("count", "")
        told[name] = {
            "image": container.get("image", ""),
            "cpu": _quantity(given.get("resourceCpuLimit") or given.get("cpuLimit")),
            "memory": _quantity(given.get("resourceMemoryLimit") or given.get("memoryLimit"), "GB"),
            "accelerator": f"{count} × {kind}" if kind else "",
        }
    return told


def _quantity(told: Any, unit: str = "") -> str:
    """Kubernetes' words as they are; a number with its unit; "" for nothing."""
    if told in (None, ""):
        return ""
    return told if isinstance(told, str) else f"{told:.3g} {unit}".rstrip()


def given_parameters(package: Package, assignments: Iterable[str]) -> dict[str, Any]:
    """Values of `name=value` assignments, in the types that the pipeline declares.

    Raises:
        BackendError: no `=`, a parameter that the pipeline does not have, or a value of another
            type.
    """
    known, given = package.parameters, {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise BackendError(
                f"A parameter needs the form name=value (received {assignment!r}), for example "
                "--param pretrain_epochs=20."
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BackendError(
                f"The pipeline {package.name} has no parameter {name!r}.{hint} It has "
                f"{', '.join(sorted(known)) or 'none'}."
            )
        given[name] = _value(name, text, known[name].get("parameterType", "STRING"))
    return given


def missing(package: Package, given: Mapping[str, Any]) -> list[str]:
    """Parameters that have neither a value nor a default."""
    return [
        name
        for name, declared in package.parameters.items()
        if name not in given and "defaultValue" not in declared and not declared.get("isOptional")
    ]


def _value(name: str, text: str, kind: str) -> Any:
    try:
        if kind in _TEXT_FORMS:
            return _TEXT_FORMS[kind](text)
        return json.loads(text)  # BOOLEAN, LIST, STRUCT
    except ValueError:
        raise BackendError(
            f"The parameter {name} is a {kind} (received {text!r}). Give a value of that type."
        ) from None
