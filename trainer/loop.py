"""The epochs of a training, whatever the stage: shuffle, step, validate, record, save.

A stage hands over one compiled step and the order of its batches; the loop adds what every stage
needs alike: the best epoch, early stopping, the history, resumption and the end of a diverged run.
"""

import contextlib
import logging
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from trainer import checkpointing
from trainer.checkpointing import TrainingState
from trainer.config import ExecutionSettings
from trainer.errors import TrainingDiverged
from trainer.execution import Execution, Step

LOG = logging.getLogger(__name__)

Metrics = dict[str, Any]


class Progress(Protocol):
    """Hears of every finished epoch."""

    def __call__(self, stage: str, epoch: int, epochs: int, metrics: Metrics) -> None:
        """Receives the epoch's number (from 1), how many there will be, and its metrics."""


def log_progress(stage: str, epoch: int, epochs: int, metrics: Metrics) -> None:
    """Logs one line: loss, validation AUC, speed and the time left."""
    left = metrics["seconds"] * (epochs - epoch)
    shown = [f"{stage} {epoch}/{epochs}", f"loss {metrics['loss']:.4f}"]
    if "val_macro_auc" in metrics:
        shown.append(f"val AUC {metrics['val_macro_auc']:.3f}")
    shown += [f"{metrics['images_per_second']:.0f} images/s", f"{left:.0f} s left"]
    LOG.info(" · ".join(shown))


@dataclass(frozen=True)
class Workspace:
    """Where a stage leaves its traces, and whom it tells.

    Attributes:
        checkpoints: folder of this very training's resumable state; `None` keeps none.
        logs: folder of TensorBoard scalars; `None` writes none.
        progress: called after each epoch.
    """

    checkpoints: Path | None = None
    logs: Path | None = None
    progress: Progress = log_progress


@dataclass(frozen=True)
class Training:
    """One stage, ready to run.

    Attributes:
        stage: its name, part of every random seed.
        model: the network trained, its variables created.
        optimizer: built for the model's trainable variables.
        epochs: how many at most.
        seed: of all draws.
        batches: draws an epoch's order: generator → `int32[steps, batch]` indices of images.
        step: one update.
        validate: the model's metrics on held-out people, among them `val_loss`; `None` keeps the
            last epoch instead of the best.
        execution: where its steps are computed.
        observe: what is measured after the epoch of the given number besides; selects nothing.
        score: metrics → what to maximise, compared entry by entry.
        patience: epochs without a better score before stopping; `None` never stops.
        checkpoint_every_epochs: how often the state is saved, besides at the end.
    """

    stage: str
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    epochs: int
    seed: int
    batches: Callable[[np.random.Generator], np.ndarray]
    step: Step
    execution: Execution = field(default_factory=lambda: Execution(ExecutionSettings()))
    validate: Callable[[], Metrics] | None = None
    observe: Callable[[int], Metrics] | None = None
    score: Callable[[Metrics], list[float]] | None = None
    patience: int | None = None
    checkpoint_every_epochs: int = 1


def run(training: Training, workspace: Workspace) -> list[Metrics]:
    """Trains from the last saved state, or from the start, to the end.

    Args:
        training: the stage; its model holds the best epoch's weights afterwards.
        workspace: where state and logs go.

    Returns:
        The history: per epoch `epoch`, `loss`, `lr`, `seconds`, `images_per_second` and whatever
        the stage measures.

    Raises:
        TrainingDiverged: a loss is infinite or not a number.
    """
    folder = workspace.checkpoints
    state = TrainingState()
    if folder is not None:
        state = checkpointing.restore(folder, training.model, training.optimizer)
    if state.epoch:
        LOG.info("%s continues after epoch %d", training.stage, state.epoch)
    with _summaries(workspace.logs) as writer:
        while not _finished(training, state):
            metrics = _epoch(training, state.epoch)
            _advance(training, state, metrics)
            _summarise(writer, metrics)
            due = state.epoch % training.checkpoint_every_epochs == 0
            if folder is not None and (due or _finished(training, state)):
                checkpointing.save(folder, state, training.model, training.optimizer)
            workspace.progress(training.stage, state.epoch, training.epochs, metrics)
    if state.best_weights:
        for weight, value in zip(training.model.weights, state.best_weights, strict=True):
            weight.assign(value)
    return state.history


def stage_seed(stage: str, *position: int) -> np.random.SeedSequence:
    """The seed of one draw: a function of the stage and of numbers such as seed, epoch, step."""
    return np.random.SeedSequence([zlib.crc32(stage.encode()), *position])


def _epoch(training: Training, epoch: int) -> Metrics:
    start = time.perf_counter()
    order = stage_seed(training.stage, training.seed, epoch)
    batches = training.batches(np.random.default_rng(order))
    rate = float(training.optimizer.learning_rate)
    scalars = []
    for step, indices in enumerate(batches):
        draw = stage_seed(training.stage, training.seed, epoch, step + 1).generate_state(2)
        scalars.append(training.step(tf.constant(indices), tf.constant(draw.view(np.int32))))
    means = {name: float(np.mean([float(step[name]) for step in scalars])) for name in scalars[0]}
    seconds = time.perf_counter() - start
    metrics = {"epoch": epoch + 1, **means, "lr": rate}
    _check_finite(training.stage, metrics, "loss")
    if training.validate is not None:
        metrics |= training.validate()
        _check_finite(training.stage, metrics, "val_loss")
    if training.observe is not None:
        metrics |= training.observe(epoch + 1)
    return metrics | {"seconds": seconds, "images_per_second": batches.size / seconds}


def _advance(training: Training, state: TrainingState, metrics: Metrics) -> None:
    state.epoch += 1
    state.history.append(metrics)
    if training.score is None:
        return
    score = training.score(metrics)
    if not state.best_score or score > state.best_score:
        state.best_score, state.best_epoch = score, state.epoch
        state.best_weights = [np.array(weight) for weight in training.model.weights]


def _finished(training: Training, state: TrainingState) -> bool:
    patience = training.patience
    exhausted = patience is not None and state.epoch - state.best_epoch >= patience
    return exhausted or state.epoch >= training.epochs


def _check_finite(stage: str, metrics: Metrics, name: str) -> None:
    if not math.isfinite(metrics[name]):
        raise TrainingDiverged(
            f"Training diverged: {name} is {metrics[name]} in epoch {metrics['epoch']} of "
            f"{stage} (learning rate {metrics['lr']:.4g}). Lower optimizer.learning_rate or raise "
            "optimizer.warmup_epochs."
        )


@contextlib.contextmanager
def _summaries(logs: Path | None):
    writer = tf.summary.create_file_writer(str(logs)) if logs else None
    try:
        yield writer
    finally:
        if writer is not None:
            writer.close()


def _summarise(writer: tf.summary.SummaryWriter | None, metrics: Metrics) -> None:
    if writer is None:
        return
    with writer.as_default(step=metrics["epoch"]):
        for name, value in metrics.items():
            if isinstance(value, float):
                tf.summary.scalar(name, value)
    writer.flush()
