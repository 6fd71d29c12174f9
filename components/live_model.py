"""LiveModel: the version that serves now is the baseline to beat.

An ordinary node instead of TFX's LatestBlessedModelStrategy: open-source Kubeflow refuses Resolver
nodes, and a rollback must move the baseline too (docs/adr/0004).
"""

import os
import tempfile
from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

if TYPE_CHECKING:
    from registry.interface import Registry

MODEL = "model"


class LiveModelSpec(ComponentSpec):
    """`version` is only part of the cache key: a promote or rollback makes the node run again."""

    PARAMETERS = {  # noqa: RUF012 (TFX reads it from the class)
        "registry": ExecutionParameter(type=str),
        "model_name": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str),
    }
    INPUTS = {}  # noqa: RUF012
    OUTPUTS = {MODEL: ChannelParameter(type=standard_artifacts.Model)}  # noqa: RUF012


class Executor(base_executor.BaseExecutor):
    """Copies the live version into the run, so that lineage holds what was compared with."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 (TFX's name)
        """Emits the live model, or no artifact at all when nothing is live yet."""
        from registry.opening import open_registry

        registry = open_registry(
            exec_properties["registry"], exec_properties["model_name"], create=True
        )
        live = registry.live()
        artifact = output_dict[MODEL][0]
        output = execution_result_pb2.ExecutorOutput()
        if live is None:
            fileio.rmtree(artifact.uri)
            output.output_artifacts[MODEL].CopyFrom(
                execution_result_pb2.ExecutorOutput.ArtifactList()
            )
            return output
        _fetch(registry, live.number, path_utils.serving_model_dir(artifact.uri))
        artifact.set_int_custom_property("version", live.number)
        artifact.set_string_custom_property("digest", live.digest)
        output.output_artifacts[MODEL].artifacts.append(artifact.mlmd_artifact)
        return output


def _fetch(registry: "Registry", version: int, target: str) -> None:
    """Puts a proved copy into the run, also where the pipeline's root is in the cloud."""
    if "://" not in target:
        registry.fetch(version, target)
        return
    with tempfile.TemporaryDirectory(prefix="cortexflow-live-") as scratch:
        copy = os.path.join(scratch, "model")
        registry.fetch(version, copy)
        io_utils.copy_dir(copy, target)


class LiveModel(base_component.BaseComponent):
    """TFX node: output `model` holds the live version of the registry, or nothing."""

    SPEC_CLASS = LiveModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, registry: str, model_name: str, version: str = ""):
        """Looks in the registry at a path or URI when the node runs, not now."""
        super().__init__(
            LiveModelSpec(
                registry=registry,
                model_name=model_name,
                version=version,
                model=Channel(type=standard_artifacts.Model),
            )
        )
