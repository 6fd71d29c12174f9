"""What runs a version: one small protocol, and what a version says about itself in `serving.json`.

Neither needs TensorFlow: `serving/runtime_savedmodel.py` alone imports it, when a version can be
run in no other way.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from schema.errors import CortexflowError
from serving import preprocessing

CARD = "serving.json"
CARD_FORMAT = 1

Outputs = Mapping[str, NDArray[np.float32]]


class LoadError(CortexflowError):
    """A version cannot be served; the message says why."""


class Images(Protocol):
    """One request's admitted images (`serving.admission.Admitted`)."""

    @property
    def pixels(self) -> Sequence[NDArray[np.uint8]]:
        """uint8[H, W] or uint8[H, W, 3] each."""

    def encoded(self) -> Sequence[bytes]:
        """The same as PNG files."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Trusted images that need no admission: golden and synthetic ones.

    Attributes:
        pixels: uint8[H, W] or uint8[H, W, 3] each.
    """

    pixels: Sequence[NDArray[np.uint8]]

    def encoded(self) -> list[bytes]:
        """The same as PNG files."""
        return [preprocessing.stored(pixels) for pixels in self.pixels]


@dataclasses.dataclass(frozen=True)
class Card:
    """What a version says about itself.

    Attributes:
        classes: names, in the order of the outputs.
        image_size: side of what the network sees, in pixels.
        channels: 1 or 3.
    """

    classes: tuple[str, ...]
    image_size: int
    channels: int


class Runtime(Protocol):
    """One loaded version, ready for several worker threads.

    Attributes:
        name: `litert-int8`, `litert-float` or `savedmodel`.
        golden: name of its column in the golden batch.
        tolerance: most that a probability may differ from the golden one, on another CPU.
        classes: names, in the order of the outputs.
        channels: of the images, 1 or 3.
        outputs: names of what `run` gives.
        batches: several requests' images together take less time than one after another.
        cyclic: freeing it takes the cyclic garbage collector.
    """

    name: str
    golden: str
    tolerance: float
    classes: Sequence[str]
    channels: int
    outputs: Sequence[str]
    batches: bool
    cyclic: bool

    def run(self, worker: int, requests: Sequence[Images]) -> Outputs:
        """Answers all images of some requests, in order.

        Args:
            worker: number of the calling thread; no two threads pass the same at one time.
            requests: admitted images, at least one in all.

        Returns:
            Name → float32[N, C] over all images; `probabilities` always.
        """

    def close(self) -> None:
        """Frees the memory; nothing runs any more."""


def read_card(content: bytes) -> Card:
    """Reads `serving.json`.

    Raises:
        LoadError: it is not what our exporter writes.
    """
    try:
        fields: dict[str, Any] = json.loads(content)
        card = Card(
            classes=tuple(str(name) for name in fields["classes"]),
            image_size=int(fields["input"]["image_size"]),
            channels=int(fields["input"]["channels"]),
        )
        known = fields["format"] == CARD_FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{CARD} cannot be read ({type(error).__name__}: {error}).") from error
    if not known or not card.classes or card.image_size < 1 or card.channels not in (1, 3):
        raise LoadError(
            f"{CARD} does not describe a classifier in format {CARD_FORMAT} (received format "
            f"{fields['format']!r}, {len(card.classes)} class(es), image_size {card.image_size}, "
            f"channels {card.channels}). Export the model anew."
        )
    return card
