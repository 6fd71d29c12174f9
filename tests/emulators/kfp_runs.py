"""Runs and recurring runs of the emulated Kubeflow Pipelines.

A run's details are those of the workflow that carries it: for every task of the pipeline a driver,
the task, and below it `executor`, which has the pod. A recurring run starts what is due when the
clock is moved or a run ends: with catch-up every time that was missed, without it the latest; and
never more at once than it may.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator

import kfp_server_api as kfp

from tests.emulators import jobs
from tests.emulators.clock import Clock, Cron
from tests.emulators.kfp_parsing import ApiError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_STATES = {
    "pending": "PENDING",
    "running": "RUNNING",
    "ran": "SUCCEEDED",
    "cached": "SUCCEEDED",
    "failed": "FAILED",
    "skipped": "SKIPPED",
    "stopped": "CANCELED",
}
CONCURRENCY = range(1, 11)  # what the server allows of a recurring run


class Runs:
    """All runs; the caller holds the lock, threads of runs take it."""

    def __init__(self, lock):
        self.clock = Clock()
        self.runs: dict[str, kfp.V2beta1Run] = {}
        self.recurring: dict[str, kfp.V2beta1RecurringRun] = {}
        self._lock = lock
        self._jobs: dict[str, jobs.Job] = {}
        self._specs: dict[str, dict] = {}
        self._looked: dict[str, object] = {}
        self._due: dict[str, int] = {}

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def start(self, given: kfp.V2beta1Run, spec: dict) -> kfp.V2beta1Run:
        """Starts a run."""
        if not given.display_name:
            raise ApiError(400, "The run's name is empty.")
        for field in ("run_id", "state", "created_at", "run_details"):
            if getattr(given, field) is not None:
                raise ApiError(400, f"{field} is set by the server.")
        runtime = given.runtime_config or kfp.V2beta1RuntimeConfig()
        given.run_id = self.new_id()
        try:
            job = jobs.new_job(
                spec, runtime.parameters or {}, runtime.pipeline_root or "", given.run_id
            )
        except jobs.Invalid as problem:
            raise ApiError(400, str(problem)) from None
        given.state, given.created_at = "PENDING", self.clock.now()
        given.run_details = kfp.V2beta1RunDetails(task_details=[])
        self.runs[given.run_id], self._jobs[given.run_id] = given, job
        threading.Thread(target=self._work, args=(given, job), daemon=True).start()
        return given

    def get(self, run_id: str) -> kfp.V2beta1Run:
        """One run."""
        if run_id not in self.runs:
            raise ApiError(404, f"Run {run_id} not found.")
        return self.runs[run_id]

    def terminate(self, run_id: str) -> None:
        """Ends a run; one that has ended stays as it is."""
        run = self.get(run_id)
        if run.state not in ENDED:
            run.state = "CANCELING"
            self._jobs[run_id].cancelled.set()

    def log(self, run_id: str, pod: str, *, follow: bool) -> Callable[[], Iterator[bytes]]:
        """Blocks of a pod's log; with `follow` until its run has ended."""
        run = self.get(run_id)
        node = pod.rpartition("--")[2]
        path = self._jobs[run_id].log(node)
        if not path.is_file():
            raise ApiError(500, f"Failed to read logs for run {run_id}: pods {pod!r} not found.")

        def blocks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while True:
                    ended = not follow or run.state in ENDED
                    yield file.read()
                    if ended:
                        return
                    time.sleep(jobs.LOOK)

        return blocks

    def recur(self, given: kfp.V2beta1RecurringRun, spec: dict) -> kfp.V2beta1RecurringRun:
        """Makes a recurring run."""
        cron = given.trigger and given.trigger.cron_schedule
        if not cron or not cron.cron:
            raise ApiError(400, "Only recurring runs by cron are emulated.")
        if int(given.max_concurrency or 0) not in CONCURRENCY:
            raise ApiError(400, "The max concurrency of a job is between 1 and 10.")
        if given.mode not in ("ENABLE", "DISABLE"):
            raise ApiError(400, "The mode of a recurring run is ENABLE or DISABLE.")
        self._cron(given)
        given.recurring_run_id, given.created_at = self.new_id(), self.clock.now()
        given.status = "ENABLED" if given.mode == "ENABLE" else "DISABLED"
        identifier = given.recurring_run_id
        self.recurring[identifier], self._specs[identifier] = given, spec
        self._looked[identifier], self._due[identifier] = self.clock.now(), 0
        return given

    def switch(self, identifier: str, *, enabled: bool) -> None:
        """Enables or disables a recurring run."""
        if identifier not in self.recurring:
            raise ApiError(404, f"Job {identifier} not found.")
        self.recurring[identifier].status = "ENABLED" if enabled else "DISABLED"
        self.tick()

    def forget(self, identifier: str) -> None:
        """Removes a recurring run."""
        if self.recurring.pop(identifier, None) is None:
            raise ApiError(404, f"Job {identifier} not found.")

    def tick(self) -> None:
        """Starts what is due."""
        for identifier, entry in self.recurring.items():
            if entry.status != "ENABLED":
                continue
            now = self.clock.now()
            due = len(list(self._cron(entry).between(self._looked[identifier], now)))
            self._looked[identifier] = now
            self._due[identifier] += due
            if entry.no_catchup:
                self._due[identifier] = min(self._due[identifier], 1)
            while self._due[identifier] and self._active(identifier) < int(entry.max_concurrency):
                self._due[identifier] -= 1
                run = kfp.V2beta1Run(
                    display_name=f"{entry.display_name}-{len(self.runs) + 1}",
                    description=entry.description,
                    experiment_id=entry.experiment_id,
                    pipeline_spec=entry.pipeline_spec,
                    pipeline_version_reference=entry.pipeline_version_reference,
                    runtime_config=entry.runtime_config,
                    recurring_run_id=identifier,
                )
                self.start(run, self._specs[identifier])

    def _active(self, identifier: str) -> int:
        return sum(
            run.recurring_run_id == identifier and run.state not in ENDED
            for run in self.runs.values()
        )

    def _cron(self, entry) -> Cron:
        seconds, _, rest = entry.trigger.cron_schedule.cron.partition(" ")
        try:
            if seconds != "0":
                raise ValueError(f"the seconds are 0 here (received {seconds!r})")
            return Cron(rest)
        except ValueError as problem:
            raise ApiError(400, f"Schedule cron is not supported: {problem}") from None

    def _work(self, run: kfp.V2beta1Run, job: jobs.Job) -> None:
        with self._lock:
            if run.state == "PENDING":
                run.state = "RUNNING"
        problem = ""
        try:
            succeeded = jobs.run(job, lambda *told: self._told(run, *told))
        except Exception as error:
            succeeded, problem = False, str(error) or type(error).__name__
        with self._lock:
            if job.cancelled.is_set():
                run.state = "CANCELED"
            else:
                run.state = "SUCCEEDED" if succeeded else "FAILED"
            if problem:
                run.error = kfp.GooglerpcStatus(code=13, message=problem)
            run.finished_at = self.clock.now()
            self.tick()

    def _told(self, run: kfp.V2beta1Run, node: str, state: str, error: str) -> None:
        """A task as the workflow shows it: driver, task, executor."""
        with self._lock:
            task = self._detail(run, node)
            task.state = _STATES[state]
            if state in ("pending", "skipped"):
                return
            driver = self._detail(run, f"{node}-driver", pod=f"{run.run_id}--{node}-driver")
            driver.state = "SUCCEEDED"
            pod = f"{run.run_id}--{node}"
            executor = self._detail(run, "executor", pod=pod)
            executor.state = "SKIPPED" if state == "cached" else task.state
            task.child_tasks = [kfp.PipelineTaskDetailChildTask(pod_name=pod)]
            now = self.clock.now()
            task.start_time = executor.start_time = task.start_time or now
            if state != "running":
                task.end_time = executor.end_time = now
            if error:
                executor.error = kfp.GooglerpcStatus(code=2, message=error)

    def _detail(self, run, name: str, pod: str | None = None) -> kfp.V2beta1PipelineTaskDetail:
        for detail in run.run_details.task_details:
            if detail.display_name == name and (pod is None or detail.pod_name == pod):
                return detail
        made = kfp.V2beta1PipelineTaskDetail(
            run_id=run.run_id,
            task_id=self.new_id(),
            display_name=name,
            create_time=self.clock.now(),
            pod_name=pod or f"{run.run_id}--{name}-dag",
        )
        run.run_details.task_details.append(made)
        return made
