"""Vertex AI's PipelineService: jobs that a given program runs, with the states of the real one.

https://cloud.google.com/vertex-ai/docs/reference/rpc/google.cloud.aiplatform.v1#pipelineservice
"""

import itertools
import re
import threading
from collections.abc import Callable

from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2, json_format

from tests.emulators import jobs, resources
from tests.emulators.resources import Operations, invalid, not_found, precondition

State = v1.PipelineState
_Task = v1.PipelineTaskDetail.State
_ENDED = (
    State.PIPELINE_STATE_SUCCEEDED,
    State.PIPELINE_STATE_FAILED,
    State.PIPELINE_STATE_CANCELLED,
)
_STATES = {
    "pending": _Task.PENDING,
    "running": _Task.RUNNING,
    "ran": _Task.SUCCEEDED,
    "cached": _Task.SKIPPED,
    "failed": _Task.FAILED,
    "skipped": _Task.NOT_TRIGGERED,
    "stopped": _Task.CANCELLED,
}
_ID = re.compile(r"[a-z][-a-z0-9]{0,127}|[0-9]+")


class Pipelines:
    """Pipeline jobs. `run` gets a job and a function to tell of nodes; it may raise."""

    def __init__(
        self,
        operations: Operations,
        run: Callable[[jobs.Job, jobs.Tell], bool] = jobs.run,
        lock=None,
    ):
        self.operations = operations
        self.jobs: dict[str, object] = {}
        self.on_end: Callable[[], None] = lambda: None
        self._run = run
        self._lock = lock or threading.RLock()
        self._at_work: dict[str, jobs.Job] = {}
        self._ids = itertools.count(1)

    def create_pipeline_job(self, request):
        """Starts a job."""
        resources.require(request, "parent", "pipeline_job.runtime_config.gcs_output_directory")
        identifier = request.pipeline_job_id or f"job-{next(self._ids)}"
        if not _ID.fullmatch(identifier):
            raise invalid(f"pipeline_job_id {identifier!r} is malformed")
        name = f"{request.parent}/pipelineJobs/{identifier}"
        if name in self.jobs:
            raise resources.exists(name)
        return self.start(name, request.pipeline_job)

    def start(self, name: str, given, schedule: str = ""):
        """Starts a job under a name, of a schedule if there is one."""
        resources.check_labels(given.labels)
        runtime = given.runtime_config
        if not runtime.gcs_output_directory.startswith("gs://"):
            raise invalid(f"gcs_output_directory {runtime.gcs_output_directory!r} is no gs:// URI")
        parameters = {
            key: json_format.MessageToDict(value) for key, value in runtime.parameter_values.items()
        }
        spec = _as_json(json_format.MessageToDict(given.pipeline_spec))
        try:
            work = jobs.new_job(spec, parameters, runtime.gcs_output_directory, _last(name))
        except jobs.Invalid as problem:
            raise invalid(str(problem)) from None
        job = v1.PipelineJob.pb()()
        job.CopyFrom(given)
        job.name, job.schedule_name = name, schedule
        job.state = State.PIPELINE_STATE_PENDING
        job.create_time.CopyFrom(resources.now())
        self.jobs[name], self._at_work[name] = job, work
        threading.Thread(target=self._work, args=(job, work), daemon=True).start()
        return job

    def _work(self, job, work: jobs.Job) -> None:
        with self._lock:
            if job.state == State.PIPELINE_STATE_PENDING:
                job.state = State.PIPELINE_STATE_RUNNING
                job.start_time.CopyFrom(resources.now())
            root = job.job_detail.task_details.add()
            root.task_id, root.task_name, root.state = 1, work.run_id, _Task.RUNNING
        try:
            succeeded = self._run(work, lambda *told: self._told(job, *told))
            failed = [d.task_name for d in job.job_detail.task_details if d.state == _Task.FAILED]
            problem = (
                ""
                if succeeded
                else "The DAG failed because some tasks failed. The failed tasks are: "
                f"[{', '.join(failed)}]."
            )
        except Exception as error:
            problem = str(error) or type(error).__name__
        with self._lock:
            if job.state == State.PIPELINE_STATE_CANCELLING or work.cancelled.is_set():
                job.state, root.state = State.PIPELINE_STATE_CANCELLED, _Task.CANCELLED
            elif problem:
                job.error.code, job.error.message = 9, problem
                job.state, root.state = State.PIPELINE_STATE_FAILED, _Task.FAILED
            else:
                job.state, root.state = State.PIPELINE_STATE_SUCCEEDED, _Task.SUCCEEDED
            job.end_time.CopyFrom(resources.now())
            self.on_end()

    def _told(self, job, node: str, state: str, error: str) -> None:
        with self._lock:
            details = job.job_detail.task_details
            detail = next((d for d in details if d.task_name == node), None)
            if detail is None:
                detail = details.add()
                detail.task_id, detail.task_name = len(details), node
                detail.parent_task_id = 1
                detail.create_time.CopyFrom(resources.now())
            detail.state = _STATES[state]
            if state == "running":
                detail.start_time.CopyFrom(resources.now())
                project = job.name.partition("/pipelineJobs/")[0]
                container = detail.executor_detail.container_detail
                container.main_job = f"{project}/customJobs/{10**9 + detail.task_id}"
            elif state != "pending":
                detail.end_time.CopyFrom(resources.now())
            if state == "failed":
                detail.error.code = 9
                detail.error.message = error

    def get_pipeline_job(self, request):
        """One job, with its state."""
        if request.name not in self.jobs:
            raise not_found(request.name)
        return self.jobs[request.name]

    def list_pipeline_jobs(self, request):
        """The jobs of a location, newest first; of a masked request the named fields alone."""
        resources.require(request, "parent")
        if request.order_by not in ("", "create_time desc"):
            raise invalid(f"order_by {request.order_by!r} is not emulated")
        found = [
            job
            for name, job in reversed(self.jobs.items())
            if name.startswith(f"{request.parent}/pipelineJobs/")
        ]
        response = v1.ListPipelineJobsResponse.pb()()
        resources.page(found, request, response, "pipeline_jobs")
        if request.read_mask.paths:
            for job in response.pipeline_jobs:
                for field, _ in job.ListFields():
                    if field.name not in request.read_mask.paths:
                        job.ClearField(field.name)
        return response

    def cancel_pipeline_job(self, request):
        """Ends a job; one that has ended is refused."""
        job = self.get_pipeline_job(request)
        if job.state in _ENDED:
            raise precondition(f"{job.name} has ended")
        job.state = State.PIPELINE_STATE_CANCELLING
        self._at_work[job.name].cancelled.set()
        return empty_pb2.Empty()

    def delete_pipeline_job(self, request):
        """Removes a job that has ended."""
        job = self.get_pipeline_job(request)
        if job.state not in _ENDED:
            raise precondition(f"{job.name} has not ended")

        def work():
            del self.jobs[job.name]
            return empty_pb2.Empty()

        metadata = v1.DeleteOperationMetadata.pb()()
        return self.operations.begin("DeletePipelineJob", job.name, metadata, work)

    def active(self, schedule: str) -> int:
        """How many jobs of a schedule have not ended."""
        return sum(
            job.schedule_name == schedule and job.state not in _ENDED for job in self.jobs.values()
        )


def _as_json(value):
    """Whole numbers as JSON has them: a protobuf Struct keeps all numbers as floats."""
    if isinstance(value, dict):
        return {key: _as_json(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_as_json(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _last(name: str) -> str:
    return name.rpartition("/")[2]
