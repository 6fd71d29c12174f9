"""What one asks of whoever runs pipelines: this machine, Kubeflow Pipelines or Vertex AI."""

import datetime
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from schema.errors import CortexflowError

RunStatus = Literal[
    "pending", "running", "passed", "refused", "insufficient evidence", "failed", "stopped"
]
ENDED = ("passed", "refused", "insufficient evidence", "failed", "stopped")
# A node that fails only for this reason: its name tells the outcome through any API.
STOPS: Mapping[str, RunStatus] = {
    "StopOnBadData": "refused",
    "StopOnRefusal": "refused",
    "StopOnInsufficientEvidence": "insufficient evidence",
}
EXIT_CODES: Mapping[RunStatus, int] = {
    "passed": 0,
    "refused": 2,
    "insufficient evidence": 3,
    "failed": 1,
    "stopped": 130,
}


class BackendError(CortexflowError):
    """The place that runs pipelines cannot be reached, or refuses."""


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class Task(_Told):
    """One node of a run: state in one word, and why it failed."""

    name: str
    state: Literal["pending", "running", "ran", "cached", "failed", "skipped", "stopped"]
    seconds: float | None = None
    error: str = ""


class Run(_Told):
    """A run as its backend tells of it. `url` is where people look at it, "" if there is none."""

    id: str
    name: str
    pipeline: str
    status: RunStatus
    reason: str = ""
    started: datetime.datetime | None = None
    seconds: float | None = None
    url: str = ""
    labels: Mapping[str, str] = {}
    tasks: tuple[Task, ...] = ()


class Schedule(_Told):
    """A recurring run. `cron` has five fields, in UTC."""

    id: str
    name: str
    pipeline: str
    cron: str
    enabled: bool
    catch_up: bool
    max_concurrent: int
    url: str = ""


class RunRequest(_Told):
    """What a run is started with; an empty text leaves the choice to the backend."""

    name: str
    parameters: Mapping[str, Any] = {}
    pipeline_root: str = ""
    experiment: str = ""
    labels: Mapping[str, str] = {}
    cache: bool = True
    service_account: str = ""


class Recurrence(_Told):
    """When runs start by themselves: `cron` has five fields, in UTC, between `start` and `end`."""

    cron: str
    catch_up: bool = False
    max_concurrent: int = 1
    start: datetime.datetime | None = None
    end: datetime.datetime | None = None


class Watched(Protocol):
    """Where runs can be seen and stopped: this machine too. Methods raise BackendError."""

    uri: str

    def get(self, run_id: str) -> Run:
        """One run with its tasks."""
        ...

    def runs(self, limit: int = 50) -> list[Run]:
        """Runs, newest first, without their tasks."""
        ...

    def logs(self, run_id: str, task: str | None = None, *, follow: bool = False) -> Iterator[str]:
        """Lines of a run's log, of one task or of all; with `follow` until the run has ended."""
        ...

    def stop(self, run_id: str) -> None:
        """Ends a run that is going on."""
        ...


class Backend(Watched, Protocol):
    """Kubeflow Pipelines and Vertex AI; every method raises BackendError with the reason."""

    def submit(self, package: str, request: RunRequest, *, version: str = "") -> Run:
        """Starts a run of a compiled pipeline (YAML text).

        With `version`, the name under which this very pipeline was uploaded, the run names it.
        """
        ...

    def upload(self, package: str, *, name: str, version: str) -> str:
        """Keeps a compiled pipeline as a version of a pipeline; returns what names it."""
        ...

    def versions(self, name: str) -> list[str]:
        """Versions of a kept pipeline, newest first."""
        ...

    def schedule(self, package: str, request: RunRequest, recurrence: Recurrence) -> Schedule:
        """Makes a recurring run."""
        ...

    def schedules(self) -> list[Schedule]:
        """Recurring runs, newest first."""
        ...

    def set_enabled(self, schedule_id: str, enabled: bool) -> None:
        """Pauses a recurring run, or lets it go on."""
        ...

    def unschedule(self, schedule_id: str) -> None:
        """Removes a recurring run; runs that it started go on."""
        ...
