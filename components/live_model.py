"""LiveModel: the version that serves now is the baseline to beat.

An ordinary node instead of TFX's LatestBlessedModelStrategy: open-source Kubeflow refuses Resolver
nodes, and a rollback must move the baseline too (docs/adr/0004).
"""

from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from schema import places
from schema.errors import CortexflowError

if TYPE_CHECKING:
    from registry.interface import Registry, Version

MODEL = "model"


class OtherVersion(CortexflowError):
    """The registry has no such version."""


def holds_model(artifact) -> bool:
    """Whether there is a model at all: on a cluster the artifact exists when nothing is live."""
    return fileio.exists(path_utils.serving_model_dir(artifact.uri))


class LiveModelSpec(ComponentSpec):
    """`version` is part of the cache key: a promote or rollback makes the node run again."""

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
        wanted = _asked_for(registry, exec_properties["version"])
        artifact = output_dict[MODEL][0]
        output = execution_result_pb2.ExecutorOutput()
        if wanted is None:
            if fileio.exists(artifact.uri):
                fileio.rmtree(artifact.uri)
            output.output_artifacts[MODEL].CopyFrom(
                execution_result_pb2.ExecutorOutput.ArtifactList()
            )
            return output
        with places.written(artifact.uri) as folder:
            registry.fetch(wanted.number, path_utils.serving_model_dir(str(folder)))
        artifact.set_int_custom_property("version", wanted.number)
        artifact.set_string_custom_property("digest", wanted.digest)
        output.output_artifacts[MODEL].artifacts.append(artifact.mlmd_artifact)
        return output


def _asked_for(registry: "Registry", version: str) -> "Version | None":
    """The version of this number (`3`, or `3:DIGEST` as the run found it), or the live one."""
    if not version:
        return registry.live()
    number, _, digest = version.partition(":")
    found = next((each for each in registry.versions() if str(each.number) == number), None)
    if found is None or not found.digest.startswith(digest):
        raise OtherVersion(
            f"The model to compare with is version {version}, which the registry does not have. "
            "`cortexflow versions` lists those there are; an empty version means the live one."
        )
    return found


class LiveModel(base_component.BaseComponent):
    """TFX node: output `model` holds the live version of the registry, or nothing."""

    SPEC_CLASS = LiveModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        registry: str | RuntimeParameter,
        model_name: str | RuntimeParameter,
        version: str | RuntimeParameter = "",
    ):
        """Looks in the registry at a path or URI when the node runs, not now.

        Args:
            registry: folder, `gs://…` or `vertex://…`.
            model_name: whose versions.
            version: number, or `number:digest`, of the version to compare with; "": the live one.
        """
        super().__init__(
            LiveModelSpec(
                registry=registry,
                model_name=model_name,
                version=version,
                model=Channel(type=standard_artifacts.Model),
            )
        )
