"""How fast a training goes and how long it will take, and the lines that say so."""

import logging
import time
from typing import Any, Protocol

from trainer.checkpointing import TrainingState

LOG = logging.getLogger(__name__)

Metrics = dict[str, Any]

LOGGED_EVERY = 60.0  # seconds between two lines of a log within an epoch


class Progress(Protocol):
    """Hears of every finished epoch."""

    def __call__(self, stage: str, epoch: int, epochs: int, metrics: Metrics) -> None:
        """Receives the epoch's number (from 1), how many there will be, and its metrics."""


def log_progress(stage: str, epoch: int, epochs: int, metrics: Metrics) -> None:
    """Logs one line: loss, AUC in validation or of the probe, speed and the time left."""
    usual = metrics["seconds"] - metrics.get("first_step_seconds", 0.0)
    left = (usual + metrics.get("validation_seconds", 0.0)) * (epochs - epoch)
    shown = [f"{stage} {epoch}/{epochs}", f"loss {metrics['loss']:.4f}"]
    if "val_macro_auc" in metrics:
        shown.append(f"val AUC {metrics['val_macro_auc']:.3f}")
    if "probe_linear_auc" in metrics:
        shown.append(f"probe AUC {metrics['probe_linear_auc']:.3f}")
    shown += [f"{metrics['images_per_second']:.0f} images/s", f"{duration(left)} left"]
    LOG.info(" · ".join(shown))


def duration(seconds: float) -> str:
    """`48 s`, `3 min`, `2 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class Pace:
    """A clock of steps.

    The first step of a process compiles the step, so it counts for no speed.

    Args:
        stage: whose steps.
        epochs: how many there will be.
        state: of the training; its times are kept here, so that a resumed epoch knows them.

    Attributes:
        first_step_seconds: how long this process's first step took; `None` before it.
    """

    def __init__(self, stage: str, epochs: int, state: TrainingState):
        self.first_step_seconds: float | None = None
        self._stage, self._epochs, self._state = stage, epochs, state
        self._steps = self._batch = 0
        self._per_step = self._validation = 0.0
        self._mark = self._logged = time.perf_counter()

    def start_epoch(self, steps: int, batch: int) -> None:
        """Steps follow, of an epoch of `steps` with `batch` images each."""
        self._steps, self._batch = steps, batch
        self.skip()

    def skip(self) -> None:
        """Leaves out the time since the last step: something else was done."""
        self._mark = time.perf_counter()

    def lap(self, steps: int = 1) -> None:
        """Ends a step; or, with 0, the wait for those under way."""
        now = time.perf_counter()
        taken, self._mark = now - self._mark, now
        self._state.seconds += taken
        if steps and self.first_step_seconds is None:
            self.first_step_seconds = taken
            return
        self._state.timed_steps += steps
        self._state.timed_seconds += taken
        if self._state.timed_steps:
            self._per_step = self._state.timed_seconds / self._state.timed_steps

    def validated(self) -> float:
        """Ends what follows an epoch's steps; returns the seconds it took."""
        self._validation = time.perf_counter() - self._mark
        return self._validation

    @property
    def images_per_second(self) -> float:
        """Of the epoch's steps; where it has no other, of the step that was compiled."""
        state = self._state
        if state.timed_steps:
            return self._batch * state.timed_steps / state.timed_seconds
        return self._batch * state.step / state.seconds

    def tell(self, loss: float) -> None:
        """Says where training is: always to who watches (DEBUG), now and then to a log (INFO).

        Args:
            loss: mean over the steps of the epoch.
        """
        state = self._state
        shown = [
            f"{self._stage} {state.epoch + 1}/{self._epochs}",
            f"step {state.step}/{self._steps}",
            f"loss {loss:.4f}",
        ]
        if self._per_step:
            epochs = self._epochs - state.epoch
            left = (self._steps * epochs - state.step) * self._per_step + epochs * self._validation
            shown += [f"{self.images_per_second:.0f} images/s", f"{duration(left)} left"]
        now = time.perf_counter()
        level = logging.DEBUG
        if now - self._logged >= LOGGED_EVERY:
            level, self._logged = logging.INFO, now
        LOG.log(level, " · ".join(shown))
