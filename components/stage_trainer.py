"""StageTrainer: TFX's Trainer with the knobs of its stage as parameters of the node.

A knob may be a runtime parameter of a compiled pipeline; its value overrides what the stage's
settings say. Locally there are none. With several workers the node hands over to a distributed job
(components/distributed_trainer.py).
"""

from collections.abc import Mapping
from typing import Any

from tfx.components.trainer import component as trainer_component
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import json_utils

from components.distributed_trainer import Executor as TrainerExecutor
from trainer.knobs import KNOBS, turned

RUN_FN = "trainer.run_fn.run_fn"
CUSTOM = standard_component_specs.CUSTOM_CONFIG_KEY
CHECKPOINTS = "checkpoint_root"


class Executor(TrainerExecutor):
    """Turns the knobs, then trains."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 (TFX's name)
        """Trains one stage and exports its model."""
        exec_properties = dict(exec_properties)
        config = json_utils.loads(exec_properties[CUSTOM])
        knobs = {name: exec_properties.pop(name, None) for name in KNOBS}
        config["stage"] = turned(config["stage"], knobs)
        config[CHECKPOINTS] = exec_properties.pop(CHECKPOINTS, None) or config.get(CHECKPOINTS)
        exec_properties[CUSTOM] = json_utils.dumps(config)
        super().Do(input_dict, output_dict, exec_properties)


class StageTrainerSpec(standard_component_specs.TrainerSpec):
    """TFX's, and one optional parameter per knob."""

    PARAMETERS = {  # noqa: RUF012 (TFX reads it from the class)
        **standard_component_specs.TrainerSpec.PARAMETERS,
        **{name: ExecutionParameter(type=kind, optional=True) for name, (_, kind) in KNOBS.items()},
        CHECKPOINTS: ExecutionParameter(type=str, optional=True),
    }


class StageTrainer(trainer_component.Trainer):
    """TFX node: trains one of the stages pretrain, finetune, distil (trainer/run_fn.py)."""

    SPEC_CLASS = StageTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        *,
        train_splits: list[str],
        eval_splits: list[str],
        custom_config: dict[str, Any],
        base_model: BaseChannel | None = None,
        parameters: Mapping[str, Any] | None = None,
    ):
        """Trains on some splits, choosing by others.

        Args:
            examples: with descriptors or without.
            train_splits: names of the splits to train on.
            eval_splits: names of the splits to choose by.
            custom_config: as trainer/run_fn.py reads it.
            base_model: what the stage starts from.
            parameters: knobs and `checkpoint_root`, each a value or a runtime parameter.
        """
        base_component.BaseComponent.__init__(
            self,
            StageTrainerSpec(
                examples=examples,
                base_model=base_model,
                train_args=trainer_pb2.TrainArgs(splits=train_splits),
                eval_args=trainer_pb2.EvalArgs(splits=eval_splits),
                run_fn=RUN_FN,
                custom_config=json_utils.dumps(custom_config),
                model=Channel(type=standard_artifacts.Model),
                model_run=Channel(type=standard_artifacts.ModelRun),
                **(parameters or {}),
            ),
        )
