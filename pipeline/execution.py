"""One run from start to record: data, DAG, outcome, report."""

import fcntl
import importlib.util
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.outcome import GateStopped
from pipeline import metadata, versions
from pipeline.config import PipelineConfig
from pipeline.inputs import OnNode, prepare_dataset, training_inputs
from pipeline.runs import UNFINISHED, NodeState, RunFolder, RunRecord
from pipeline.workspace import Workspace
from schema import places
from schema.errors import CortexflowError
from trainer.errors import Preempted

if TYPE_CHECKING:
    from pipeline.training import Inputs


LOG = logging.getLogger(__name__)
REMOTE: dict[str, tuple[str, ...]] = {
    "gs": (),
    "s3": ("tensorflow_io", "boto3"),
}  # what it needs besides


class Busy(CortexflowError):
    """Another run of the same pipeline is going on."""


class NotOnThisMachine(CortexflowError):
    """The settings want what a run on one machine cannot give."""


def check_local(config: PipelineConfig) -> None:
    """Refuses what only several processes can do, before anything is made for the run.

    Raises:
        NotOnThisMachine: a stage wants several workers; a run here is one process. Or the pipeline
            root is an address that this installation does not know.
        MetadataError: the setting `metadata` names no database, or has a password in it.
    """
    if config.metadata is not None:
        metadata.parsed(config.metadata)
    _check_root(config.pipeline_root)
    wanting = [
        name for name, stage in config.stages.items() if stage.execution.strategy == "multi_worker"
    ]
    if wanting:
        raise NotOnThisMachine(
            f"execution.strategy=multi_worker (received for {', '.join(wanting)}) needs several "
            "processes, and `cortexflow run` is one. Workers start as a TFJob or custom job whose "
            'processes call the trainer with TF_CONFIG: docs/training.md, "Devices and workers". '
            "For all devices of this machine: --set execution.strategy=mirrored"
        )


def _check_root(root: str | None) -> None:
    if root is None or not places.is_remote(root):
        return
    scheme, _, rest = root.partition("://")
    if scheme not in REMOTE or not rest.strip("/"):
        raise NotOnThisMachine(
            f"pipeline_root is no place for artifacts (received {root!r}). Set it to a folder, to "
            "gs://BUCKET/PATH or to s3://BUCKET/PATH."
        )
    missing = [name for name in REMOTE[scheme] if importlib.util.find_spec(name) is None]
    if missing:
        raise NotOnThisMachine(
            f"pipeline_root={root} needs {' and '.join(missing)}, which this installation lacks. "
            "Install cortexflow[s3], or keep artifacts in a folder or at gs://BUCKET/PATH."
        )


def artifacts_root(config: PipelineConfig, workspace: Workspace, record: RunRecord) -> str:
    """Where a run's artifacts go: the workspace's folder, or below the setting `pipeline_root`.

    TFX names an artifact's folder by numbers that one metadata database gives out. A root that
    several databases share needs a folder per run; it is the same when the run is resumed.
    """
    if config.pipeline_root is None:
        return str(workspace.pipeline_root(config.name))
    root = config.pipeline_root
    if not places.is_remote(root):
        root = str(Path(root).expanduser().absolute())
    return places.below(root, config.name, f"{record.id}-{record.started:%f}")


def execute(
    config: PipelineConfig,
    workspace: Workspace,
    folder: RunFolder,
    record: RunRecord,
    on_node: OnNode = lambda state: None,
) -> RunRecord:
    """Runs the pipeline on this machine and leaves record, evidence and report, however it ends.

    The caller has asked `check_local`, and holds the pipeline's lock (`locked`), under which it
    made or reopened the record.

    Args:
        config: the run's settings.
        workspace: where everything is kept.
        folder: the run's own folder.
        record: as `runs.create` or `runs.reopen` gave it.
        on_node: told of each node's start and end.

    Returns:
        The final record. A refusal is a result, not an exception.

    Raises:
        Preempted: SIGTERM came. The record says `interrupted`, and `--resume` goes on: a training
            after its last step, any other node from its start.
        Exception: what broke the run, after the record says so.
    """
    started = time.monotonic()

    def observe(state: NodeState) -> None:
        nonlocal record
        record = record.with_node(state)
        folder.write(record)
        on_node(state)

    def close(status: str, reason: str = "") -> None:
        nonlocal record
        seconds = record.seconds + time.monotonic() - started
        record = record.model_copy(update={"status": status, "reason": reason, "seconds": seconds})
        folder.write(record)

    dataset = None
    try:
        with _heeding_sigterm():
            metadata.check(metadata.database(config, workspace))
            dataset = prepare_dataset(config.data, workspace, observe)
            inputs = training_inputs(config, workspace, dataset, record.baseline, observe)
            record = record.model_copy(update={"baseline": inputs.live_version})
            folder.write(record)
            _run_dag(config, workspace, inputs, record, observe)
    except Preempted as error:
        close("interrupted", str(error))
        raise Preempted(
            f"{error} `cortexflow run {record.preset} --resume` takes the run up again."
        ) from error
    except KeyboardInterrupt:
        close("interrupted", "stopped by the user")
        raise
    except Exception as error:
        stop = _gate_stop(error)
        if stop is None:
            close("failed", str(error) or type(error).__name__)
            raise
        close(stop.outcome.value, str(stop))
    else:
        close("passed")
    finally:
        record = _report(config, workspace, folder, record, dataset)
    return record


@contextmanager
def locked(workspace: Workspace, pipeline: str) -> Iterator[None]:
    """Holds the pipeline's lock; it is let go by the system when the process dies.

    Raises:
        Busy: another process holds it.
    """
    path = workspace.lock(pipeline)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"A run of {pipeline!r} is going on in {workspace.root}. Wait for it, or use "
                "another --workspace."
            ) from None
        yield


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Ends the run by `Preempted` when SIGTERM comes, so that its record is written.

    A training has a handler of its own, which lets it finish its step. The second signal ends the
    process as if nobody had listened to the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Preempted("The run was stopped (SIGTERM).")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _run_dag(
    config: PipelineConfig,
    workspace: Workspace,
    inputs: "Inputs",
    record: RunRecord,
    observe: OnNode,
) -> None:
    from pipeline import local_runner
    from pipeline.training import create_training_pipeline

    if (config.pipeline_root or "").startswith("s3://"):
        places.prepare_s3()
    database = metadata.database(config, workspace)
    dag = create_training_pipeline(
        config,
        inputs,
        pipeline_root=artifacts_root(config, workspace, record),
        metadata_connection_config=database.connection(),
    )
    with metadata.told(database):
        local_runner.run(dag, lambda event: observe(NodeState(**vars(event))))


def _gate_stop(error: BaseException | None) -> GateStopped | None:
    """The gate's own word, wherever the launcher wrapped it."""
    while error is not None:
        if isinstance(error, GateStopped):
            return error
        error = error.__cause__ or error.__context__
    return None


def _report(
    config: PipelineConfig,
    workspace: Workspace,
    folder: RunFolder,
    record: RunRecord,
    dataset: Path | None,
) -> RunRecord:
    """Collects the evidence of whatever was done; writes the report and the model card."""
    from pipeline import documents
    from pipeline.evidence import collect

    try:
        found = collect(config, workspace, record, dataset)
        documents.publish(found, folder)
    except Exception:
        if record.status not in UNFINISHED:
            raise
        # Mostly what broke the run itself, such as a server that is gone: that is what is told.
        LOG.exception("No report of %s", record.id)
        return record
    live = versions.registry(config, workspace).live()
    numbers = {
        "pushed_version": found.pushed.version if found.pushed else None,
        "live_version": live.number if live else None,
    }
    record = record.model_copy(update=numbers)
    folder.write(record)
    return record
