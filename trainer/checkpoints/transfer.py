"""Moves a checkpoint's variables into our network, each by its place, or refuses by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from trainer.architectures import Encoder, EncoderArchitecture, build
from trainer.checkpoints.aliases import architecture_of
from trainer.checkpoints.errors import CheckpointError
from trainer.checkpoints.inference import infer
from trainer.checkpoints.report import Unused, Used
from trainer.checkpoints.stored import Stored, StoredVariable
from trainer.config import BackboneSettings, InputSettings, ProjectionSettings
from trainer.heads import SupervisedHead
from trainer.resnet import BASIC_DEPTHS, ReferenceVariable

_PROJECTION = re.compile(r"(?:_projection_head/linear_layers/|head_contrastive/nl_)(\d+)/(.*)")
_SUPERVISED = ("supervised_head/linear_layer/dense/", "head_supervised/linear_layer/dense/")
How = Literal["copied", "folded", "spread"]


@dataclass(frozen=True)
class Transferred:
    """Our network with the checkpoint's weights.

    Attributes:
        encoder: backbone, and the projection head where the checkpoint has one.
        head: the supervised head, or None.
        architecture: of the encoder.
        used: variables that were taken.
        unused: those that were not.
        missing: parts that the checkpoint lacks.
    """

    encoder: Encoder
    head: SupervisedHead | None
    architecture: EncoderArchitecture
    used: tuple[Used, ...]
    unused: tuple[Unused, ...]
    missing: tuple[str, ...]


def transfer(
    stored: Stored, settings: InputSettings, expected: BackboneSettings | None = None
) -> Transferred:
    """Builds the network that a checkpoint holds, and fills all of it.

    Args:
        stored: the checkpoint's variables.
        settings: what the network will see; with one channel, the first kernel is summed over its
            input channels, which leaves the answer on grey images as it was.
        expected: the backbone that must be there; None takes what the shapes tell.

    Raises:
        CheckpointError: there is no backbone, it is another one than expected, or a variable is
            missing, of another shape, unreadable or not finite; the message names the variable.
    """
    found = infer([kernel.shape for kernel in stored.kernels()])
    backbone = expected or found
    if backbone is None:
        seen = ", ".join(variable.name for variable in stored.others[:3]) or "nothing"
        raise CheckpointError(
            f"{stored.origin} ({stored.format}) holds no SimCLR backbone (it holds {seen}, …). "
            "Needed are variables such as base_model/conv2d/kernel, or objects such as "
            "model/resnet_model/initial_conv_relu_max_pool/0/conv2d/kernel."
        )
    projection, outputs = _projection(stored), _head_shape(stored, backbone)
    architecture = EncoderArchitecture(backbone=backbone, projection=projection)
    encoder = build("encoder", architecture, settings)
    assert isinstance(encoder, Encoder)
    references = encoder.backbone.reference_variables()
    if encoder.projection is not None:
        references += encoder.projection.reference_variables()
    head = None
    if outputs is not None:
        head = SupervisedHead(outputs[1])
        head.build((None, outputs[0]))
        references += head.reference_variables()
    _check(stored, references, backbone, found)
    used = [_assign(stored, reference) for reference in references]
    taken = {stored.variables[getattr(reference, stored.by)].key for reference in references}
    spare = {v.key: v for v in stored.variables.values() if v.key not in taken}
    unused = (
        *(Unused(v.name, v.shape, "no place in this network") for v in spare.values()),
        *(Unused(v.name, v.shape, "an optimizer's or a counter's") for v in stored.others),
    )
    missing = []
    if projection is None:
        missing.append("projection head (the network gives embeddings alone)")
    if outputs is None:
        missing.append("supervised head")
    return Transferred(encoder, head, architecture, tuple(used), unused, tuple(missing))


def to_channels(kernel: np.ndarray, channels: int) -> tuple[np.ndarray, How]:
    """A first kernel `[h, w, C, out]` for images of other channels, equal on grey images.

    Returns:
        `[h, w, channels, out]`: as it was, or summed over its input channels and spread evenly.
    """
    if kernel.shape[2] == channels:
        return kernel, "copied"
    folded = kernel.astype(np.float64).sum(axis=2, keepdims=True).astype(kernel.dtype)
    if channels == 1:
        return folded, "folded"
    return np.repeat(folded / channels, channels, axis=2), "spread"


def _projection(stored: Stored) -> ProjectionSettings | None:
    """The head that the variables found belong to; whether they are all there is checked later."""
    found = [
        (int(match[1]), variable.shape)
        for place, variable in stored.variables.items()
        if (match := _PROJECTION.fullmatch(place)) is not None
    ]
    if not found:
        return None
    last = max(layer for layer, _ in found)
    widths = [shape[-1] for layer, shape in found if layer == last and shape]
    return ProjectionSettings(layers=last + 1, dim=max([*widths, 1]))


def _head_shape(stored: Stored, backbone: BackboneSettings) -> tuple[int, int] | None:
    """Inputs and outputs of the supervised head; of one that lost a variable, the likely ones."""
    found = {
        place.rsplit("/", 1)[1]: variable.shape
        for place, variable in stored.variables.items()
        if place.startswith(_SUPERVISED)
    }
    if not found:
        return None
    kernel, bias = found.get("kernel", ()), found.get("bias", ())
    if len(kernel) == 2:
        return kernel[0], kernel[1]
    expansion = 1 if backbone.depth in BASIC_DEPTHS else 4
    return round(512 * backbone.width) * expansion, max([*bias, 1])


def _check(
    stored: Stored,
    references: Sequence[ReferenceVariable],
    backbone: BackboneSettings,
    found: BackboneSettings | None,
) -> None:
    """Refuses the checkpoint when any variable is missing or of another shape."""
    problems = []
    for reference in references:
        wanted = tuple(reference.variable.shape)
        variable = stored.variables.get(getattr(reference, stored.by))
        if variable is None:
            problems.append(f"{reference.name} {list(wanted)} is missing")
        elif not _fits(variable.shape, wanted, first=reference is references[0]):
            problems.append(
                f"{reference.name} needs the shape {list(wanted)}, the file's "
                f"{variable.name} has {list(variable.shape)}"
            )
    if not problems:
        return
    asked = architecture_of(backbone)
    other = (
        f" By its shapes the file holds {architecture_of(found)}: ask for that one, or fetch "
        f"{asked}."
        if found is not None and found != backbone
        else " The file is not whole, or its variables were changed; fetch it again."
    )
    raise CheckpointError(
        f"{stored.origin} does not hold the network {asked}: {problems[0]}"
        + (f" ({len(problems) - 1} more variables do not fit)" if len(problems) > 1 else "")
        + f".{other}"
    )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...], *, first: bool) -> bool:
    if first and len(shape) == 4:  # the first kernel is made to fit other channels
        return shape[:2] + shape[3:] == wanted[:2] + wanted[3:] and shape[2] in (1, 3)
    return shape == wanted


def _assign(stored: Stored, reference: ReferenceVariable) -> Used:
    source = stored.variables[getattr(reference, stored.by)]
    value, how = _value(stored, source), "copied"
    if value.shape != tuple(reference.variable.shape):
        value, how = to_channels(value, reference.variable.shape[2])
    set_variable(reference.variable, value)
    return Used(reference.name, source.name, tuple(reference.variable.shape), how)


def set_variable(variable: keras.Variable, value: np.ndarray) -> None:
    """Assigns a value of the variable's shape, in the variable's type."""
    variable.assign(value.astype(variable.dtype))


def _value(stored: Stored, source: StoredVariable) -> np.ndarray:
    value = np.asarray(stored.value(source))
    if not np.isfinite(value.astype(np.float64)).all():
        raise CheckpointError(
            f"{stored.origin}: {source.name} {list(source.shape)} holds values that are not finite "
            "numbers. The training it came from diverged, or the file is damaged."
        )
    return value
