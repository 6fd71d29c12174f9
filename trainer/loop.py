"""The epochs of a training, whatever the stage: shuffle, step, validate, record, save.

A stage hands over one compiled step and the order of its batches; the loop adds what every stage
needs alike: the best epoch, early stopping, the history, resumption at any step, and the end of a
diverged or preempted run.
"""

import logging
import math
import signal
import time
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer import checkpointing, preemption
from trainer.checkpointing import TrainingState
from trainer.config import ExecutionSettings
from trainer.curves import Curves
from trainer.errors import Preempted, TrainingDiverged
from trainer.execution import Execution, Step
from trainer.pace import Metrics, Pace, Progress, log_progress
from trainer.preemption import StopRequest
from trainer.remote_states import RemoteFolder

LOG = logging.getLogger(__name__)

# Seconds between two looks at what the steps gave. Looking waits for the steps under way, so that
# no step is looked at by itself: a device would stand idle meanwhile.
LOOK_EVERY = 1.0


@dataclass(frozen=True)
class Workspace:
    """Where a stage leaves its traces, and whom it tells.

    Attributes:
        checkpoints: folder of this very training's resumable state; `None` keeps none.
        logs: folder of the curves; `None` writes none.
        progress: called after each epoch.
        checkpoint_every_seconds: the most that a kill costs within an epoch.
        unkept: what is said of a stopped training that has no `checkpoints`.
    """

    checkpoints: Path | RemoteFolder | None = None
    logs: Path | None = None
    progress: Progress = log_progress
    checkpoint_every_seconds: float = 300.0
    unkept: str = "It has no folder for checkpoints: started again, it begins anew."


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

    Under several workers each of them calls this with the same training; the chief writes.

    Args:
        training: the stage; its model holds the best epoch's weights afterwards.
        workspace: where state and logs go.

    Returns:
        The history: per epoch `epoch`, the means of what the steps told (`loss` among it), `lr` at
        its first step, whatever the stage measures, `seconds` of its steps, `images_per_second`
        and `validation_seconds`. Where a process made its first step there is
        `first_step_seconds`: it compiles, and counts in `seconds` but not in `images_per_second`.

    Raises:
        TrainingDiverged: a loss is infinite or not a number.
        Preempted: SIGTERM came; the state is kept, to go on after the very step.
        KeyboardInterrupt: likewise, SIGINT.
        StateError: a state cannot be written or read, or is of another model.
    """
    state = _restored(training, workspace.checkpoints)
    logs = workspace.logs if training.execution.is_chief else None
    with preemption.heeded() as stop, Curves(logs, state.steps, state.history) as curves:
        _Run(training, workspace, state, curves, stop).to_the_end()
    if state.best_weights:
        for weight, value in zip(training.model.weights, state.best_weights, strict=True):
            weight.assign(value)
    return state.history


def stage_seed(stage: str, *position: int) -> np.random.SeedSequence:
    """The seed of one draw: a function of the stage and of numbers such as seed, epoch, step."""
    return np.random.SeedSequence([zlib.crc32(stage.encode()), *position])


def _restored(training: Training, folder: Path | RemoteFolder | None) -> TrainingState:
    if folder is None:
        return TrainingState()
    # The workers of an attempt before may be writing until all of this one's are there.
    training.execution.wait_for_all()
    state = checkpointing.restore(folder, training.model, training.optimizer)
    training.execution.agree("the epoch to go on from", state.epoch)
    training.execution.agree("the step to go on from", state.step)
    if state.epoch or state.step:
        LOG.info("%s continues after %s", training.stage, _place(state))
    return state


def _place(state: TrainingState) -> str:
    within = f"step {state.step} of epoch {state.epoch + 1}"
    return within if state.step else f"epoch {state.epoch}"


class _Run:
    """One process's share of a training: the state, and those who hear of its changes."""

    def __init__(
        self,
        training: Training,
        workspace: Workspace,
        state: TrainingState,
        curves: Curves,
        stop: StopRequest,
    ):
        self.training = training
        self.workspace = workspace
        self.state = state
        self.curves = curves
        self.stop = stop
        self.pace = Pace(training.stage, training.epochs, state)
        self.unread: list[Metrics] = []
        self.looked = self.saved = time.perf_counter()

    def to_the_end(self) -> None:
        """Makes the epochs that are left."""
        training, state = self.training, self.state
        while not self._finished():
            metrics = self._epoch()
            self._advance(metrics)
            self.curves.add_epoch(metrics)
            stopped = training.execution.any_worker(bool(self.stop))
            due = state.epoch % training.checkpoint_every_epochs == 0
            if due or stopped or self._finished():
                self._save()
            self.workspace.progress(training.stage, state.epoch, training.epochs, metrics)
            if stopped:
                raise self._preempted()

    def _epoch(self) -> Metrics:
        training, state = self.training, self.state
        order = stage_seed(training.stage, training.seed, state.epoch)
        batches = training.batches(np.random.default_rng(order))
        rates = _rates(training.optimizer, len(batches), done=state.step)
        compiled = self.pace.first_step_seconds
        self.pace.start_epoch(*batches.shape)
        for position in range(state.step, len(batches)):
            seed = stage_seed(training.stage, training.seed, state.epoch, position + 1)
            draw = seed.generate_state(2).view(np.int32)
            told = training.step(tf.constant(batches[position]), tf.constant(draw))
            self.unread.append({"lr": rates[position], **told})
            state.step += 1
            self._between_steps(last=state.step == len(batches))
        self._look()
        self.pace.lap(steps=0)
        means = {name: _mean(column, state.step) for name, column in state.steps.items()}
        timing = {"seconds": state.seconds, "images_per_second": self.pace.images_per_second}
        if self.pace.first_step_seconds != compiled:
            timing["first_step_seconds"] = self.pace.first_step_seconds
        metrics = {"epoch": state.epoch + 1, **means, "lr": float(rates[0])}
        if training.validate is not None:
            metrics |= training.validate()
            self._check_finite("val_loss", metrics["val_loss"], metrics["lr"])
        if training.observe is not None:
            metrics |= training.observe(state.epoch + 1)
        return metrics | timing | {"validation_seconds": self.pace.validated()}

    def _between_steps(self, last: bool) -> None:
        state, execution = self.state, self.training.execution
        first = self.pace.first_step_seconds is None
        if first:
            self._look()
        self.pace.lap()
        now = time.perf_counter()
        if first or now - self.looked >= LOOK_EVERY:
            self._look()
            self.pace.tell(_mean(state.steps["loss"], state.step))
        due = now - self.saved >= self.workspace.checkpoint_every_seconds
        keeps = self.workspace.checkpoints is not None and execution.is_chief and not last
        if execution.any_worker(bool(self.stop) or (due and keeps)):
            self._save()
            if execution.any_worker(bool(self.stop)):
                raise self._preempted()

    def _look(self) -> None:
        """Takes over what the steps told since the last look; waits until they are done."""
        columns = self.state.steps
        first = len(columns["loss"]) if columns else 0
        names = self.unread[0] if self.unread else ()
        for name in names:
            told = np.asarray(tf.stack([step[name] for step in self.unread]), np.float32)
            columns.setdefault(name, array("f")).frombytes(told.tobytes())
        self.unread.clear()
        if names:
            self._check_losses(first)
            self.curves.add_steps(columns, first)
        self.looked = time.perf_counter()

    def _check_losses(self, first: int) -> None:
        columns = self.state.steps
        for loss, rate in zip(columns["loss"][first:], columns["lr"][first:], strict=True):
            self._check_finite("loss", loss, rate)

    def _check_finite(self, name: str, value: float, rate: float) -> None:
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"Training diverged: {name} is {value} in epoch {self.state.epoch + 1} of "
                f"{self.training.stage} (learning rate {rate:.4g}). Lower optimizer.learning_rate "
                "or raise optimizer.warmup_epochs."
            )

    def _advance(self, metrics: Metrics) -> None:
        training, state = self.training, self.state
        state.epoch, state.step = state.epoch + 1, 0
        state.seconds, state.timed_steps, state.timed_seconds = 0.0, 0, 0.0
        state.history.append(metrics)
        if training.score is None:
            return
        score = training.score(metrics)
        better = not state.best_score or score > state.best_score
        # Workers may differ in the last digit; what they keep must be of one epoch.
        if training.execution.any_worker(better and training.execution.is_chief):
            state.best_score, state.best_epoch = score, state.epoch
            state.best_weights = checkpointing.values(training.model.weights)

    def _finished(self) -> bool:
        patience, state = self.training.patience, self.state
        exhausted = patience is not None and state.epoch - state.best_epoch >= patience
        return exhausted or state.epoch >= self.training.epochs

    def _save(self) -> None:
        self._look()
        folder, training = self.workspace.checkpoints, self.training
        if folder is not None:
            checkpointing.save(
                folder,
                self.state,
                training.model,
                training.optimizer,
                write=training.execution.is_chief,
            )
        self.saved = time.perf_counter()
        self.pace.skip()

    def _preempted(self) -> BaseException:
        """What ends a run that was asked to stop, after its state is kept."""
        # No worker may leave before the chief has written what all will start from.
        self.training.execution.wait_for_all()
        kept = "Its state is kept: started again the same way, it goes on from there."
        if self.workspace.checkpoints is None:
            kept = self.workspace.unkept
        cause = self.stop.signal.name if self.stop.signal else "another worker was"
        message = f"{self.training.stage} was stopped ({cause}) after {_place(self.state)}. {kept}"
        LOG.warning("%s", message)
        if self.stop.signal == signal.SIGINT:
            return KeyboardInterrupt(message)
        return Preempted(message)


def _rates(optimizer: keras.optimizers.Optimizer, steps: int, *, done: int) -> np.ndarray:
    """Learning rates of an epoch's steps, `done` of which are behind; `float32[steps]`."""
    rate = optimizer._learning_rate  # Keras' public property tells the present value alone
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        first = int(keras.ops.convert_to_numpy(optimizer.iterations)) - done
        return np.asarray(rate(np.arange(first, first + steps)), np.float32)
    return np.full(steps, keras.ops.convert_to_numpy(rate), np.float32)


def _mean(column: array, last: int) -> float:
    """Mean of a scalar over the last steps."""
    return float(np.mean(np.asarray(column[len(column) - last :], np.float64)))
