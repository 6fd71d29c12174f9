"""The three networks of the method, each rebuilt from plain settings.

An encoder learns without labels, a teacher is an encoder with a classifier on it, a student is a
small CNN. What a bundle stores is the name of one of these kinds and the settings below.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from pydantic import Field, PositiveInt

from trainer.config import BackboneSettings, InputSettings, ProjectionSettings, Settings
from trainer.heads import ProjectionHead, SupervisedHead
from trainer.resnet import ResNet
from trainer.student import CELLS, Student


class EncoderArchitecture(Settings):
    """Backbone and projection head, as pretraining leaves them; some public ones lack the head."""

    backbone: BackboneSettings = BackboneSettings()
    projection: ProjectionSettings | None = ProjectionSettings()


class TeacherArchitecture(Settings):
    """Backbone, the `ft_proj_selector` lower layers of the projection head, and a classifier."""

    backbone: BackboneSettings = BackboneSettings()
    projection: ProjectionSettings = ProjectionSettings()
    ft_proj_selector: int = Field(0, ge=0)
    classes: PositiveInt


class StudentArchitecture(Settings):
    """Filters and pools of the stages, width of the hidden dense layer, outputs, its grid."""

    filters: tuple[PositiveInt, ...]
    dense: PositiveInt
    classes: PositiveInt
    pools: tuple[PositiveInt, ...] | None = None
    cells: PositiveInt = CELLS


class Encoder(keras.Model):
    """SimCLR's network: images to embeddings and to the projections that the loss compares."""

    def __init__(self, architecture: EncoderArchitecture):
        super().__init__(name="encoder")
        self.architecture = architecture
        self.backbone = ResNet(architecture.backbone)
        self.projection = (
            ProjectionHead(architecture.projection) if architecture.projection else None
        )

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Maps `float32[N, S, S, C]` to `embeddings` and `projections`, `float32[N, ·]`.

        Without a projection head there are no `projections`.
        """
        embeddings = self.backbone(images, training=training)["final_avg_pool"]
        if self.projection is None:
            return {"embeddings": embeddings}
        hiddens = self.projection(embeddings, training=training)
        return {"embeddings": embeddings, "projections": hiddens[-1]}


class Classifier(keras.Model):
    """What stands on a teacher's backbone: the lower projection layers and the supervised head."""

    def __init__(self, architecture: TeacherArchitecture):
        super().__init__(name="classifier")
        self._depth = architecture.ft_proj_selector
        self.projection = ProjectionHead(architecture.projection) if self._depth else None
        self.head = SupervisedHead(architecture.classes)

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps the backbone's `final_avg_pool`, `[N, D]`, to logits `float32[N, classes]`."""
        hidden = features
        if self.projection is not None:
            hidden = self.projection(hidden, training=training, depth=self._depth)[-1]
        return self.head(hidden)

    def freeze_unused(self) -> None:
        """Keeps the projection layers above the head from being trained or decayed."""
        if self.projection is not None:
            unused = slice(self._depth, None)
            for layer in (*self.projection.dense[unused], *self.projection.norms[unused]):
                layer.trainable = False


class Teacher(keras.Model):
    """A classifier on a backbone, or on a middle layer of its projection head (SimCLRv2, §2)."""

    def __init__(self, architecture: TeacherArchitecture):
        super().__init__(name="teacher")
        self.architecture = architecture
        self.backbone = ResNet(architecture.backbone)
        self.classifier = Classifier(architecture)

    @property
    def projection(self) -> ProjectionHead | None:
        """The projection head, all its layers; `None` where the head stands on the backbone."""
        return self.classifier.projection

    @property
    def head(self) -> SupervisedHead:
        """The linear classifier."""
        return self.classifier.head

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps `float32[N, S, S, C]` to logits `float32[N, classes]`."""
        return self.classifier(self.features(images, training=training), training=training)

    def features(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps `float32[N, S, S, C]` to what the classifier sees, `[N, D]`."""
        return self.backbone(images, training=training)["final_avg_pool"]


def _student(architecture: StudentArchitecture) -> keras.Model:
    return Student(**architecture.model_dump())


KINDS: dict[str, tuple[type[Settings], Callable[[Any], keras.Model]]] = {
    "encoder": (EncoderArchitecture, Encoder),
    "teacher": (TeacherArchitecture, Teacher),
    "student": (StudentArchitecture, _student),
}


def build(kind: str, architecture: Settings, settings: InputSettings, seed: int = 0) -> keras.Model:
    """Makes a network of a registered kind, its variables created.

    Args:
        kind: a key of `KINDS`.
        architecture: the settings that the kind takes.
        settings: what the network sees.
        seed: of the initial weights.

    Returns:
        A `keras.Model` to call as `model(images, training=False)`.
    """
    keras.utils.set_random_seed(seed)
    model = KINDS[kind][1](architecture)
    size, channels = settings.image_size, settings.channels
    model(tf.zeros((1, size, size, channels)), training=False)
    if isinstance(model, Teacher):
        model.classifier.freeze_unused()
    return model
