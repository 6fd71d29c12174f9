"""Resumable training state: after a kill, the next run goes on from the last epoch saved.

A state holds the model, the optimizer, the best weights so far and the history. Every random draw
is a function of (seed, stage, epoch, step), so the epoch is all there is to know of randomness, and
a resumed run on one CPU ends with the weights of a run that was never interrupted.

A stage that ends keeps its state: until the pipeline has recorded the model, a kill makes it run
the stage again, which then has nothing left to train. What this costs in space is bounded by
`make_room`.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainer.config import StageSettings

ARRAYS, STATE = "arrays.npz", "state.json"
PREFIX = "epoch-"
OTHERS_KEPT = 2  # states of a stage beside the one in use
# Settings that leave the weights as they are. `litert` bounds the check of the exported student:
# whoever loosens it after a failed check must not pay for the training again.
NOT_TRAINING = {"checkpoint_every_epochs", "litert"}


@dataclass
class TrainingState:
    """What changes from epoch to epoch besides the weights.

    Attributes:
        epoch: epochs done.
        history: one dict per epoch done.
        best_epoch: the epoch with the best validation score, from 1; 0 before any.
        best_score: its score, greater is better, compared entry by entry.
        best_weights: the model's weights then; empty where there is no validation.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    best_weights: list[np.ndarray] = field(default_factory=list)


def fingerprint(
    settings: StageSettings,
    inputs: Sequence[tuple[str, str]],
    base_digest: str | None,
    code_digest: str | None,
) -> str:
    """What must be equal for a checkpoint to be continued.

    Args:
        settings: the stage's; those that do not change the weights do not count.
        inputs: name and SHA-256 of every input file.
        base_digest: SHA-256 of the base model's weights, if there is one.
        code_digest: hash of the code that trains, if the caller knows it.

    Returns:
        16 hex digits.
    """
    document = {
        "settings": settings.model_dump(mode="json", exclude=NOT_TRAINING),
        "inputs": sorted(map(list, inputs)),
        "base": base_digest,
        "code": code_digest,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def save(
    folder: Path, state: TrainingState, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> None:
    """Writes the state beside its place, renames it there, then drops older ones."""
    final = folder / f"{PREFIX}{state.epoch:06d}"
    partial = folder / f"partial-{state.epoch:06d}"
    for leftover in (partial, final):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    groups = {
        "model": model.weights,
        "optimizer": optimizer.variables,
        "best": state.best_weights,
    }
    with (partial / ARRAYS).open("wb") as file:
        np.savez(
            file,
            **{
                f"{group}/{position:04d}": np.asarray(value)
                for group, values in groups.items()
                for position, value in enumerate(values)
            },
        )
    document = {
        "epoch": state.epoch,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best_score": state.best_score,
    }
    (partial / STATE).write_text(json.dumps(document))
    partial.rename(final)
    for older in folder.iterdir():
        if older != final:
            shutil.rmtree(older, ignore_errors=True)


def restore(
    folder: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> TrainingState:
    """Sets model and optimizer to the newest state saved.

    Args:
        folder: where `save` wrote; need not exist.
        model: of the architecture saved.
        optimizer: built for the model's trainable variables.

    Returns:
        The state; a fresh one when there is nothing to continue.
    """
    saved = sorted(folder.glob(f"{PREFIX}*"))
    if not saved:
        return TrainingState()
    with np.load(saved[-1] / ARRAYS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in sorted(stored.files)}

    def group(name: str) -> list[np.ndarray]:
        return [array for key, array in arrays.items() if key.startswith(name + "/")]

    for variables, values in (
        (model.weights, group("model")),
        (optimizer.variables, group("optimizer")),
    ):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    return TrainingState(**json.loads((saved[-1] / STATE).read_bytes()), best_weights=group("best"))


def make_room(folder: Path) -> None:
    """Deletes older states of a stage, before it starts.

    The newest others stay, since another run may be waiting to be resumed, or training right now.

    Args:
        folder: the state to be continued, `…/<stage>-<fingerprint>`; it always stays and need not
            exist.
    """
    stage = folder.name.rpartition("-")[0]
    others = [other for other in folder.parent.glob(f"{stage}-*") if other != folder]
    others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
    for old in others[OTHERS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
