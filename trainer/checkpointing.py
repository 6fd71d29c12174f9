"""Resumable training state: after a kill, the next run goes on from the last state saved.

A state holds the model, the optimizer, the best weights so far, the history and the scalars of
every step. Every random draw is a function of (seed, stage, epoch, step), so epoch and step are all
there is to know of randomness, and a resumed run on one CPU ends with the weights of a run that was
never interrupted.

A state is one file, named after its place and the digest of its bytes. It is renamed into place
when it is complete and on disk; the one before it stays, for the day this one cannot be read. Where
states are kept behind an address, `trainer/remote_states.py` carries them.

A stage that ends keeps its state: until the pipeline has recorded the model, a kill makes it run
the stage again, which then has nothing left to train. What this costs in space is bounded by
`make_room`.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainer.config import StageSettings
from trainer.curves import Steps
from trainer.errors import StateError
from trainer.remote_states import RemoteFolder

LOG = logging.getLogger(__name__)

NAME = re.compile(r"epoch-(\d+)-step-(\d+)-([0-9a-f]{16})\.npz")
PARTIAL = "partial.npz"
DOCUMENT = "state"
KEPT = 2  # states of one training: the newest, and the one before it
OTHERS_KEPT = 2  # trainings of a stage whose states stay beside the one in use
# Settings that leave the weights as they are. `litert` bounds the check of the exported student:
# whoever loosens it after a failed check must not pay for the training again.
NOT_TRAINING = {
    "checkpoint_every_epochs",
    "checkpoint_every_seconds",
    "probe_every_epochs",
    "litert",
    "input_gate",
    "calibrate",
    "quantization_epochs",
}
# Settings of the execution that change results by rounding alone: a training may go on with other
# replicas than it began with. Where bit-identical results are asked for, they count.
ROUNDING = ("strategy", "replicas", "xla")


@dataclass
class TrainingState:
    """What changes from step to step besides the weights.

    Attributes:
        epoch: epochs done.
        step: steps done of the next epoch; all of them where only its validation is missing.
        seconds: how long these took.
        timed_steps: how many of them were not the first of their process, which compiles.
        timed_seconds: how long those took.
        history: one dict per epoch done.
        steps: the scalars of every step done, of all epochs.
        best_epoch: the epoch with the best validation score, from 1; 0 before any.
        best_score: its score, greater is better, compared entry by entry.
        best_weights: the model's weights then; empty where there is no validation.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: Steps = field(default_factory=dict)
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    best_weights: list[np.ndarray] = field(default_factory=list)


def fingerprint(
    settings: StageSettings,
    inputs: Sequence[tuple[str, str]],
    base_digest: str | None,
    code_digest: str | None,
    classes: Sequence[str],
) -> str:
    """What must be equal for a checkpoint to be continued.

    Args:
        settings: the stage's; those that do not change the weights do not count.
        inputs: name and SHA-256 of every input file.
        base_digest: SHA-256 of the base model, if there is one.
        code_digest: hash of the code that trains, if the caller knows it.
        classes: names that the outputs stand for, in their order; empty where none are learnt.

    Returns:
        16 hex digits.
    """
    chosen = settings.model_dump(mode="json", exclude=NOT_TRAINING)
    if not settings.execution.deterministic:
        for name in ROUNDING:
            del chosen["execution"][name]
    document = {
        "settings": chosen,
        "inputs": sorted(map(list, inputs)),
        "base": base_digest,
        "code": code_digest,
        "classes": list(classes),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def values(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """Variables as arrays; under several workers all of them must ask."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def save(
    folder: Path | RemoteFolder,
    state: TrainingState,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    write: bool = True,
) -> None:
    """Writes the state beside its place, renames it there, then drops older ones.

    Args:
        folder: of this training alone; a state of a remote one is copied up before this returns.
        state: beside the weights.
        model: as it is now.
        optimizer: as it is now.
        write: false where another worker writes, and this one only takes part in the reading.

    Raises:
        StateError: the file cannot be written; the states before it are as they were.
    """
    groups = {
        "model": values(model.variables),
        "optimizer": values(optimizer.variables),
        "best": state.best_weights,
    }
    if not write:
        return
    document = {
        "epoch": state.epoch,
        "step": state.step,
        "seconds": state.seconds,
        "timed_steps": state.timed_steps,
        "timed_seconds": state.timed_seconds,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best_score": state.best_score,
    }
    arrays = {
        f"{group}/{position:04d}": value
        for group, members in groups.items()
        for position, value in enumerate(members)
    }
    arrays |= {f"steps/{name}": np.asarray(column) for name, column in state.steps.items()}
    arrays[DOCUMENT] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    if isinstance(folder, RemoteFolder):
        _write(folder.local, arrays, state)
        with _told(folder, "kept"):
            folder.keep(NAME)
    else:
        _write(folder, arrays, state)


def _write(folder: Path, arrays: dict[str, np.ndarray], state: TrainingState) -> None:
    """Puts a state into its place, and drops those that it replaces."""
    partial = folder / PARTIAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        digest = _digest(partial)
        name = f"epoch-{state.epoch:06d}-step-{state.step:06d}-{digest}.npz"
        partial.rename(folder / name)
        _sync(folder)
    except OSError as error:
        partial.unlink(missing_ok=True)
        megabytes = sum(value.nbytes for value in arrays.values()) / 1e6
        raise StateError(
            f"The state of the training cannot be kept in {folder}: {error.strerror or error}. It "
            f"takes {megabytes:.1f} MB, and {KEPT} of them stay. Make room there and start the "
            "training again the same way; it goes on from the last state that was kept."
        ) from error
    _drop(folder, (state.epoch, state.step), folder / name)


def newest(folder: Path) -> Path | None:
    """The newest state that is whole; those that are not are named in a warning.

    Args:
        folder: where `save` wrote; need not exist.

    Raises:
        StateError: a state is there and may not be read.
    """
    for path in reversed(_saved(folder)):
        if _is_whole(path):
            return path
        LOG.warning("%s is damaged: its bytes are not those that were written. Left out.", path)
    return None


def load(path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> TrainingState:
    """Sets model and optimizer to a state.

    Args:
        path: a state that is whole.
        model: of the architecture saved.
        optimizer: built for the model's trainable variables.

    Raises:
        StateError: the state is of another architecture or optimizer.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}  # in the order written

    def group(name: str) -> dict[str, np.ndarray]:
        start = name + "/"
        return {key[len(start) :]: arrays[key] for key in arrays if key.startswith(start)}

    for owner, variables in (("model", model.variables), ("optimizer", optimizer.variables)):
        stored_values = list(group(owner).values())
        expected = [tuple(variable.shape) for variable in variables]
        received = [value.shape for value in stored_values]
        if expected != received:
            raise StateError(
                f"{path} is the state of another {owner}: it has {len(received)} variables, this "
                f"one {len(expected)}, or their shapes differ. Delete {path.parent} to train anew."
            )
        for variable, value in zip(variables, stored_values, strict=True):
            variable.assign(value)
    document = json.loads(arrays[DOCUMENT].tobytes())
    steps = {name: array("f", column.tobytes()) for name, column in group("steps").items()}
    return TrainingState(**document, steps=steps, best_weights=list(group("best").values()))


def restore(
    folder: Path | RemoteFolder, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> TrainingState:
    """Sets model and optimizer to the newest whole state.

    Args:
        folder: where `save` wrote; need not exist.
        model: of the architecture saved.
        optimizer: built for the model's trainable variables.

    Returns:
        The state; a fresh one when there is nothing to continue.

    Raises:
        StateError: the state is of another architecture, or may not be read.
    """
    if isinstance(folder, RemoteFolder):
        with _told(folder, "fetched"):
            folder.fetch(NAME)
        folder = folder.local
    path = newest(folder)
    return TrainingState() if path is None else load(path, model, optimizer)


def make_room(folder: Path | RemoteFolder) -> None:
    """Deletes older states of a stage, before it starts.

    The newest others stay, since another run may be waiting to be resumed, or training right now.

    Args:
        folder: the state to be continued, `…/<stage>-<fingerprint>`; it always stays and need not
            exist.

    Raises:
        StateError: they lie behind an address that cannot be read or written.
    """
    stage = folder.name.rpartition("-")[0]
    if isinstance(folder, RemoteFolder):
        with _told(folder, "looked for"):
            ours = [each for each in folder.neighbours() if each.name.startswith(f"{stage}-")]
            for each in ours[OTHERS_KEPT:]:
                each.remove()
        return
    others = [other for other in folder.parent.glob(f"{stage}-*") if other != folder]
    others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
    for old in others[OTHERS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _told(folder: RemoteFolder, what: str) -> Iterator[None]:
    """An address that fails, in the words of a training."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"The states of the training cannot be {what} at {folder.address}: {error}. See that "
            "it can be reached, and start the training again the same way; it goes on from the "
            "last state that was kept there."
        ) from error


def _is_whole(path: Path) -> bool:
    """Whether a state's bytes are those that were written.

    Raises:
        StateError: it is there and may not be read.
    """
    named = NAME.fullmatch(path.name)
    try:
        return named is not None and _digest(path) == named[3]
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}.") from error


def _saved(folder: Path) -> list[Path]:
    """States of a training, oldest first."""
    found = [path for path in folder.glob("epoch-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_position(path), path.stat().st_mtime))


def _drop(folder: Path, now: tuple[int, int], newest_state: Path) -> None:
    """Keeps the newest state and those just before it; what claims to be later was damaged."""
    earlier = [path for path in _saved(folder) if path != newest_state and _position(path) <= now]
    kept = {newest_state, *earlier[len(earlier) - (KEPT - 1) :]}
    for path in _saved(folder):
        if path not in kept:
            path.unlink(missing_ok=True)


def _position(path: Path) -> tuple[int, int]:
    """Epochs done and steps done of the next one, as a state's name tells them."""
    epoch, step, _ = NAME.fullmatch(path.name).groups()  # type: ignore[union-attr]
    return int(epoch), int(step)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sync(folder: Path) -> None:
    """Makes the names in a folder outlast a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
