"""Writes a model's input gate beside it, fitted on the images that trained the model."""

import logging
from collections.abc import Sequence
from pathlib import Path

from schema import descriptors
from trainer import examples
from trainer.config import InputGateSettings
from trainer.input_gate import FILE, InputGate, InputGateError
from trainer.input_gate_fit import MEASURED_IMAGES, fit_and_measure

HELD_OUT_IMAGES = 5 * MEASURED_IMAGES

log = logging.getLogger(__name__)


def export(
    folder: Path,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    settings: InputGateSettings,
) -> InputGate | None:
    """Fits the gate of a model on its training files and writes `input_gate.npz`.

    Images are measured as files, not as the network sees them: a server describes what it is
    sent, at the resolution at which it is sent.

    Args:
        folder: of the SavedModel.
        train_files: patterns of the files that trained it.
        eval_files: patterns of the validation split, on whose people the gate is measured.
        settings: of the gate.

    Returns:
        The gate, or None where there is none: it is switched off, examples name no people, or
        there are too few of them. The log says which.
    """
    if not settings.enabled:
        return None
    train = examples.read_encoded(train_files, settings.max_images)
    named = [place for place, subject in enumerate(train.subjects) if subject]
    if not named:
        log.warning(
            "No input gate: no training example names a subject, and its limits are found on "
            "people held out. The server will answer for any image that can be decoded."
        )
        return None
    held_out = examples.read_encoded(eval_files, HELD_OUT_IMAGES)
    try:
        gate = fit_and_measure(
            [descriptors.decode(train.images[place]) for place in named],
            [train.subjects[place] for place in named],
            [descriptors.decode(image) for image in held_out.images],
            settings,
        )
    except InputGateError as error:
        log.warning("No input gate: %s", error)
        return None
    gate.save(folder / FILE)
    log.info("Input gate: %s", {name: gate.report[name] for name in ("people", "false_rejection")})
    return gate
