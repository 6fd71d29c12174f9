"""From the config to what a cluster runs: KFP's PipelineSpec 2.1, without network or credentials.

TFX compiles the DAG; what it leaves out is added here from the config's table: command with a time
limit, resources, retries, caching, names, and for Kubernetes node pools and volumes. Only what both
Kubeflow Pipelines and Vertex AI run is used (tests/pipeline/compiling).
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cluster import (
    ACCELERATORS,
    NodeResources,
    Target,
    cpu_cores,
    memory_bytes,
    node_labels,
)
from pipeline.config import PipelineConfig
from pipeline.facts import Facts
from schema.errors import CortexflowError
from trainer.knobs import KNOBS, knobs_of

if TYPE_CHECKING:
    from pipeline.training import Inputs

ENTRYPOINT = ("python", "-m", "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor")
KILL_AFTER = 60  # seconds between SIGTERM and SIGKILL of a node that is out of time


class CompileError(CortexflowError):
    """The config cannot be compiled for this target."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
        spec: KFP's PipelineSpec as a document.
        platform: what only Kubernetes understands, or None.
    """

    spec: dict[str, Any]
    platform: dict[str, Any] | None

    @property
    def yaml(self) -> str:
        """One YAML text for `cortexflow submit`, the KFP client, and the upload in the UI."""
        import yaml

        class Dumper(yaml.SafeDumper):
            """Texts of several lines as blocks, so that a difference is one of lines."""

        Dumper.add_representer(
            str,
            lambda dumper, text: dumper.represent_scalar(
                "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
            ),
        )
        documents = [self.spec, *([] if self.platform is None else [self.platform])]
        return _heading(self.spec) + yaml.dump_all(
            documents, Dumper=Dumper, sort_keys=True, width=100, allow_unicode=True
        )

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Runtime parameters: name → `parameterType`, and `defaultValue` where it has one."""
        return self.spec["root"].get("inputDefinitions", {}).get("parameters", {})


def compile_pipeline(
    config: PipelineConfig, target: Target, facts: Facts | None = None
) -> Compiled:
    """Compiles the training pipeline. Touches no network and makes no folder.

    Args:
        config: the run's settings; `config.cluster` says with what each node runs.
        target: where it will run.
        facts: what the dataset will be; default: the public sets' and the phantom's four classes.

    Returns:
        The spec, and what goes beside it.

    Raises:
        CompileError: the config asks for what the target cannot give.
    """
    from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
        KubeflowV2DagRunner,
        KubeflowV2DagRunnerConfig,
    )

    from pipeline.training import create_training_pipeline

    _check(config, target)
    inputs = _inputs(config, facts or Facts(), target)
    dag = create_training_pipeline(config, inputs, pipeline_root="")
    runner = KubeflowV2DagRunner(
        KubeflowV2DagRunnerConfig(
            default_image=config.cluster.image,
            default_commands=list(ENTRYPOINT),
            use_pipeline_spec_2_1=True,
        )
    )
    spec = runner.run(dag, write_out=False)["pipelineSpec"]
    spec = _plain(spec)
    defaults = _defaults(config)
    for name, described in spec["root"]["inputDefinitions"]["parameters"].items():
        if name in defaults:
            described["defaultValue"] = defaults[name]
    if config.cluster.pipeline_root:
        spec["defaultPipelineRoot"] = config.cluster.pipeline_root
    _finish(spec, config, inputs.facts, target)
    return Compiled(spec, _platform(spec, config) if target == "kubeflow" else None)


def _check(config: PipelineConfig, target: Target) -> None:
    from pipeline import distributed

    distributed.check(config)
    if target == "vertex" and config.cluster.volume:
        raise CompileError(
            f"cluster.volume={config.cluster.volume!r} mounts a claim of Kubernetes, which Vertex "
            "AI has not. Leave it out: buckets are mounted at /gcs/BUCKET there."
        )
    for node in config.cluster.nodes:
        row = config.cluster.resources(node)
        if row.accelerator == "tpu-v5e" and target == "kubeflow" and not row.topology:
            raise CompileError(
                f"cluster.nodes.{node} wants a TPU without saying which slice. Set "
                f"cluster.nodes.{node}.topology, for example 2x2."
            )


def _inputs(config: PipelineConfig, facts: Facts, target: Target) -> "Inputs":
    """Runtime parameters wherever a run may differ from the last one."""
    from tfx.orchestration.data_types import RuntimeParameter

    from pipeline.distributed import STAGE_OF, handover
    from pipeline.inputs import schema_text
    from pipeline.training import Inputs

    def text(name: str) -> RuntimeParameter:
        return RuntimeParameter(name, ptype=str)

    knobs = {
        f"{stage}_{knob}": RuntimeParameter(f"{stage}_{knob}", ptype=KNOBS[knob][1])
        for stage, settings in config.stages.items()
        for knob in knobs_of(settings.model_dump())
    }
    return Inputs(
        dataset=text("dataset"),
        facts=facts,
        registry=text("registry"),
        model_name=text("model_name"),
        touches=text("touches"),
        checkpoints=text("checkpoint_root"),
        schema_text=schema_text(config.schema_file),
        checkpoint=text("checkpoint") if config.checkpoint is not None else None,
        live_version=text("baseline_version"),
        knobs=knobs,
        handovers={
            node: told for node in STAGE_OF if (told := handover(config, node, target)) is not None
        },
    )


def _defaults(config: PipelineConfig) -> dict[str, Any]:
    """What a run gets that does not say otherwise; dataset and registry may have none."""
    found: dict[str, Any] = {
        "model_name": config.model_name,
        "baseline_version": "",
        "checkpoint_root": "",
        "touches": "",
    }
    if config.registry:
        found["registry"] = config.registry
    if config.data.source and "://" in config.data.source:
        found["dataset"] = config.data.source
    if config.checkpoint and "://" in config.checkpoint:
        found["checkpoint"] = config.checkpoint
    for stage, settings in config.stages.items():
        for knob, value in knobs_of(settings.model_dump()).items():
            found[f"{stage}_{knob}"] = value
    return found


def _plain(spec: Any) -> Any:
    """Numbers that are whole, as whole numbers: protobuf's JSON makes all of them floats."""
    if isinstance(spec, Mapping):
        return {key: _plain(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_plain(value) for value in spec]
    if isinstance(spec, float) and spec.is_integer():
        return int(spec)
    return spec


def _finish(spec: dict[str, Any], config: PipelineConfig, facts: Facts, target: Target) -> None:
    """Adds to each node what the table says of it."""
    from pipeline.descriptions import describe
    from pipeline.view import add_data_view, add_view

    executors = spec["deploymentSpec"]["executors"]
    for node, task in spec["root"]["dag"]["tasks"].items():
        row = config.cluster.resources(node)
        executor = executors[spec["components"][node]["executorLabel"]]
        finish_node(task, executor, row, config, target)
    add_data_view(spec, config, facts, target)
    add_view(spec, config, facts, target)
    describe(spec)


def finish_node(
    task: dict[str, Any],
    executor: dict[str, Any],
    row: NodeResources,
    config: PipelineConfig,
    target: Target,
) -> None:
    """Writes a row of the table into a task and its container.

    Args:
        task: of the DAG, changed in place.
        executor: of the deployment, changed in place; importers have no container.
        row: what `config.cluster.resources` gives.
        config: image and its GPU variant.
        target: where it will run.
    """
    task["cachingOptions"] = {"enableCache": True} if row.cache else {}
    container = executor.get("container")
    if container is None:
        return
    if row.retries:
        task["retryPolicy"] = {
            "maxRetryCount": row.retries,
            "backoffDuration": f"{row.backoff_seconds}s",
            "backoffFactor": 2,
            "backoffMaxDuration": "3600s",
        }
    accelerated = row.accelerator != "none"
    if accelerated and config.cluster.gpu_image:
        container["image"] = config.cluster.gpu_image
    limit = 60 * (row.timeout_minutes or 0)
    wait = ["timeout", "--signal=TERM", f"--kill-after={KILL_AFTER}", str(limit)]
    container["command"] = [*wait, *container["command"]]
    container.pop("lifecycle", None)
    container["resources"] = _resources(row, target)


def _resources(row: NodeResources, target: Target) -> dict[str, Any]:
    """KFP's ResourceSpec: numbers, which Vertex AI reads, and Kubernetes' own words beside them."""
    cores, memory = cpu_cores(row.cpu or "1"), memory_bytes(row.memory or "1Gi")
    found: dict[str, Any] = {
        "cpuLimit": cores,
        "cpuRequest": cores,
        "memoryLimit": memory / 1e9,
        "memoryRequest": memory / 1e9,
    }
    if target == "kubeflow":
        found |= {
            "resourceCpuLimit": row.cpu,
            "resourceCpuRequest": row.cpu,
            "resourceMemoryLimit": row.memory,
            "resourceMemoryRequest": row.memory,
        }
    if row.accelerator not in (None, "none"):
        resource, _, vertex = ACCELERATORS[row.accelerator]
        kind, count = resource if target == "kubeflow" else vertex, row.accelerators or 1
        found["accelerator"] = {"type": kind, "count": str(count)}
        if target == "kubeflow":
            found["accelerator"] |= {"resourceType": kind, "resourceCount": str(count)}
    return found


def _platform(spec: Mapping[str, Any], config: PipelineConfig) -> dict[str, Any] | None:
    """Node pools, tolerations and volumes, in the form of kfp-kubernetes."""
    executors: dict[str, Any] = {}
    for node in spec["root"]["dag"]["tasks"]:
        label = spec["components"][node]["executorLabel"]
        if "container" not in spec["deploymentSpec"]["executors"][label]:
            continue
        found = _kubernetes(config.cluster.resources(node), config)
        if found:
            executors[label] = found
    if not executors:
        return None
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def _kubernetes(row: NodeResources, config: PipelineConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    labels = node_labels(row)
    if row.accelerator not in (None, "none"):
        resource, _, _ = ACCELERATORS[row.accelerator]
        found["tolerations"] = [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]
    if labels:
        found["nodeSelector"] = {"labels": labels}
    if config.cluster.volume:
        claim, _, path = config.cluster.volume.partition(":")
        found["pvcMount"] = [{"constant": claim, "mountPath": path}]
    return found


def _heading(spec: Mapping[str, Any]) -> str:
    """What someone who opens the file should know first."""
    from pipeline.descriptions import heading

    lines = [f"# {spec['pipelineInfo']['name']}: a cortexflow training pipeline, compiled."]
    lines += ["# Research use only, not for diagnosis.", "# Parameters:"]
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, described in sorted(parameters.items()):
        kind = described["parameterType"].removeprefix("NUMBER_").lower()
        default = described.get("defaultValue")
        lines.append(f"#   {name} ({kind}): " + ("required" if default is None else repr(default)))
    return "\n".join(lines) + "\n" + heading(spec)
