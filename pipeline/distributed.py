"""A trainer node's work as a distributed job: a TFJob on Kubeflow, a CustomJob on Vertex AI.

Both are made from the node's row of the table (`pipeline/cluster.py`) when the pipeline is
compiled. The node completes them with a name and a job document, starts them and waits
(`components/distributed_training.py`). To look at one:

    python -m pipeline.distributed quickstart --node Teacher --for kubeflow \\
        --set cluster.nodes.Teacher.workers=2 --set execution.strategy=multi_worker
"""

import sys
from typing import Annotated, Any

import typer

from pipeline.cluster import (
    ACCELERATORS,
    TARGETS,
    NodeResources,
    Target,
    cpu_cores,
    memory_bytes,
    node_labels,
)
from pipeline.config import ConfigError, PipelineConfig, with_overrides
from schema.errors import CortexflowError
from trainer.config import StageSettings

# Node → its settings in the config. ShuffleControl trains on one device (components).
STAGE_OF = {"Pretrainer": "pretrain", "Teacher": "teacher", "Student": "student"}
COMMAND = ("python", "-m", "components.distributed_training")
USER = 10001  # of kubeflow/Dockerfile
SCRATCH = "/tmp"  # noqa: S108 (in the container: a volume of the pod)
POD_LABELS = {"app.kubernetes.io/name": "cortexflow-training"}

# Vertex AI sells accelerators with machines: cores, GiB, accelerators of each, the smallest first.
# https://cloud.google.com/vertex-ai/docs/training/configure-compute
_Machine = tuple[int, float, int]
_N1: dict[str, _Machine] = {
    f"n1-{family}-{cores}": (cores, cores * gib, 0)
    for cores in (4, 8, 16, 32, 64, 96)
    for family, gib in (("standard", 3.75), ("highmem", 6.5))
}
_MACHINES: dict[str, dict[str, _Machine]] = {
    "nvidia-l4": {
        f"g2-standard-{cores}": (cores, 4 * cores, count)
        for cores, count in ((4, 1), (8, 1), (12, 1), (16, 1), (32, 1), (24, 2), (48, 4), (96, 8))
    },
    "nvidia-a100": {f"a2-highgpu-{n}g": (12 * n, 85 * n, n) for n in (1, 2, 4, 8)},
    "nvidia-h100": {"a3-highgpu-8g": (208, 1872, 8)},
}
_BESIDE_N1 = {"none": (1,), "nvidia-t4": (1, 2, 4), "nvidia-v100": (1, 2, 4, 8)}


def check(config: PipelineConfig) -> None:
    """Refuses a table and settings by which workers could not train together.

    Raises:
        ConfigError: a stage has several workers and another strategy than `multi_worker`, or this
            strategy and one worker; or it trains on TPUs.
    """
    for node, stage in _stages(config).items():
        row, strategy = config.cluster.resources(node), stage.execution.strategy
        workers = row.workers or 1
        if (workers > 1) != (strategy == "multi_worker"):
            raise ConfigError(
                f"{node} has cluster.nodes.{node}.workers={workers} and execution.strategy="
                f"{strategy}: several workers need multi_worker, and it needs several, of all "
                "stages alike. Set both, for example with --set execution.strategy=multi_worker "
                + " ".join(f"--set cluster.nodes.{each}.workers=2" for each in _stages(config))
            )
        if workers > 1 and (row.accelerator or "").startswith("tpu"):
            raise ConfigError(
                f"{node} has {workers} workers with {row.accelerator}: workers are joined on CPUs "
                "and GPUs. Give it workers=1 and a larger slice by cluster.nodes."
                f"{node}.topology, with execution.strategy=tpu"
            )


def handover(config: PipelineConfig, node: str, target: Target) -> dict[str, Any] | None:
    """What a trainer node is told of its distributed job; None where it trains by itself.

    The compiler puts it, as JSON, into the node's `custom_config` under `distributed`.

    Args:
        config: settings and table.
        node: id of a trainer node.
        target: who runs the pipeline.

    Returns:
        `target`, `timeout_seconds` of one attempt, and `job`: a TFJob without a name, or the
        worker pool specs of a CustomJob.

    Raises:
        ConfigError: see `check`.
    """
    row = config.cluster.resources(node)
    if node not in STAGE_OF or (row.workers or 1) == 1:
        return None
    check(config)
    job = tf_job(config, node) if target == "kubeflow" else worker_pool_specs(config, node)
    told: dict[str, Any] = {"target": target, "timeout_seconds": _seconds(row), "job": job}
    if target == "vertex" and config.cluster.service_account:
        told["service_account"] = config.cluster.service_account
    return told


def tf_job(config: PipelineConfig, node: str) -> dict[str, Any]:
    """The TFJob of a node, for Kubeflow's training operator.

    One chief and workers - 1 workers, which the operator tells of each other by `TF_CONFIG`. A
    worker that ends with 128 and above, as one whose machine was taken back, is started again.
    `args` end in `--job`, after which the node writes the address of the job document.

    Args:
        config: settings and table.
        node: id of a trainer node with several workers.

    Returns:
        The manifest as a document; `metadata` lacks the name.
    """
    row = config.cluster.resources(node)
    counts = {"Chief": 1, "Worker": (row.workers or 1) - 1}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "metadata": {"labels": {**POD_LABELS, "cortexflow/node": node.lower()}},
        "spec": {
            "runPolicy": {
                # What ended stays for its reason, until the node or the time to live removes it.
                "cleanPodPolicy": "Running",
                "activeDeadlineSeconds": _seconds(row),
                "backoffLimit": row.retries,
                "ttlSecondsAfterFinished": 3600,
            },
            "tfReplicaSpecs": {
                kind: {
                    "replicas": count,
                    "restartPolicy": "ExitCode",
                    "template": {
                        "metadata": {
                            "labels": {**POD_LABELS, "cortexflow/node": node.lower()},
                            # A sidecar outlives the training, and the job never ends.
                            "annotations": {"sidecar.istio.io/inject": "false"},
                        },
                        "spec": _pod(config, row),
                    },
                }
                for kind, count in counts.items()
            },
        },
    }


def worker_pool_specs(config: PipelineConfig, node: str) -> list[dict[str, Any]]:
    """The worker pools of a node's CustomJob on Vertex AI: the chief, then the others.

    Vertex AI sets `TF_CONFIG`. `args` end in `--job`, as in `tf_job`.

    Raises:
        ConfigError: Vertex AI has no machine with these accelerators.
    """
    row = config.cluster.resources(node)
    counts = (1, (row.workers or 1) - 1)
    return [
        {
            "machine_spec": machine(row),
            "replica_count": count,
            "container_spec": {
                "image_uri": _image(config, row),
                "command": list(COMMAND),
                "args": ["--job"],
                "env": [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "2"}],
            },
        }
        for count in counts
    ]


def machine(row: NodeResources) -> dict[str, Any]:
    """The smallest machine of Vertex AI that gives a row's cores, memory and accelerators.

    Returns:
        A `machine_spec`.

    Raises:
        ConfigError: there is none.
    """
    name, count = row.accelerator or "none", row.accelerators or 1
    cores, gib = cpu_cores(row.cpu or "1"), memory_bytes(row.memory or "1Gi") / 1024**3
    beside = count in _BESIDE_N1.get(name, ())
    found = next(
        (
            machine
            for machine, (its_cores, its_gib, its_count) in (
                _N1 if beside else _MACHINES.get(name, {})
            ).items()
            if its_cores >= cores and its_gib >= gib and (beside or its_count == count)
        ),
        None,
    )
    if found is None:
        raise ConfigError(
            f"Vertex AI has no machine for cpu={row.cpu}, memory={row.memory}, accelerator={name}, "
            f"accelerators={count}. Ask for less in cluster.nodes, or for another number of "
            "accelerators; https://cloud.google.com/vertex-ai/docs/training/configure-compute "
            "lists them"
        )
    spec: dict[str, Any] = {"machine_type": found}
    if name != "none":
        spec |= {"accelerator_type": ACCELERATORS[name][2], "accelerator_count": count}
    return spec


def _stages(config: PipelineConfig) -> dict[str, StageSettings]:
    there = config.stages
    return {node: there[name] for node, name in STAGE_OF.items() if name in there}


def _seconds(row: NodeResources) -> int:
    return 60 * (row.timeout_minutes or 0)


def _image(config: PipelineConfig, row: NodeResources) -> str:
    own = config.cluster.gpu_image if row.accelerator != "none" else None
    return own or config.cluster.image


def _pod(config: PipelineConfig, row: NodeResources) -> dict[str, Any]:
    """A worker's pod; it satisfies the `restricted` pod security standard."""
    mounts = [{"name": "scratch", "mountPath": SCRATCH}]
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    wanted = {"cpu": row.cpu, "memory": row.memory}
    limits: dict[str, Any] = {"memory": row.memory}
    pod: dict[str, Any] = {}
    selector = node_labels(row)
    if row.accelerator not in (None, "none"):
        resource, _, _ = ACCELERATORS[row.accelerator]
        limits[resource] = row.accelerators
        pod["tolerations"] = [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]
        # NCCL joins the GPUs of a machine through shared memory, of which a container has 64 MiB.
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
    if config.cluster.volume:
        claim, _, path = config.cluster.volume.partition(":")
        mounts.append({"name": "data", "mountPath": path})
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": claim}})
    if selector:
        pod["nodeSelector"] = selector
    if config.cluster.service_account:
        pod["serviceAccountName"] = config.cluster.service_account
    return pod | {
        "automountServiceAccountToken": False,
        # The step ends, its state is kept, and the chief's upload is done: a minute or two.
        "terminationGracePeriodSeconds": 180,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "tensorflow",  # the operator looks for a container of this name
                "image": _image(config, row),
                "command": list(COMMAND),
                "args": ["--job"],
                "env": [
                    {"name": "HOME", "value": SCRATCH},
                    {"name": "TF_CPP_MIN_LOG_LEVEL", "value": "2"},
                ],
                "resources": {"requests": wanted, "limits": limits},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                # Why a worker failed is then in the pod's status, for who may not read its log.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def show(
    preset: Annotated[str, typer.Argument(help="A preset's name.")],
    node: Annotated[str, typer.Option(help=f"One of {', '.join(STAGE_OF)}.")] = "Teacher",
    target: Annotated[str, typer.Option("--for", help="kubeflow or vertex.")] = "kubeflow",
    job: Annotated[
        str | None,
        typer.Option(help="Address of a job document; by default the node adds it."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the TFJob; the node gives its own.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the preset; repeatable."),
    ] = None,
) -> None:
    """Print a trainer node's distributed job as YAML."""
    import yaml

    from components.distributed_training import completed
    from pipeline import presets

    if node not in STAGE_OF or target not in TARGETS:
        raise typer.BadParameter(
            f"--node is one of {', '.join(STAGE_OF)} and --for one of {', '.join(TARGETS)} "
            f"(received {node}, {target})"
        )
    told = handover(with_overrides(presets.load(preset), settings or ()), node, target)
    if told is None:
        raise ConfigError(
            f"{node} trains by itself: cluster.nodes.{node}.workers is 1. Set it with --set "
            f"cluster.nodes.{node}.workers=2 --set execution.strategy=multi_worker"
        )
    document = completed(told["job"], name=name, job_uri=job)
    typer.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


if __name__ == "__main__":
    try:
        app(prog_name="python -m pipeline.distributed")
    except CortexflowError as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_code)
