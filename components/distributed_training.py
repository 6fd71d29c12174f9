"""Training by several processes: what a trainer node hands over, and what each worker runs.

A node whose settings hold `distributed` (`pipeline/distributed.py`) writes a job document beside
its model, starts a TFJob or a CustomJob whose workers all read it, and waits:

    python -m components.distributed_training --job gs://bucket/…/job.json

A worker calls the trainer as a single process would; `TF_CONFIG`, set by whoever starts workers,
tells it of the others. Nothing here imports TFX.
"""

import argparse
import copy
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from components.training_jobs import Jobs, State, TrainingJobError, Unreachable, open_jobs
from schema import places
from schema.errors import CortexflowError
from trainer.errors import Preempted
from trainer.preemption import StopRequest, heeded

LOG = logging.getLogger(__name__)

DOCUMENT = "job.json"
FORMAT = 1
# Of TFX's FnArgs, all that trainer/run_fn.py reads.
ARGUMENTS = (
    "train_files",
    "eval_files",
    "base_model",
    "serving_model_dir",
    "model_run_dir",
    "custom_config",
)
HANDOVER = "distributed"  # key of custom_config

LOOK_SECONDS = 5.0  # between two looks at the job
UNREACHABLE_SECONDS = 900.0  # a control plane that is upgraded is away for minutes
# Workers get SIGTERM, and keep their state. Below the minute after which a node is killed.
STOP_SECONDS = 45.0


def hand_over(
    fn_args: Any,
    told: Mapping[str, Any],
    *,
    jobs: Jobs | None = None,
    look_seconds: float | None = None,
) -> None:
    """Trains by a distributed job instead of in this process; returns when the model is there.

    A node that is tried again finds the job that it started, and goes on waiting for it. SIGTERM
    stops the job, whose workers keep their states.

    Args:
        fn_args: TFX's, of which `ARGUMENTS` are read. Its folders are such as all workers see.
        told: as `pipeline.distributed.handover` made it.
        jobs: who starts jobs; by default the one that `told` names.
        look_seconds: between two looks at the job; LOOK_SECONDS by default.

    Raises:
        TrainingJobError: the job failed, with its worker's reason, or cannot be started.
        Preempted: SIGTERM came.
    """
    uri = write_document(fn_args)
    name = job_name(uri)
    jobs = jobs or open_jobs(told)
    with heeded() as stop:
        jobs.start(name, completed(told["job"], name=name, job_uri=uri))
        LOG.info("%s trains by %s", name, uri)
        try:
            _follow(jobs, name, stop, look_seconds or LOOK_SECONDS)
        except BaseException:
            if stop:
                _end(jobs, name)
            raise


def _follow(jobs: Jobs, name: str, stop: StopRequest, look_seconds: float) -> None:
    last, seen = State("pending"), time.monotonic()
    while True:
        if stop:
            raise Preempted(
                f"Asked to stop: {name} is stopped too, and its workers keep their states. Started "
                "again, they go on from there."
            )
        try:
            state = jobs.look(name)
            seen = time.monotonic()
        except Unreachable as error:
            if time.monotonic() - seen > UNREACHABLE_SECONDS:
                raise
            LOG.warning("%s: not told how it is (%s)", name, error)
            state = last
        if state is None:
            raise TrainingJobError(
                f"{name} was deleted by somebody before it ended. Run the pipeline again; its "
                "workers go on from their last state."
            )
        if state != last:
            LOG.info("%s: %s %s", name, state.word, state.reason)
            last = state
        if state.word == "succeeded":
            return
        if state.word == "failed":
            raise TrainingJobError(f"{name} failed. {state.reason}")
        _wait(stop, look_seconds)


def _wait(stop: StopRequest, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not stop and time.monotonic() < until:
        time.sleep(min(0.2, seconds))


def _end(jobs: Jobs, name: str) -> None:
    """Stops a job and waits until its workers are gone, as long as there is time."""
    until = time.monotonic() + STOP_SECONDS
    try:
        jobs.stop(name)
        while time.monotonic() < until:
            state = jobs.look(name)
            if state is None or state.word in ("succeeded", "failed"):
                return
            time.sleep(0.2)
    except TrainingJobError as error:  # the node is stopped all the same; its deadline ends the job
        LOG.warning("%s cannot be stopped: %s", name, error)
        return
    LOG.warning("%s has not ended within %g s", name, STOP_SECONDS)


def completed(job: Any, *, name: str | None, job_uri: str | None = None) -> Any:
    """A job made from the table, with its name and the address of its document.

    Args:
        job: a TFJob, or the worker pool specs of a CustomJob; left as it is.
        name: of the TFJob.
        job_uri: address of the job document, which each container's `args` end with.
    """
    job = copy.deepcopy(job)
    if isinstance(job, dict):
        if name:
            job["metadata"] = {"name": name, **job["metadata"]}
        containers = [
            container
            for replica in job["spec"]["tfReplicaSpecs"].values()
            for container in replica["template"]["spec"]["containers"]
        ]
    else:
        containers = [pool["container_spec"] for pool in job]
    for container in containers:
        container["args"] += [job_uri] if job_uri else []
    return job


def job_name(uri: str) -> str:
    """A name that is the same whenever this document's job is started, and a DNS label."""
    return f"cortexflow-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"


def write_document(fn_args: Any) -> str:
    """Writes what the workers do, beside the folder of the model to be.

    Returns:
        Its address.
    """
    arguments = {name: getattr(fn_args, name) for name in ARGUMENTS}
    config = dict(arguments["custom_config"] or {})
    config.pop(HANDOVER, None)
    text = json.dumps(
        {"format": FORMAT, "fn_args": {**arguments, "custom_config": config}}, indent=1
    )
    uri = os.path.join(os.path.dirname(str(fn_args.serving_model_dir).rstrip("/")), DOCUMENT)
    if places.is_remote(uri):
        import tensorflow as tf  # an object appears whole

        with tf.io.gfile.GFile(uri, "w") as file:
            file.write(text)
        return uri
    path = Path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
    return uri


def read_document(uri: str) -> SimpleNamespace:
    """Reads a job document.

    Returns:
        What TFX's Trainer would pass to `run_fn`.

    Raises:
        TrainingJobError: there is none, or it is none of ours.
    """
    try:
        if places.is_remote(uri):
            import tensorflow as tf

            with tf.io.gfile.GFile(uri) as file:
                text = file.read()
        else:
            text = Path(uri).read_text()
        document = json.loads(text)
        if document["format"] != FORMAT or set(document["fn_args"]) != set(ARGUMENTS):
            raise ValueError(f"format {document['format']}, {sorted(document['fn_args'])}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingJobError(
            f"No job document of this version can be read at {uri} ({error}). The node that trains "
            "writes it; every worker must see its folder: a bucket, or a volume that all mount "
            "(cluster.volume)."
        ) from error
    except Exception as error:
        if type(error).__module__.startswith("tensorflow"):
            raise TrainingJobError(
                f"{uri} cannot be read ({error}). Give the workers' service account the right to."
            ) from error
        raise
    return SimpleNamespace(**document["fn_args"])


def main(arguments: Sequence[str] | None = None) -> None:
    """One worker; exits as `trainer.run_fn.run_fn` ends: 0, 1, or 143 where it may be resumed."""
    parser = argparse.ArgumentParser(
        prog="python -m components.distributed_training",
        description="Train as one of the workers that TF_CONFIG names.",
    )
    parser.add_argument("--job", required=True, metavar="URI", help="the job document")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        fn_args = read_document(options.job)
        from trainer.run_fn import run_fn

        run_fn(fn_args)
    except CortexflowError as error:
        # One line, the last of the log: Kubernetes gives it as the reason.
        print(f"Error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
