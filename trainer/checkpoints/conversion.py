"""From a checkpoint on this machine to a model's folder as a Pretrainer exports one.

The folder (`Format-Serving/`, `bundle/`, `transfer.json`) appears complete or not at all, and only
when the network answers as the original does. It is found again by the checkpoint's content.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from trainer import bundle, export
from trainer.architectures import Teacher, TeacherArchitecture, build
from trainer.bundle import Description
from trainer.checkpoints import verification
from trainer.checkpoints.errors import CheckpointError
from trainer.checkpoints.locking import locked
from trainer.checkpoints.report import TransferReport, Verification
from trainer.checkpoints.stored import read
from trainer.checkpoints.transfer import Transferred, set_variable, to_channels, transfer
from trainer.config import SMALLEST_IMAGE, BackboneSettings, InputSettings, ProjectionSettings

LOG = logging.getLogger(__name__)

SERVING, BUNDLE, REPORT = "Format-Serving", "bundle", "transfer.json"
_VERSION = 1  # of this code: another number converts anew
_BLOCK = 1 << 20


class Converted(NamedTuple):
    """A model's folder, and whether anything had to be made for it."""

    folder: Path
    anew: bool


def convert(
    location: Path,
    cache: Path,
    settings: InputSettings,
    *,
    expected: BackboneSettings | None = None,
    classes: Sequence[str] = (),
) -> Converted:
    """Makes a checkpoint a base model for fine-tuning, unless that was done before.

    Args:
        location: any form that `stored.read` knows, or a model's folder of ours.
        cache: where converted models are kept, by content.
        settings: what the network will see: any size of 32 pixels or more, 1 or 3 channels.
        expected: the backbone that must be there.
        classes: what the outputs of the checkpoint's supervised head mean, in order; the result is
            then a teacher, else an encoder, and the head is left behind. A model of ours knows.

    Returns:
        The folder, and whether it was made now; of a model of ours that sees these settings
        already, its own.

    Raises:
        CheckpointError: nothing that can be used is there; names the variable that does not fit.
        VerificationError: the network would not answer as the original does.
    """
    if settings.image_size < SMALLEST_IMAGE:
        raise CheckpointError(
            f"A ResNet sees images of {SMALLEST_IMAGE} pixels or more (received input.image_size="
            f"{settings.image_size}). Set input.image_size={SMALLEST_IMAGE} or more."
        )
    own = is_model_folder(location)
    if own:
        description = describe(location)
        _check_classes(location, description, classes)
        if expected is None and description.input == settings:
            return Converted(location, anew=False)
    origin = location if own else read(location).origin
    folder = cache / _key(origin, settings, expected, classes)
    with locked(folder, LOG):
        anew = not (folder / REPORT).is_file()
        if anew:
            make = _from_own if own else _from_stored
            make(location, folder, settings, expected, tuple(classes))
    doubt = unverified(folder)
    if doubt:
        LOG.warning("%s is %s", origin, doubt)
    return Converted(folder, anew)


def inspect(location: Path, expected: BackboneSettings | None = None) -> TransferReport:
    """What a conversion would take from a checkpoint of the public code, without writing anything.

    Raises:
        CheckpointError, VerificationError: as `convert`.
    """
    stored = read(location)
    transferred = transfer(stored, InputSettings(image_size=64, channels=3), expected)
    # The supervised head is left out, as it is by a conversion that is given no class names.
    checked, _ = verification.against_saved_model(
        transferred, stored.saved_model, channels=3, with_head=False
    )
    return _report(str(stored.origin), stored.format, stored.by, transferred, checked)


def is_model_folder(location: Path) -> bool:
    """Whether a folder is a model as our stages export it."""
    return (location / BUNDLE / bundle.MODEL).is_file()


def describe(folder: Path) -> Description:
    """What a model's folder of ours holds, without its weights.

    Raises:
        CheckpointError: `bundle/model.json` cannot be read.
    """
    path = folder / BUNDLE / bundle.MODEL
    try:
        return Description.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} describes no model: {error}.") from error


def unverified(folder: Path) -> str:
    """Why nobody compared the answers of a converted model with the original's; "" if one did."""
    path = folder / REPORT
    found = json.loads(path.read_text()).get("verification") if path.is_file() else None
    checked = Verification(**found) if found else None
    return "" if checked is None or checked.verified else str(checked)


def projection_layers(folder: Path) -> int:
    """Layers of the projection head in a model's folder of ours; 0 when it has none."""
    description = describe(folder)
    projection = description.architecture.get("projection")
    lacks = description.kind == "teacher" and not description.architecture["ft_proj_selector"]
    return 0 if projection is None or lacks else int(projection["layers"])


def _from_stored(
    location: Path,
    folder: Path,
    settings: InputSettings,
    expected: BackboneSettings | None,
    classes: tuple[str, ...],
) -> None:
    stored = read(location)
    LOG.info("reading %s", stored.origin)
    transferred = transfer(stored, settings, expected)
    LOG.info("comparing answers with the original's")
    checked, selector = verification.against_saved_model(
        transferred, stored.saved_model, settings.channels, with_head=bool(classes)
    )
    report = _report(str(stored.origin), stored.format, stored.by, transferred, checked)
    kind, model, architecture = "encoder", transferred.encoder, transferred.architecture
    if classes:
        kind, architecture = "teacher", _teacher_architecture(transferred, classes, selector)
        model = _teacher(transferred, architecture, settings)
    description = Description(
        kind=kind,
        architecture=architecture.model_dump(mode="json"),
        input=settings,
        classes=classes,
        stage={"checkpoint": str(stored.origin), "format": stored.format},
    )
    _write(folder, model, description, [], report.json())


def _from_own(
    location: Path,
    folder: Path,
    settings: InputSettings,
    expected: BackboneSettings | None,
    classes: tuple[str, ...],
) -> None:
    """The same model for images of another size or of other channels."""
    original = bundle.load(location / BUNDLE)
    kind, before = original.description.kind, original.description.input
    if kind not in ("encoder", "teacher"):
        raise CheckpointError(
            f"{location} holds a {kind}; fine-tuning starts from an encoder or a teacher."
        )
    architecture = original.model.architecture
    if expected is not None and expected != architecture.backbone:
        raise CheckpointError(
            f"{location} holds the backbone {architecture.backbone}, not {expected}."
        )
    model = build(kind, architecture, settings)
    for ours, theirs in zip(model.weights, original.model.weights, strict=True):
        value = np.asarray(theirs)
        if value.shape != tuple(ours.shape):  # the first kernel alone depends on the channels
            value, _ = to_channels(value, settings.channels)
        set_variable(ours, value)
    grey = before.channels != settings.channels
    images = verification.probe(1 if grey else settings.channels)
    shown = {c: np.repeat(images, c, -1) if grey and c == 3 else images for c in (1, 3)}
    checked = verification.compare(
        _answers(model, shown[settings.channels]),
        _answers(original.model, shown[before.channels]),
        str(location),
    )
    description = original.description.model_copy(update={"input": settings})
    record = {"origin": str(location), "format": "a model of ours", "errors": checked.errors}
    _write(folder, model, description, list(original.history), json.dumps(record, indent=1))


def _check_classes(location: Path, description: Description, classes: Sequence[str]) -> None:
    if classes and tuple(classes) != description.classes:
        raise CheckpointError(
            f"{location} knows the classes {list(description.classes)} (received "
            f"{list(classes)}). Leave them out: a model of ours knows its classes."
        )


def _answers(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    outputs = model(images, training=False)
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    return {name: np.asarray(value) for name, value in outputs.items()}


def _teacher_architecture(
    transferred: Transferred, classes: tuple[str, ...], selector: int | None
) -> TeacherArchitecture:
    head, encoder = transferred.head, transferred.encoder
    if head is None:
        raise CheckpointError(
            f"Class names were given ({', '.join(classes)}), but the checkpoint has no supervised "
            "head whose outputs they could name. Leave the names out."
        )
    if head.units != len(classes):
        raise CheckpointError(
            f"{len(classes)} class names were given ({', '.join(classes)}), but the supervised "
            f"head has {head.units} outputs. Name all of them in order, or none to leave the head."
        )
    if selector is None:
        # Told by no graph: the backbone where the head fits it, else the last layer that it fits.
        dense = encoder.projection.dense if encoder.projection is not None else []
        widths = [encoder.backbone.features, *(layer.kernel.shape[1] for layer in dense)]
        fitting = verification.layers_below_head(head, widths)
        selector = 0 if fitting[0] == 0 else fitting[-1]
    return TeacherArchitecture(
        backbone=transferred.architecture.backbone,
        projection=transferred.architecture.projection or ProjectionSettings(),
        ft_proj_selector=selector,
        classes=len(classes),
    )


def _teacher(
    transferred: Transferred, architecture: TeacherArchitecture, settings: InputSettings
) -> Teacher:
    model = build("teacher", architecture, settings)
    assert isinstance(model, Teacher)
    pairs = [(model.backbone, transferred.encoder.backbone), (model.head, transferred.head)]
    if model.projection is not None:
        pairs.append((model.projection, transferred.encoder.projection))
    for target, source in pairs:
        target.set_weights(source.get_weights())
    return model


def _report(
    origin: str,
    form: str,
    by: str,
    transferred: Transferred,
    checked: Verification,
) -> TransferReport:
    projection, head = transferred.architecture.projection, transferred.head
    return TransferReport(
        origin=origin,
        format=form,
        matched_by=by,
        backbone=transferred.architecture.backbone,
        projection_layers=projection.layers if projection else 0,
        head_outputs=head.units if head is not None else None,
        used=transferred.used,
        unused=transferred.unused,
        missing=transferred.missing,
        verification=checked,
    )


def _write(
    folder: Path,
    model: keras.Model,
    description: Description,
    history: list[dict[str, Any]],
    report: str,
) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    LOG.info("writing %s", folder)
    bundle.save(partial / BUNDLE, model, description, history)
    export.save(
        partial / SERVING, model, description.input, description.classes, description.temperature
    )
    (partial / REPORT).write_text(report)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _key(
    origin: Path,
    settings: InputSettings,
    expected: BackboneSettings | None,
    classes: Sequence[str],
) -> str:
    """Content of the checkpoint, and all that decides what is made of it."""
    digest = hashlib.sha256()
    for path in _files(origin):
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    asked = expected.model_dump_json() if expected else ""
    digest.update(repr((_VERSION, bundle.FORMAT, asked, tuple(classes))).encode())
    return f"{digest.hexdigest()[:16]}-{settings.image_size}px-{settings.channels}ch"


def _files(origin: Path) -> list[Path]:
    if origin.is_dir():
        return sorted(path for path in origin.rglob("*") if path.is_file())
    return sorted(origin.parent.glob(f"{origin.name}.*"))
