"""The devices and workers that a training runs on, from its settings and its environment.

TensorFlow ties devices and workers to a process when it first uses them, so a process has one
strategy of a kind: `connect` makes it once, and wants to be called before anything else computes.
"""

import functools
import json
import os
from typing import Any

import tensorflow as tf

from trainer.config import ExecutionSettings
from trainer.errors import StageError

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


def connect(settings: ExecutionSettings) -> tf.distribute.Strategy:
    """The strategy that the settings ask for; the same object whenever the process asks again.

    Args:
        settings: `strategy` and `replicas` are looked at.

    Returns:
        TensorFlow's own strategy. `none` gives the default one, of a single replica. The branches
        of GPUs and of TPUs follow TensorFlow's documentation; no machine with several GPUs or with
        a TPU was at hand to run them.

    Raises:
        StageError: the devices or workers asked for are not there, or TensorFlow has started.
    """
    return _connect(settings.strategy, settings.replicas)


@functools.cache
def _connect(strategy: str, replicas: int | None) -> tf.distribute.Strategy:
    if strategy == "mirrored":
        return tf.distribute.MirroredStrategy(_local_devices(replicas))
    if strategy == "multi_worker":
        return _multi_worker()
    if strategy == "tpu":
        return _tpu()
    return tf.distribute.get_strategy()


def _local_devices(replicas: int | None) -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if replicas is not None and replicas > len(gpus):
            raise StageError(
                f"execution.replicas={replicas}, but this machine has {len(gpus)} GPUs. Lower it, "
                "or leave it out to use them all."
            )
        return [f"GPU:{number}" for number in range(replicas or len(gpus))]
    if replicas is None:
        raise StageError(
            "execution.strategy=mirrored found no GPU on this machine. Set execution.replicas to "
            "split the CPU into that many parts, or execution.strategy=none."
        )
    _split_cpu(replicas)
    return [f"CPU:{number}" for number in range(replicas)]


def _split_cpu(parts: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * parts
        )
    except RuntimeError as error:
        available = len(tf.config.list_logical_devices("CPU"))
        if available < parts:
            raise StageError(
                f"The CPU cannot be split into {parts} replicas: TensorFlow already runs in this "
                f"process, on {available} part(s). Start the training in a process of its own."
            ) from error


def _multi_worker() -> tf.distribute.Strategy:
    check_cluster(os.environ.get("TF_CONFIG"))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise StageError(
            "The workers cannot be joined: TensorFlow already computes in this process "
            f"({error}). Start the training in a process of its own."
        ) from error


def check_cluster(text: str | None) -> None:
    """Refuses a `TF_CONFIG` by which workers could not find each other.

    Kubeflow's training operator names every process `worker`; Vertex AI calls the first `chief`.

    Args:
        text: the variable's value; `None` where it is not set.

    Raises:
        StageError: what is wrong, with the value received.
    """
    try:
        document: Any = json.loads(text or "")
        cluster, task = document["cluster"], document["task"]
        hosts = {kind: cluster[kind] for kind in ("chief", "worker") if cluster.get(kind)}
        kind, index = task["type"], int(task["index"])
        known = kind in hosts and 0 <= index < len(hosts[kind])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _misconfigured(text, "is not set" if not text else f"is malformed ({error!r})") from (
            error
        )
    if not known:
        raise _misconfigured(text, f"names the task {kind} {index}, which its cluster lacks")


def _misconfigured(text: str | None, problem: str) -> StageError:
    beside = " CLUSTER_SPEC is set, but is not read." if "CLUSTER_SPEC" in os.environ else ""
    return StageError(
        f"execution.strategy=multi_worker reads TF_CONFIG, which {problem} (received: {text!r})."
        f"{beside} Start the stage as a TFJob of Kubeflow or a Vertex AI custom job, which set it, "
        f"or set on each worker, with its own index: {_EXAMPLE}"
    )


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise StageError(
            f"execution.strategy=tpu found no TPU ({type(error).__name__}: {error}). Run on a TPU "
            "machine, or set TPU_NAME to the name or grpc:// address of one."
        ) from error
    return tf.distribute.TPUStrategy(resolver)
