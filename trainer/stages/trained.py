"""What every stage hands back."""

from dataclasses import dataclass, field
from typing import Any

import keras

from trainer.config import Settings


@dataclass(frozen=True)
class Trained:
    """A model at the end of its stage.

    Attributes:
        kind: a key of `trainer.architectures.KINDS`.
        model: with the weights to keep.
        architecture: from which it can be built again.
        history: one dict per epoch.
        temperature: divides the logits before the softmax.
        calibration: what the temperature does (`trainer.calibration.calibrated`).
        quantized: a student's copy trained for int8 (`trainer.quantization.QuantizedStudent`).
    """

    kind: str
    model: keras.Model
    architecture: Settings
    history: list[dict[str, Any]]
    temperature: float = 1.0
    calibration: dict[str, float] = field(default_factory=dict)
    quantized: keras.Model | None = None
