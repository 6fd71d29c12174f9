"""Vertex AI's PipelineService: jobs that a given program runs, or that succeed at once."""

import itertools
import threading
from collections.abc import Callable

from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from tests.emulators import resources
from tests.emulators.resources import Operations, not_found, precondition

State = v1.PipelineState
_ENDED = (
    State.PIPELINE_STATE_SUCCEEDED,
    State.PIPELINE_STATE_FAILED,
    State.PIPELINE_STATE_CANCELLED,
)


class Pipelines:
    """Pipeline jobs. `run` gets the job and says whether it succeeded; it may raise."""

    def __init__(self, operations: Operations, run: Callable[[object], bool] | None = None):
        self.operations = operations
        self.jobs: dict[str, object] = {}
        self._run = run
        self._ids = itertools.count(1)

    def create_pipeline_job(self, request):
        """Starts a job."""
        resources.require(request, "parent", "pipeline_job")
        identifier = request.pipeline_job_id or str(next(self._ids))
        name = f"{request.parent}/pipelineJobs/{identifier}"
        if name in self.jobs:
            raise resources.exists(name)
        job = v1.PipelineJob.pb()()
        job.CopyFrom(request.pipeline_job)
        job.name = name
        job.state = State.PIPELINE_STATE_RUNNING
        job.create_time.CopyFrom(resources.now())
        job.start_time.CopyFrom(resources.now())
        self.jobs[name] = job
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return job

    def _work(self, job) -> None:
        try:
            succeeded = self._run is None or self._run(job)
            problem = "" if succeeded else "the job failed"
        except Exception as error:
            problem = str(error) or type(error).__name__
        if job.state == State.PIPELINE_STATE_CANCELLED:
            return
        if problem:
            job.error.code, job.error.message = 13, problem
        job.end_time.CopyFrom(resources.now())
        job.state = State.PIPELINE_STATE_FAILED if problem else State.PIPELINE_STATE_SUCCEEDED

    def get_pipeline_job(self, request):
        """One job, with its state."""
        if request.name not in self.jobs:
            raise not_found(request.name)
        return self.jobs[request.name]

    def list_pipeline_jobs(self, request):
        """The jobs of a location, newest first."""
        resources.require(request, "parent")
        found = [
            job
            for name, job in reversed(self.jobs.items())
            if name.startswith(f"{request.parent}/pipelineJobs/")
        ]
        return resources.page(found, request, v1.ListPipelineJobsResponse.pb()(), "pipeline_jobs")

    def cancel_pipeline_job(self, request):
        """Marks a job as cancelled; one that has ended is refused."""
        job = self.get_pipeline_job(request)
        if job.state in _ENDED:
            raise precondition(f"{job.name} has ended")
        job.state = State.PIPELINE_STATE_CANCELLED
        job.end_time.CopyFrom(resources.now())
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
