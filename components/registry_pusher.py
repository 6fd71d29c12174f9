"""Pusher into our registry: TFX's Pusher node with a destination that can roll back.

TFX's filesystem pusher names versions by the clock and keeps no history, and its Vertex pusher
makes a new model each time; ours asks the registry at a path or URI for the next version, which
stages and verifies before anything points to it.
"""

from collections.abc import Sequence
from pathlib import Path

from tfx.components.pusher import executor as pusher_executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.decisions import read_decision
from evaluation.outcome import Decision, Refused
from schema import places


class Executor(pusher_executor.Executor):
    """Pushes what the gate passed; anything else is an error, never a silent skip."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 (TFX's name)
        """Registers the model and makes it live."""
        from registry.opening import open_registry

        if not self.CheckBlessing(input_dict):
            raise Refused("The Pusher was asked to push a model that the gate did not pass.")
        blessing = artifact_utils.get_single_instance(input_dict["model_blessing"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        decision = read_decision(blessing.uri)
        registry = open_registry(
            exec_properties["registry"], exec_properties["model_name"], create=True
        )
        with places.fetched(self.GetModelPath(input_dict)) as folder:
            _check_content(folder, decision)
            version = registry.push(
                str(folder),
                metrics=decision.metrics,
                lineage={
                    "run_id": self._context.pipeline_run_id if self._context else None,
                    "model_uri": model.uri,
                    "artifact_id": model.id,
                    "classes": exec_properties["classes"].split(","),
                },
                reason="passed the model gate",
                who="pipeline",
            )
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        self._MarkPushed(
            pushed,
            pushed_destination=registry.uri(version.number),
            pushed_version=str(version.number),
        )


def _check_content(folder: Path, decision: Decision) -> None:
    """Only the very files that were tried out may go further."""
    from registry import manifest

    found = manifest.content_digest(manifest.inventory(folder))
    if decision.details.get("content") != found:
        raise Refused(
            f"The model in {folder} is not the one that the serving check tried out (content "
            f"{found[:12]}, tried out: {str(decision.details.get('content'))[:12]}). Run the "
            "pipeline again: `cortexflow run` with the same settings."
        )


class RegistryPusherSpec(ComponentSpec):
    """`classes` are names joined by commas."""

    PARAMETERS = {  # noqa: RUF012 (TFX reads it from the class)
        "registry": ExecutionParameter(type=str),
        "model_name": ExecutionParameter(type=str),
        "classes": ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS = {  # noqa: RUF012
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)
    }


class RegistryPusher(base_component.BaseComponent):
    """TFX node: pushes into the registry at `registry` under `model_name`.

    `registry` is a folder, `gs://BUCKET/PATH` or `vertex://PROJECT/LOCATION/MODEL`.
    """

    SPEC_CLASS = RegistryPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        model_blessing: BaseChannel,
        *,
        registry: str | RuntimeParameter,
        model_name: str | RuntimeParameter,
        classes: Sequence[str],
    ):
        """Takes the student, the gate's blessing, and the class names for the lineage."""
        super().__init__(
            RegistryPusherSpec(
                model=model,
                model_blessing=model_blessing,
                registry=registry,
                model_name=model_name,
                classes=",".join(classes),
                pushed_model=Channel(type=standard_artifacts.PushedModel),
            )
        )
