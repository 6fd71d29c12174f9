"""Predictions of a registered version, through the signature that was evaluated."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry.opening import find
from schema.errors import CortexflowError

if TYPE_CHECKING:
    from serving.errors import ServingError


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One image's answer: probability per class, in the dataset's class order."""

    image: str
    probabilities: dict[str, float]

    @property
    def predicted(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one version said about some images."""

    model: str
    version: int
    predictions: tuple[Prediction, ...]


class NothingLive(CortexflowError):
    """The registry has no live version."""


class RefusedImage(CortexflowError):
    """A file is no image that may be predicted, or is unlike those the model was trained on."""


def predict_files(
    registry: Path,
    images: Sequence[Path],
    name: str | None = None,
    version: int | None = None,
    *,
    input_gate: bool = True,
) -> Answer:
    """Predicts PNG or JPEG files with a version of the registry, the live one by default.

    The files pass the server's own admission, with the version's input gate unless that is switched
    off, before TensorFlow sees them.

    Raises:
        NothingLive: no version is live and none was asked for.
        registry.interface.RegistryError: there is no such model or version.
        RefusedImage: a file is no sound PNG or JPEG image, or the input gate refuses it.
    """
    models = find(registry, name)
    if version is None:
        live = models.live()
        if live is None:
            raise NothingLive(
                f"No version of {models.name!r} is live in {registry}. Make one live with "
                "`cortexflow promote`, or name one with --version."
            )
        version = live.number
    models.verify(version)
    encoded = _admitted(models.path(version), images, input_gate)
    import tensorflow as tf

    model = tf.saved_model.load(str(models.path(version)))
    output = model.signatures["predict_images"](images=tf.constant(encoded))
    names = [name.decode() for name in model.class_names.numpy()]
    return Answer(
        models.name,
        version,
        tuple(
            Prediction(str(path), dict(zip(names, map(float, row), strict=True)))
            for path, row in zip(images, output["probabilities"].numpy(), strict=True)
        ),
    )


def _admitted(folder: Path, images: Sequence[Path], input_gate: bool) -> list[bytes]:
    """The files as the version may see them: decoded, judged, encoded anew."""
    from serving.admission import Admission
    from serving.config import Limits
    from serving.errors import ServingError
    from serving.runtime import CARD, read_card
    from trainer import input_gate as gates

    card, gate = folder / CARD, folder / gates.FILE
    admission = Admission(
        Limits(),
        read_card(card.read_bytes()).channels if card.exists() else 1,
        gates.load(gate) if input_gate and gate.exists() else None,
        describe=False,
    )
    admitted = admission.admit_many([[path.read_bytes()] for path in images])
    encoded = []
    for path, outcome in zip(images, admitted, strict=True):
        if isinstance(outcome, ServingError):
            hint = " Look at it, or give --no-input-gate." if _unlike(outcome) else ""
            raise RefusedImage(f"{path} is not predicted: {outcome}{hint}") from outcome
        encoded += outcome.encoded()
    return encoded


def _unlike(refusal: "ServingError") -> bool:
    return refusal.code == "out_of_distribution"
