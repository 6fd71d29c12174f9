"""What a cluster is told beside the pipeline itself: image, places, and what each node gets.

One table names the resources of every node. The compiler writes it into the pipeline, the manifests
of distributed training are made from it, and nothing else decides about CPU, memory or devices.
"""

import re
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from trainer.config import Settings

Target = Literal["kubeflow", "vertex"]
TARGETS: tuple[Target, ...] = ("kubeflow", "vertex")
# What each device is called: Kubernetes' resource and node label, Vertex AI's type.
ACCELERATORS = {
    "nvidia-t4": ("nvidia.com/gpu", "nvidia-tesla-t4", "NVIDIA_TESLA_T4"),
    "nvidia-l4": ("nvidia.com/gpu", "nvidia-l4", "NVIDIA_L4"),
    "nvidia-v100": ("nvidia.com/gpu", "nvidia-tesla-v100", "NVIDIA_TESLA_V100"),
    "nvidia-a100": ("nvidia.com/gpu", "nvidia-tesla-a100", "NVIDIA_TESLA_A100"),
    "nvidia-h100": ("nvidia.com/gpu", "nvidia-h100-80gb", "NVIDIA_H100_80GB"),
    "tpu-v5e": ("google.com/tpu", "tpu-v5-lite-podslice", "TPU_V5_LITEPOD"),
}
CPU = re.compile(r"\d+(\.\d+)?m?")
MEMORY = re.compile(r"\d+(\.\d+)?(Ki|Mi|Gi|Ti|K|M|G|T)?")
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
UNITS |= {f"{unit}i": 1024 ** (power + 1) for power, unit in enumerate("KMGT")}


class NodeResources(Settings):
    """What one node gets. A field left out is the table's `default` row's.

    Attributes:
        cpu: Kubernetes quantity, cores (`2`, `500m`).
        memory: Kubernetes quantity, bytes (`8Gi`).
        accelerator: a name of `ACCELERATORS`, or "none".
        accelerators: how many of them, on each worker.
        topology: of a TPU slice, for example `2x2`.
        pool: name of the node pool, "" for any.
        workers: processes that train together; above 1 the node hands over to a distributed job.
        retries: how often the node is tried again.
        backoff_seconds: wait before the first of them; it doubles.
        timeout_minutes: SIGTERM after this, of one attempt; a training keeps its state.
        cache: whether an equal execution of before may answer.
    """

    cpu: str | None = None
    memory: str | None = None
    accelerator: str | None = None
    accelerators: PositiveInt | None = None
    topology: str | None = None
    pool: str | None = None
    workers: PositiveInt | None = None
    retries: int | None = Field(None, ge=0, le=10)
    backoff_seconds: PositiveInt | None = None
    timeout_minutes: PositiveInt | None = None
    cache: bool | None = None

    @field_validator("cpu", "memory", mode="before")
    @classmethod
    def _quantity(cls, value: Any, info) -> Any:
        """Text; a number, as `--set cluster.nodes.Teacher.cpu=8` gives one, is written out."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value:g}"
        if not isinstance(value, str):
            return value
        form = CPU if info.field_name == "cpu" else MEMORY
        if not form.fullmatch(value):
            example = "2 or 500m" if info.field_name == "cpu" else "8Gi or 512Mi"
            raise ValueError(f"no Kubernetes quantity; write for example {example}")
        return value

    @field_validator("accelerator")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value not in (None, "none", *ACCELERATORS):
            raise ValueError(f"unknown; known are none, {', '.join(ACCELERATORS)}")
        return value

    def over(self, default: "NodeResources") -> "NodeResources":
        """This row, with what it leaves out taken from `default`."""
        mine = {name: value for name, value in self if value is not None}
        return NodeResources(**{**dict(default), **mine})


DEFAULT = NodeResources(
    cpu="2",
    memory="4Gi",
    accelerator="none",
    accelerators=1,
    pool="",
    workers=1,
    retries=1,
    backoff_seconds=60,
    timeout_minutes=120,
    cache=True,
)
_TRAINING = NodeResources(cpu="4", memory="16Gi", retries=2, timeout_minutes=720)
_FRESH = NodeResources(cache=False)  # reads what lies outside the pipeline and may have changed
_STOP = NodeResources(cpu="500m", memory="2Gi", retries=0, cache=False)
NODES: dict[str, NodeResources] = {
    "default": DEFAULT,
    "ImageExampleGen": NodeResources(memory="8Gi", cache=False),
    "StatisticsGen": NodeResources(memory="8Gi"),
    "SchemaGen": NodeResources(),
    "CuratedSchema": NodeResources(),
    "ExampleValidator": NodeResources(),
    "AnomalyGate": NodeResources(),
    "LeakageCheck": NodeResources(memory="8Gi"),
    "DriftGate": NodeResources(),
    "StopOnBadData": _STOP,
    "Pretrainer": _TRAINING,
    "Checkpoint": NodeResources(),
    "Teacher": _TRAINING,
    "Student": _TRAINING,
    "ShuffleControl": _TRAINING,
    "LiveModel": _FRESH,
    "ServingCheck": NodeResources(),
    "Predictor": NodeResources(memory="8Gi"),
    "Evaluator": NodeResources(memory="8Gi"),
    "ModelGate": NodeResources(),
    "DataView": NodeResources(cache=False),
    "RunView": NodeResources(cache=False),
    "StopOnRefusal": _STOP,
    "StopOnInsufficientEvidence": _STOP,
    "RegistryPusher": NodeResources(retries=0, cache=False),
}


class ClusterSettings(Settings):
    """Where a compiled pipeline runs, and with what. Nothing of it is used by a local run.

    Attributes:
        image: of every node; by digest (`name@sha256:…`) for caches that notice edited code.
        gpu_image: of nodes with an accelerator; None: `image`.
        pipeline_root: where artifacts go unless a run says otherwise. `gs://…` is read by every
            node; Kubeflow's launcher takes no folder.
        service_account: under which the nodes run; "": the cluster's own.
        volume: claim mounted into every node, as `claim:/path`; Kubeflow only.
        nodes: the table.
    """

    image: str = Field("cortexflow:latest", min_length=1)
    gpu_image: str | None = None
    pipeline_root: str = ""
    service_account: str = ""
    volume: str | None = Field(None, pattern=r"^[a-z0-9.-]+:/\S+$")
    nodes: dict[str, NodeResources] = NODES

    @model_validator(mode="after")
    def _names_are_nodes(self) -> "ClusterSettings":
        unknown = sorted(set(self.nodes) - set(NODES))
        if unknown:
            raise ValueError(
                f"cluster.nodes has no {', '.join(unknown)}; nodes are {', '.join(NODES)}"
            )
        return self

    def resources(self, node: str) -> NodeResources:
        """All of a node's row, with nothing left out but `topology`."""
        rows = NODES | self.nodes
        base = rows["default"].over(DEFAULT)
        return rows.get(node, NodeResources()).over(base)


def cpu_cores(quantity: str) -> float:
    """Cores of a Kubernetes quantity: 0.5 of `500m`."""
    if quantity.endswith("m"):
        return float(quantity[:-1]) / 1000
    return float(quantity)


def memory_bytes(quantity: str) -> float:
    """Bytes of a Kubernetes quantity: 8589934592 of `8Gi`."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def node_labels(row: NodeResources) -> dict[str, str]:
    """Labels of the nodes that a row may run on, as GKE gives them."""
    labels = {"cloud.google.com/gke-nodepool": row.pool} if row.pool else {}
    if row.accelerator not in (None, "none"):
        resource, label, _ = ACCELERATORS[row.accelerator]
        kind = "tpu-accelerator" if resource == "google.com/tpu" else "accelerator"
        labels[f"cloud.google.com/gke-{kind}"] = label
        if row.topology:
            labels["cloud.google.com/gke-tpu-topology"] = row.topology
    return labels
