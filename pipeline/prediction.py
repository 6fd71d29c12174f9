"""Predictions of a registered version, through the signature that was evaluated."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from registry.opening import find
from schema.errors import CortexflowError


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
    """A file is no image that may be predicted."""


def predict_files(
    registry: Path, images: Sequence[Path], name: str | None = None, version: int | None = None
) -> Answer:
    """Predicts PNG or JPEG files with a version of the registry, the live one by default.

    The files pass the same checks as at import before TensorFlow sees them.

    Raises:
        NothingLive: no version is live and none was asked for.
        registry.interface.RegistryError: there is no such model or version.
        RefusedImage: a file is no sound PNG or JPEG image.
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
    encoded = [_read(path) for path in images]
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


def _read(path: Path) -> bytes:
    from ingest.images import Quarantined, read_image

    image = read_image(path.read_bytes(), str(path))
    if isinstance(image, Quarantined):
        raise RefusedImage(
            f"{path} is not predicted: {image.reason} ({image.detail}) Give an 8-bit greyscale "
            "PNG or JPEG slice."
        )
    return image.data
