"""Pusher into our registry: TFX's Pusher node with a destination that can roll back.

TFX's filesystem pusher names versions by the clock and keeps no history, and its Vertex pusher
makes a new model each time; ours asks the registry at a path or URI for the next version, which
stages and verifies before anything points to it.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfx.components.pusher import component as pusher_component
from tfx.components.pusher import executor as pusher_executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils
from tfx.utils import io_utils, json_utils

from components.decisions import read_decision
from evaluation.outcome import Decision, Refused


class Executor(pusher_executor.Executor):
    """Pushes what the gate passed; anything else is an error, never a silent skip."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 (TFX's name)
        """Registers the model and makes it live."""
        from registry.opening import open_registry

        if not self.CheckBlessing(input_dict):
            raise Refused("The Pusher was asked to push a model that the gate did not pass.")
        settings = json_utils.loads(exec_properties["custom_config"])
        blessing = artifact_utils.get_single_instance(input_dict["model_blessing"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        decision = read_decision(blessing.uri)
        registry = open_registry(settings["registry"], settings["model_name"], create=True)
        with _local(self.GetModelPath(input_dict)) as folder:
            _check_content(folder, decision)
            version = registry.push(
                folder,
                metrics=decision.metrics,
                lineage={
                    "run_id": self._context.pipeline_run_id if self._context else None,
                    "model_uri": model.uri,
                    "artifact_id": model.id,
                    "classes": settings["classes"],
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


def _check_content(folder: str, decision: Decision) -> None:
    """Only the very files that were tried out may go further."""
    from registry import manifest

    found = manifest.content_digest(manifest.inventory(Path(folder)))
    if decision.details.get("content") != found:
        raise Refused(
            f"The model in {folder} is not the one that the serving check tried out (content "
            f"{found[:12]}, tried out: {str(decision.details.get('content'))[:12]}). Run the "
            "pipeline again: `cortexflow run` with the same settings."
        )


@contextlib.contextmanager
def _local(folder: str) -> Iterator[str]:
    """The model's folder on this machine; a copy where the pipeline's root is in the cloud."""
    if "://" not in folder:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="cortexflow-push-") as scratch:
        copy = os.path.join(scratch, "model")
        io_utils.copy_dir(folder, copy)
        yield copy


class RegistryPusher(pusher_component.Pusher):
    """TFX node: pushes into the registry at `registry` under `model_name`.

    `registry` is a folder, `gs://BUCKET/PATH` or `vertex://PROJECT/LOCATION/MODEL`.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self, model, model_blessing, *, registry: str, model_name: str, classes: Sequence[str]
    ):
        """Takes the student, the gate's blessing, and the class names for the lineage."""
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            custom_config={
                "registry": registry,
                "model_name": model_name,
                "classes": list(classes),
            },
        )
