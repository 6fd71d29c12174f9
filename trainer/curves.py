"""The curves of a training, per step and per epoch: TensorBoard's event file and `steps.csv`.

Both are written anew from the state when a training goes on, so that a resumed training leaves the
same points as one that was never stopped, also where the pipeline gives it another folder.
"""

import os
import platform
import time
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

EVENTS = "events.out.tfevents."
STEPS = "steps.csv"

# Name of a scalar → its value at every step, `float32`.
Steps = dict[str, array]


class Curves:
    """Files that grow with the training; a context manager that closes them.

    Args:
        folder: where they go, replacing those of an earlier attempt; `None` writes nothing.
        steps: the scalars of all steps done.
        history: the metrics of all epochs done.
    """

    def __init__(self, folder: Path | None, steps: Steps, history: Sequence[dict[str, Any]]):
        self._events = self._table = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(EVENTS + "*"):
            earlier.unlink()
        name = f"{EVENTS}{time.time():.0f}.{platform.node()}.{os.getpid()}"
        self._events = tf.io.TFRecordWriter(str(folder / name))
        self._table = (folder / STEPS).open("w", encoding="utf-8")
        self._event(file_version="brain.Event:2")
        # A TensorBoard that is looking on forgets the points of the attempt before.
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._event(step=0, session_log=start)
        self.add_steps(steps, 0)
        for metrics in history:
            self.add_epoch(metrics)

    def __enter__(self) -> "Curves":
        return self

    def __exit__(self, *error: object) -> None:
        for file in (self._events, self._table):
            if file is not None:
                file.close()

    def add_steps(self, steps: Steps, first: int) -> None:
        """Writes the scalars of the steps from `first` on, counted from 0 over all epochs."""
        if self._table is None or not steps:
            return
        if not first:
            self._table.write(",".join(["step", *steps]) + "\n")
        for done, values in enumerate(zip(*(steps[name][first:] for name in steps), strict=True)):
            position = first + done + 1
            self._scalars(position, "step", dict(zip(steps, values, strict=True)))
            self._table.write(",".join([str(position), *(f"{value:.9g}" for value in values)]))
            self._table.write("\n")
        self._flush()

    def add_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of an epoch that are numbers."""
        if self._events is None:
            return
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        self._scalars(metrics["epoch"], "epoch", numbers)
        self._flush()

    def _scalars(self, position: int, group: str, values: Mapping[str, float]) -> None:
        summary = tf.compat.v1.Summary(
            value=[
                tf.compat.v1.Summary.Value(tag=f"{group}/{name}", simple_value=value)
                for name, value in values.items()
            ]
        )
        self._event(step=position, summary=summary)

    def _event(self, **fields: Any) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        self._events.write(event.SerializeToString())

    def _flush(self) -> None:
        self._events.flush()
        self._table.flush()
