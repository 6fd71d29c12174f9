"""TFX's Evaluator, beside a baseline that need not be there.

On a cluster LiveModel's output exists even when nothing is live yet; then it is an empty folder.
"""

from tfx.components.evaluator import component as evaluator_component
from tfx.components.evaluator import executor as evaluator_executor
from tfx.dsl.components.base import executor_spec
from tfx.types import standard_component_specs as keys

from components.live_model import holds_model


class Executor(evaluator_executor.Executor):
    """Leaves an empty baseline out."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 (TFX's name)
        """Evaluates the candidate, and the baseline if there is one."""
        baselines = input_dict.get(keys.BASELINE_MODEL_KEY) or []
        if baselines and not holds_model(baselines[0]):
            input_dict = {k: v for k, v in input_dict.items() if k != keys.BASELINE_MODEL_KEY}
        super().Do(input_dict, output_dict, exec_properties)


class Evaluator(evaluator_component.Evaluator):
    """TFX node; inputs and outputs are those of TFX's Evaluator."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
