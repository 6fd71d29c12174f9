"""What every stage hands back."""

from dataclasses import dataclass
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
    """

    kind: str
    model: keras.Model
    architecture: Settings
    history: list[dict[str, Any]]
