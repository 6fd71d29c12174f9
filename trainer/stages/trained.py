"""What every stage hands back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from trainer.bundle import Bundle, Description
from trainer.config import Settings, StageSettings


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

    def described(
        self,
        settings: StageSettings,
        classes: Sequence[str] = (),
        severity: Sequence[str] | None = None,
    ) -> Description:
        """What is written beside the weights.

        Args:
            settings: the stage's.
            classes: names in the order of the outputs; none for an encoder.
            severity: the classes in ordinal order, or `None`.
        """
        return Description(
            kind=self.kind,
            architecture=self.architecture.model_dump(mode="json"),
            input=settings.input,
            classes=tuple(classes),
            severity=tuple(severity) if classes and severity else None,
            stage=settings.model_dump(mode="json"),
            temperature=self.temperature,
            calibration=self.calibration,
        )

    def as_bundle(self, settings: StageSettings, classes: Sequence[str] = ()) -> Bundle:
        """The model as the next stage takes it, without a detour over files."""
        description = self.described(settings, classes)
        return Bundle(self.model, description, tuple(self.history), digest="")
