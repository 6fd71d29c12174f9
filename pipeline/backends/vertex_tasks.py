"""What Vertex AI says of a run's nodes, in our words."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pipeline.backends import outcome, packages
from pipeline.backends.interface import RunStatus, Task

_RUNS: dict[str, RunStatus] = {
    "PIPELINE_STATE_QUEUED": "pending",
    "PIPELINE_STATE_PENDING": "pending",
    "PIPELINE_STATE_RUNNING": "running",
    "PIPELINE_STATE_PAUSED": "running",
    "PIPELINE_STATE_CANCELLING": "running",
    "PIPELINE_STATE_SUCCEEDED": "passed",
    "PIPELINE_STATE_CANCELLED": "stopped",
}
TaskState = Literal["pending", "running", "ran", "cached", "failed", "skipped", "stopped"]
# https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs
_TASKS: dict[str, TaskState] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "ran",
    "CANCEL_PENDING": "running",
    "CANCELLING": "running",
    "CANCELLED": "stopped",
    "FAILED": "failed",
    "SKIPPED": "cached",  # "due to cache hit"
    "NOT_TRIGGERED": "skipped",
}


def status(job: Any, tasks: Sequence[Task]) -> tuple[RunStatus, str]:
    """A run's status and the reason for it."""
    said = job.error.message if job.error else ""
    if job.state.name == "PIPELINE_STATE_FAILED":
        return outcome.failure(tasks, said)
    return _RUNS.get(job.state.name, "pending"), ""


def tasks(job: Any) -> tuple[Task, ...]:
    """The pipeline's nodes in order; one that Vertex AI does not list is pending."""
    spec = _plain(job.pipeline_spec) if job.pipeline_spec else {}
    if "root" not in spec:
        return ()
    listed = _listed(job)
    return tuple(_task(name, listed.get(name)) for name in packages.order(spec))


def seconds(start: datetime.datetime | None, end: datetime.datetime | None) -> float | None:
    """Seconds between two times; None where one of them is not known."""
    return (end - start).total_seconds() if start and end and end >= start else None


def log_address(job: Any, name: str, project: str) -> str:
    """Where the lines of a node are in Cloud Logging, "" for one that had no container."""
    detail = _listed(job).get(name)
    if detail is None or "container_detail" not in detail.executor_detail:
        return ""
    main = detail.executor_detail.container_detail.main_job
    identifier = main.rpartition("/")[2]
    if not identifier:
        return ""
    query = f'resource.type="ml_job" AND resource.labels.job_id="{identifier}"'
    return (
        f"https://console.cloud.google.com/logs/query;query={quote(query, safe='')}"
        f"?project={project}"
    )


def _listed(job: Any) -> dict[str, Any]:
    return {detail.task_name: detail for detail in job.job_detail.task_details}


def _task(name: str, detail: Any | None) -> Task:
    if detail is None:
        return Task(name=name, state="pending")
    state = _TASKS.get(detail.state.name, "pending")
    error = (detail.error.message if detail.error else "") if state == "failed" else ""
    took = seconds(detail.start_time, detail.end_time)
    return Task(name=name, state=state, seconds=took, error=error.strip())


def _plain(value: Any) -> Any:
    """A protobuf Struct, as the client wraps it, as a dict."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if not isinstance(value, str) and isinstance(value, Sequence):
        return [_plain(entry) for entry in value]
    return value
