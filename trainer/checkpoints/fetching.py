"""From the name of a checkpoint to a base model for fine-tuning, in one step."""

from collections.abc import Sequence
from pathlib import Path

from trainer.checkpoints.conversion import Converted, convert
from trainer.checkpoints.download import Progress, quiet
from trainer.checkpoints.locations import locate
from trainer.config import InputSettings


def fetch(
    text: str,
    cache: Path,
    settings: InputSettings,
    *,
    classes: Sequence[str] = (),
    progress: Progress = quiet,
) -> Converted:
    """Downloads, transfers, verifies and converts a checkpoint, as far as that is still to be done.

    Args:
        text: path, alias or address (`locations.locate`).
        cache: where downloads and converted models are kept.
        settings: what the network will see.
        classes: what the outputs of the checkpoint's supervised head mean (`conversion.convert`).
        progress: told of the file at hand, and of bytes done and in all.

    Returns:
        A model's folder as a Pretrainer exports it (`Format-Serving/`, `bundle/`), and whether
        anything was downloaded or converted for it.

    Raises:
        CheckpointError: it is not there, cannot be fetched, or is not what it should be.
    """
    found = locate(text, cache, progress)
    made = convert(found.path, cache / "models", settings, expected=found.expected, classes=classes)
    return made._replace(anew=made.anew or found.anew)
