"""Vertex AI's ScheduleService: recurring pipeline jobs, by a clock that a test moves.

https://cloud.google.com/vertex-ai/docs/reference/rpc/google.cloud.aiplatform.v1#scheduleservice
"""

import datetime
import itertools

from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from tests.emulators import resources
from tests.emulators.clock import Clock, Cron
from tests.emulators.pipelines import Pipelines
from tests.emulators.resources import Operations, invalid, not_found, precondition

State = v1.Schedule.State
UTC = "TZ=UTC "


class Schedules:
    """Schedules; `tick` starts what is due."""

    def __init__(self, operations: Operations, pipelines: Pipelines, clock: Clock):
        self.operations = operations
        self.pipelines = pipelines
        self.clock = clock
        self.schedules: dict[str, object] = {}
        self._looked: dict[str, datetime.datetime] = {}
        self._queued: dict[str, int] = {}
        self._ids = itertools.count(1)

    def create_schedule(self, request):
        """A new schedule, active at once."""
        given = request.schedule
        resources.require(
            request,
            "parent",
            "schedule.display_name",
            "schedule.cron",
            "schedule.max_concurrent_run_count",
            "schedule.create_pipeline_job_request.parent",
        )
        if given.create_pipeline_job_request.pipeline_job_id:
            raise invalid("A scheduled pipeline job has no id of its own")
        self._cron(given)
        entry = v1.Schedule.pb()()
        entry.CopyFrom(given)
        entry.name = f"{request.parent}/schedules/{next(self._ids)}"
        entry.state = State.ACTIVE
        entry.create_time.FromDatetime(self.clock.now())
        self.schedules[entry.name] = entry
        self._looked[entry.name], self._queued[entry.name] = self.clock.now(), 0
        return entry

    def get_schedule(self, request):
        """One schedule."""
        if request.name not in self.schedules:
            raise not_found(request.name)
        return self.schedules[request.name]

    def list_schedules(self, request):
        """The schedules of a location, newest first."""
        resources.require(request, "parent")
        found = [
            entry
            for name, entry in reversed(self.schedules.items())
            if name.startswith(f"{request.parent}/schedules/")
        ]
        return resources.page(found, request, v1.ListSchedulesResponse.pb()(), "schedules")

    def pause_schedule(self, request):
        """Nothing is started from now on."""
        entry = self.get_schedule(request)
        if entry.state != State.ACTIVE:
            raise precondition(f"{entry.name} is not active")
        entry.state = State.PAUSED
        entry.last_pause_time.FromDatetime(self.clock.now())
        return empty_pb2.Empty()

    def resume_schedule(self, request):
        """Goes on; what was missed is made up if `catch_up`."""
        entry = self.get_schedule(request)
        if entry.state != State.PAUSED:
            raise precondition(f"{entry.name} is not paused")
        entry.state = State.ACTIVE
        entry.catch_up = request.catch_up
        entry.last_resume_time.FromDatetime(self.clock.now())
        if not request.catch_up:
            self._looked[entry.name] = self.clock.now()
        self.tick()
        return empty_pb2.Empty()

    def delete_schedule(self, request):
        """Removes a schedule; its jobs go on."""
        entry = self.get_schedule(request)

        def work():
            del self.schedules[entry.name]
            return empty_pb2.Empty()

        metadata = v1.DeleteOperationMetadata.pb()()
        return self.operations.begin("DeleteSchedule", entry.name, metadata, work)

    def tick(self) -> None:
        """Starts what is due, as far as concurrency allows; the rest waits or is left out."""
        for entry in self.schedules.values():
            if entry.state != State.ACTIVE:
                continue
            now = self.clock.now()
            due = list(self._cron(entry).between(self._looked[entry.name], now))
            self._looked[entry.name] = now
            waiting = self._queued[entry.name] + len(due)
            while waiting and self.pipelines.active(entry.name) < entry.max_concurrent_run_count:
                self._start(entry)
                waiting -= 1
            self._queued[entry.name] = waiting if entry.allow_queueing or entry.catch_up else 0

    def _start(self, entry) -> None:
        request = entry.create_pipeline_job_request
        entry.started_run_count += 1
        identifier = f"schedule-{entry.name.rpartition('/')[2]}-{entry.started_run_count}"
        name = f"{request.parent}/pipelineJobs/{identifier}"
        self.pipelines.start(name, request.pipeline_job, entry.name)
        entry.last_scheduled_run_response.run_response = name

    def _cron(self, entry) -> Cron:
        try:
            return Cron(entry.cron.removeprefix(UTC))
        except ValueError as problem:
            raise invalid(f"cron: {problem}") from None
