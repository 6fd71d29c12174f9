"""TFX's Trainer, whose node may hand over to a distributed job."""

from typing import Any

from tfx.components.trainer import executor as trainer_executor
from tfx.dsl.io import fileio
from tfx.utils import json_utils

from components.distributed_training import HANDOVER, TrainingJobError, hand_over


class Executor(trainer_executor.GenericExecutor):
    """Trains in this process, unless `custom_config` holds `distributed`."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Trains one stage and exports its model."""
        config = json_utils.loads(exec_properties["custom_config"]) or {}
        if not config.get(HANDOVER):
            super().Do(input_dict, output_dict, exec_properties)
            return
        self._log_startup(input_dict, output_dict, exec_properties)
        fn_args = self._GetFnArgs(input_dict, output_dict, exec_properties)
        hand_over(fn_args, config[HANDOVER])
        if not fileio.exists(fn_args.serving_model_dir):
            raise TrainingJobError(
                f"The workers ended well, but no model is at {fn_args.serving_model_dir}. They and "
                "this node must see the same place: a bucket as the pipeline's root, or a volume "
                "that all mount (cluster.volume)."
            )
