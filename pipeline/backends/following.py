"""Waiting for a run, with every change of a node's state told."""

import time
from collections.abc import Callable

from pipeline.backends.interface import ENDED, BackendError, Run, Task, Watched

INTERVAL = 10.0  # seconds between two looks
TRIES = 6  # looks in a row that may fail: a service that restarts is back in a minute


class Unended(BackendError):
    """The run has not ended in the time that one wanted to wait."""


class _Clock:
    """The time, and waiting for it."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


CLOCK = _Clock()


def follow(
    backend: Watched,
    run_id: str,
    *,
    on_run: Callable[[Run], None] = lambda run: None,
    on_task: Callable[[Task], None] = lambda task: None,
    minutes: float | None = None,
    interval: float = INTERVAL,
    clock: _Clock = CLOCK,
) -> Run:
    """Waits until a run has ended.

    Args:
        backend: where it runs.
        run_id: which.
        on_run: told of the run at each look.
        on_task: told of each node whose state has changed since the look before.
        minutes: how long to wait; None for as long as it takes.
        interval: seconds between two looks.
        clock: for tests.

    Returns:
        The run as it ended.

    Raises:
        Unended: it is going on after `minutes`.
        BackendError: the service does not answer, `TRIES` times in a row.
    """
    deadline = None if minutes is None else clock.monotonic() + 60 * minutes
    seen: dict[str, str] = {}
    failures = 0
    while True:
        try:
            run = backend.get(run_id)
            failures = 0
        except BackendError:
            failures += 1
            if failures >= TRIES:
                raise
        else:
            for task in run.tasks:
                if seen.get(task.name, "pending") != task.state:
                    seen[task.name] = task.state
                    on_task(task)
            on_run(run)
            if run.status in ENDED:
                return run
        left = None if deadline is None else deadline - clock.monotonic()
        if left is not None and left <= 0:
            raise Unended(
                f"The run {run_id} has not ended after {minutes:g} minutes. It goes on: "
                f"cortexflow show {run_id} --on {backend.uri}; cortexflow stop {run_id} "
                f"--on {backend.uri} ends it."
            )
        clock.sleep(interval if left is None else min(interval, left))
