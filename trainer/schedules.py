"""Learning rates: SimCLR's scaling with the batch, and linear warm-up with cosine decay."""

import math

import keras
from keras import ops

from trainer.config import OptimizerSettings


def scaled_learning_rate(settings: OptimizerSettings, batch_size: int) -> float:
    """Learning rate after warm-up, for a global batch of `batch_size` (SimCLR, appendix B.1)."""
    factor = {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}
    return settings.learning_rate * factor[settings.lr_scaling]


@keras.saving.register_keras_serializable("cortexflow")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Rises from 0 to `peak` over `warmup_steps`, falls as a half cosine to 0 at `total_steps`.

    Step 0 of a warm-up has rate 0, and steps past the end have rate 0, as in the public SimCLR
    code.

    Raises:
        ValueError: the warm-up is negative or does not end before the last step.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                "Warm-up must end before training does. Received: "
                f"warmup_steps={warmup_steps}, total_steps={total_steps}. "
                "Lower warmup_epochs or raise epochs."
            )
        self.peak = float(peak)
        self.warmup_steps = int(warmup_steps)
        self.total_steps = int(total_steps)

    def __call__(self, step):
        """Rate at `step` (an integer tensor or number), a float32 scalar."""
        step = ops.cast(step, "float32")
        rising = step / max(self.warmup_steps, 1)
        decayed = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        falling = 0.5 * (1.0 + ops.cos(math.pi * ops.clip(decayed, 0.0, 1.0)))
        return self.peak * ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self):
        """The constructor's arguments."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }
