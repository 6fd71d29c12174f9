"""A trained model as plain files: `model.json`, `weights.npz` and `history.json`.

No code and no pickle travels with the weights: `model.json` names a registered kind of network and
its settings, from which `load` builds it again. The folder appears complete or not at all.
"""

import hashlib
import json
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from pydantic import Field, PositiveFloat, ValidationError

from trainer import architectures
from trainer.config import InputSettings, Settings
from trainer.errors import BundleError

FORMAT = 1
MODEL, WEIGHTS, HISTORY = "model.json", "weights.npz", "history.json"


class Description(Settings):
    """All of a model but its weights.

    Attributes:
        kind: a key of `trainer.architectures.KINDS`.
        architecture: settings of that kind.
        input: what the network sees.
        classes: names in the order of the outputs; empty for an encoder.
        severity: the classes in ordinal order, or `None`.
        stage: the settings it was trained with, for the record.
        temperature: probabilities are `softmax(logits / temperature)`; 1 in bundles that do not
            name it.
        calibration: what the temperature did to log-loss and calibration error on the people it
            was fitted on (`trainer.calibration.calibrated`); empty where none was fitted.
    """

    format: int = FORMAT
    kind: str
    architecture: dict[str, Any]
    input: InputSettings
    classes: tuple[str, ...] = ()
    severity: tuple[str, ...] | None = None
    stage: dict[str, Any] = Field(default_factory=dict)
    temperature: PositiveFloat = 1.0
    calibration: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A model, what describes it, and how it was trained (one dict per epoch).

    `digest` is a SHA-256 of all that a later stage takes over: the weights, what network they are
    of, what it sees and the names of its classes.
    """

    model: keras.Model
    description: Description
    history: tuple[dict[str, Any], ...]
    digest: str


def beside(serving_model_dir: str) -> Path:
    """The bundle's folder next to a SavedModel's: `…/Format-Serving` → `…/bundle`."""
    return Path(os.path.dirname(serving_model_dir.rstrip("/"))) / "bundle"


def save(
    path: Path, model: keras.Model, description: Description, history: list[dict[str, Any]]
) -> None:
    """Writes a bundle beside its place and renames it there, replacing what was there."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / MODEL).write_text(description.model_dump_json(indent=2) + "\n")
    (partial / HISTORY).write_text(json.dumps(history, indent=1) + "\n")
    with (partial / WEIGHTS).open("wb") as file:
        np.savez(file, **weights(model))
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def load(path: Path, *, kind: str | None = None) -> Bundle:
    """Builds the model again and restores its weights.

    Args:
        path: the bundle's folder.
        kind: the kind it must be of; `None` accepts all.

    Raises:
        BundleError: there is no bundle, it is of another kind or format, or its weights do not fit
            its architecture.
    """
    path = Path(path)
    try:
        description = Description.model_validate_json((path / MODEL).read_bytes())
        history = tuple(json.loads((path / HISTORY).read_bytes()))
        digest = _digest(description, (path / WEIGHTS).read_bytes())
        with np.load(path / WEIGHTS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # pydantic's are ValueErrors
        raise BundleError(
            f"No sound model bundle in {path}: {error}. It needs {MODEL}, {WEIGHTS} and {HISTORY}, "
            "as the stage before writes them; run that stage again."
        ) from error
    _check_kind(description, kind, path)
    settings_type = architectures.KINDS[description.kind][0]
    try:
        architecture = settings_type.model_validate(description.architecture)
    except ValidationError as error:
        raise BundleError(f"{path / MODEL} describes no {description.kind}: {error}") from error
    model = architectures.build(description.kind, architecture, description.input)
    restore(model, arrays, origin=str(path / WEIGHTS))
    return Bundle(model, description, history, digest)


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Every weight, keyed by its position and its role, such as `0007/kernel`.

    Positions follow the order in which the layers were created; Keras' own names count up over the
    process and would differ from one run to the next.
    """
    return {
        f"{position:04d}/{weight.name}": np.asarray(weight)
        for position, weight in enumerate(model.weights)
    }


def restore(model: keras.Model, arrays: dict[str, np.ndarray], *, origin: str) -> None:
    """Sets every weight of the model from arrays named as `weights` names them.

    Raises:
        BundleError: a name or a shape differs.
    """
    expected = {name: array.shape for name, array in weights(model).items()}
    received = {name: array.shape for name, array in arrays.items()}
    if expected != received:
        differing = sorted(expected.items() ^ received.items())
        raise BundleError(
            f"{origin} does not fit the {model.name}: {len(differing)} names or shapes differ, "
            f"the first being {differing[:2]}. Train this stage again with the present code."
        )
    for weight, name in zip(model.weights, expected, strict=True):
        weight.assign(arrays[name])


def _digest(description: Description, stored: bytes) -> str:
    taken_over = description.model_dump_json(include={"kind", "architecture", "input", "classes"})
    return hashlib.sha256(taken_over.encode() + b"\0" + stored).hexdigest()


def _check_kind(description: Description, kind: str | None, path: Path) -> None:
    if description.format != FORMAT:
        raise BundleError(
            f"{path} has bundle format {description.format}; this version reads {FORMAT}."
        )
    if description.kind not in architectures.KINDS:
        raise BundleError(
            f"{path} holds a {description.kind!r}; known are {sorted(architectures.KINDS)}."
        )
    if kind is not None and description.kind != kind:
        raise BundleError(
            f"This stage starts from a {kind}, but {path} holds a {description.kind}. Connect the "
            f"stage to the node that trains the {kind}."
        )
