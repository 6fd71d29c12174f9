"""Runs the DAG on this machine, node by node, telling what happens to each.

TFX's own launcher does the work (drivers, cache, executors, metadata); this loop stands where
`LocalDagRunner.run_with_ir` stands, which runs the same launcher but says nothing and cannot be
asked whether a node ran or came from the cache.
"""

import dataclasses
import datetime
import time
from collections.abc import Callable

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils


@dataclasses.dataclass(frozen=True)
class NodeEvent:
    """A node started (`running`), or ended (`ran`, `cached`, `failed`) after `seconds`."""

    node: str
    state: str
    seconds: float = 0.0
    execution_id: int | None = None


def run(pipeline: Pipeline, on_event: Callable[[NodeEvent], None]) -> None:
    """Runs every node in topological order; the first failure ends the run.

    Args:
        pipeline: the DAG, with a local MLMD connection.
        on_event: told of every node's start and end.

    Raises:
        Exception: whatever the failing node raised, unchanged.
    """
    spec = compiler.Compiler().compile(pipeline)
    runtime_parameter_utils.substitute_runtime_parameter(
        spec,
        {constants.PIPELINE_RUN_ID_PARAMETER_NAME: datetime.datetime.now().isoformat()},
    )
    deployment = runner_utils.extract_local_deployment_config(spec)
    connection = getattr(
        deployment.metadata_connection_config,
        deployment.metadata_connection_config.WhichOneof("connection_config"),
    )
    for item in spec.nodes:
        node = item.pipeline_node
        node_id = node.node_info.id
        on_event(NodeEvent(node_id, "running"))
        started = time.monotonic()
        try:
            execution = launcher.Launcher(
                pipeline_node=node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=spec.pipeline_info,
                pipeline_runtime_spec=spec.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            ).launch()
        except BaseException:
            on_event(NodeEvent(node_id, "failed", time.monotonic() - started))
            raise
        seconds = time.monotonic() - started
        on_event(_ended(connection, node_id, seconds, execution))


def _ended(connection, node_id: str, seconds: float, execution) -> NodeEvent:
    if execution is None:
        return NodeEvent(node_id, "ran", seconds)
    with metadata.Metadata(connection) as handle:
        [record] = handle.store.get_executions_by_id([execution.execution_id])
    cached = record.last_known_state == metadata_store_pb2.Execution.CACHED
    return NodeEvent(node_id, "cached" if cached else "ran", seconds, execution.execution_id)
