"""What Kubeflow Pipelines says of a run's nodes, in our words.

The API lists every node of the workflow that carries a run: for each task of the pipeline a driver,
the task itself, and below it `executor`, whose pod does the work and is skipped where the cache has
the answer.
"""

import datetime
from collections.abc import Sequence
from typing import Any, Literal

from pipeline.backends import outcome
from pipeline.backends.interface import RunStatus, Task

EXECUTOR = "executor"
told_by = outcome.told_by
_RUNS: dict[str, RunStatus] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "PAUSED": "running",
    "CANCELING": "running",
    "SUCCEEDED": "passed",
    "SKIPPED": "passed",
    "CANCELED": "stopped",
}
TaskState = Literal["pending", "running", "ran", "cached", "failed", "skipped", "stopped"]
_TASKS: dict[str, TaskState] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "PAUSED": "running",
    "CANCELING": "running",
    "SUCCEEDED": "ran",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELED": "stopped",
}


def status(run: Any, tasks: Sequence[Task]) -> tuple[RunStatus, str]:
    """A run's status and the reason for it."""
    said = (run.error.message if run.error else "") or ""
    if run.state == "FAILED":
        return outcome.failure(tasks, said)
    return _RUNS.get(run.state or "", "pending"), said if run.state == "CANCELED" else ""


def tasks(run: Any, names: Sequence[str]) -> tuple[Task, ...]:
    """The pipeline's nodes, in the order of `names`; one that the API does not list is pending."""
    listed = _listed(run)
    return tuple(_task(name, listed.get(name), listed, run) for name in names)


def pods(run: Any) -> dict[str, str]:
    """Nodes that have a pod, with what the API calls it."""
    found = {}
    for name, detail in _listed(run).items():
        executor = _executor(detail, run)
        at_work = executor if executor is not None else detail
        if at_work.pod_name and at_work.state not in (None, "PENDING", "SKIPPED"):
            found[name] = at_work.pod_name
    return found


def seconds(start: datetime.datetime | None, end: datetime.datetime | None) -> float | None:
    """Seconds between two times; None where one of them is not known."""
    if start is None or end is None or end < start:
        return None
    return (end - start).total_seconds()


def _details(run: Any) -> list[Any]:
    return list((run.run_details and run.run_details.task_details) or [])


def _listed(run: Any) -> dict[str, Any]:
    return {
        detail.display_name: detail
        for detail in _details(run)
        if detail.display_name and detail.display_name != EXECUTOR
    }


def _executor(detail: Any, run: Any) -> Any | None:
    children = {child.pod_name for child in detail.child_tasks or []}
    for other in _details(run):
        if other.display_name == EXECUTOR and (
            other.pod_name in children or other.parent_task_id == detail.task_id
        ):
            return other
    return None


def _task(name: str, detail: Any | None, listed: dict[str, Any], run: Any) -> Task:
    driver = listed.get(f"{name}-driver")
    if detail is None:
        if driver is not None and driver.state == "FAILED":  # it could not be started at all
            return Task(name=name, state="failed", error=_error(driver))
        state: TaskState = "running" if driver is not None else "pending"
        return Task(name=name, state=state)
    state = _TASKS.get(detail.state or "", "pending")
    executor = _executor(detail, run)
    if state == "ran" and executor is not None and executor.state == "SKIPPED":
        state = "cached"
    error = (_error(detail) or (_error(executor) if executor else "")) if state == "failed" else ""
    took = seconds(detail.start_time, detail.end_time)
    return Task(name=name, state=state, seconds=took, error=error)


def _error(detail: Any) -> str:
    return ((detail.error.message if detail.error else "") or "").strip()
