"""Runs on Vertex AI Pipelines, through Google's generated clients over gRPC.

As in registry/vertex_client.py, the library's convenience layer (`aiplatform.PipelineJob`) is not
used: it is configured by globals and asks a third service for the project's number.
"""

import contextlib
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.backends import cron as crontab
from pipeline.backends import packages, vertex_tasks
from pipeline.backends.interface import (
    ENDED,
    BackendError,
    Recurrence,
    Run,
    RunRequest,
    Schedule,
)
from pipeline.backends.packages import Package
from registry.vertex_settings import VertexSettings

TIMEOUT = 60.0  # seconds for one call
MARK = "cortexflow"  # label of every run and schedule of ours
CATCH_UP = "cortexflow_catch_up"  # label: Vertex AI asks when a schedule goes on, not before
EXPERIMENT = "cortexflow_experiment"
TEMPLATES = "pipeline_templates"
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_LISTED = ("name", "display_name", "state", "create_time", "end_time", "error", "labels")
HELP = "docs/running-on-clusters.md, Credentials"


class VertexBackend:
    """One location of one project."""

    def __init__(self, project: str, location: str):
        """Connects to nothing yet."""
        self.uri = f"vertex://{project}/{location}"
        self._project, self._location = project, location
        self._parent = f"projects/{project}/locations/{location}"
        self._made: dict[str, Any] = {}

    def submit(self, package: str, request: RunRequest, *, version: str = "") -> Run:
        """Starts a run of a compiled pipeline (YAML text); the experiment is a label there."""
        if version:
            self.upload(package, name=request.name, version=version)
        found = packages.read(package)
        job = self._job(found, request, {})
        made = self._call(
            "PipelineService",
            "create_pipeline_job",
            parent=self._parent,
            pipeline_job=job,
            pipeline_job_id=f"{_slug(request.name)[:100]}-{secrets.token_hex(3)}",
        )
        return self._run(made)

    def upload(self, package: str, *, name: str, version: str) -> str:
        """Refused: Vertex AI keeps compiled pipelines in Artifact Registry, by another interface.

        Raises:
            BackendError: always, with what to do.
        """
        raise BackendError(
            f"Vertex AI keeps no pipeline versions of its own (received {name} {version}). Keep "
            "the compiled file in git or in Artifact Registry (a repository of the format KFP), "
            "and submit it with --spec."
        )

    def versions(self, name: str) -> list[str]:
        """None: see `upload`."""
        return []

    def get(self, run_id: str) -> Run:
        """One run with its tasks."""
        return self._run(self._found(run_id))

    def runs(self, limit: int = 50) -> list[Run]:
        """Runs of cortexflow, newest first, without their tasks; of failed ones all is read."""
        from google.protobuf import field_mask_pb2

        pages = self._call(
            "PipelineService",
            "list_pipeline_jobs",
            parent=self._parent,
            filter=f"labels.{MARK}:*",
            order_by="create_time desc",
            page_size=min(limit, 100),
            read_mask=field_mask_pb2.FieldMask(paths=_LISTED),
        )
        found = []
        with self._asking("list runs"):
            for job in pages:
                found.append(job)
                if len(found) == limit:
                    break
        failed = self._types.PipelineState.PIPELINE_STATE_FAILED
        return [
            self.get(_last(job.name)).model_copy(update={"tasks": ()})
            if job.state == failed
            else self._run(job)
            for job in found
        ]

    def logs(self, run_id: str, task: str | None = None, *, follow: bool = False) -> Iterator[str]:
        """What Vertex AI itself knows of each node, and where Cloud Logging keeps its lines.

        Vertex AI hands out no log lines: they are read in Cloud Logging, whose address stands
        behind each node. `follow` changes nothing.
        """
        job = self._found(run_id)
        run = self._run(job)
        if task is not None and task not in {known.name for known in run.tasks}:
            names = ", ".join(known.name for known in run.tasks)
            raise BackendError(f"The run {run_id} has no node {task!r}. It has {names}.")
        for known in run.tasks:
            if task not in (None, known.name):
                continue
            yield f"{known.name}: {known.state}" + (f": {known.error}" if known.error else "")
            if address := vertex_tasks.log_address(job, known.name, self._project):
                yield f"{known.name}: log: {address}"

    def stop(self, run_id: str) -> None:
        """Ends a run that is going on."""
        run = self.get(run_id)
        if run.status in ENDED:
            raise BackendError(f"The run {run_id} has ended already: {run.status}.")
        self._call("PipelineService", "cancel_pipeline_job", name=self._name(run_id))

    def schedule(self, package: str, request: RunRequest, recurrence: Recurrence) -> Schedule:
        """Makes a recurring run. With `catch_up` a run that is due while others go on waits.

        Vertex AI catches up when a paused schedule goes on; `set_enabled` tells it to.
        """
        types = self._types
        found = packages.read(package)
        job = self._job(found, request, {CATCH_UP: "yes" if recurrence.catch_up else "no"})
        entry = types.Schedule(
            display_name=request.name,
            cron=f"TZ=UTC {crontab.checked(recurrence.cron)}",
            create_pipeline_job_request=types.CreatePipelineJobRequest(
                parent=self._parent, pipeline_job=job
            ),
            max_concurrent_run_count=recurrence.max_concurrent,
            allow_queueing=recurrence.catch_up,
            start_time=recurrence.start,
            end_time=recurrence.end,
        )
        made = self._call("ScheduleService", "create_schedule", parent=self._parent, schedule=entry)
        return self._schedule(made)

    def schedules(self) -> list[Schedule]:
        """Recurring runs, newest first."""
        pages = self._call(
            "ScheduleService", "list_schedules", parent=self._parent, order_by="create_time desc"
        )
        with self._asking("list schedules"):
            return [
                self._schedule(entry)
                for entry in pages
                if MARK in entry.create_pipeline_job_request.pipeline_job.labels
            ]

    def set_enabled(self, schedule_id: str, enabled: bool) -> None:
        """Pauses a recurring run, or lets it go on; missed runs are made up if it was made so."""
        name = self._schedule_name(schedule_id)
        if not enabled:
            self._call("ScheduleService", "pause_schedule", name=name)
            return
        entry = self._call("ScheduleService", "get_schedule", name=name)
        labels = entry.create_pipeline_job_request.pipeline_job.labels
        catch_up = labels.get(CATCH_UP) == "yes"
        self._call("ScheduleService", "resume_schedule", name=name, catch_up=catch_up)

    def unschedule(self, schedule_id: str) -> None:
        """Removes a recurring run; runs that it started go on."""
        name = self._schedule_name(schedule_id)
        operation = self._call("ScheduleService", "delete_schedule", name=name)
        with self._asking("delete the schedule"):
            operation.result(timeout=TIMEOUT)

    def _job(self, package: Package, request: RunRequest, more: Mapping[str, str]) -> Any:
        """What is sent of a run; `more` are labels of ours."""
        root = request.pipeline_root
        if not root.startswith("gs://"):
            raise BackendError(
                "Vertex AI keeps artifacts in Cloud Storage (received the pipeline root "
                f"{root or 'none'!r}). Give --pipeline-root gs://BUCKET/PATH."
            )
        labels = {**request.labels, **more}
        if request.experiment:
            labels[EXPERIMENT] = _slug(request.experiment)
        wrong = [k for k, v in labels.items() if not _KEY.fullmatch(k) or not _VALUE.fullmatch(v)]
        if wrong:
            raise BackendError(
                f"Labels on Vertex AI are small letters, digits, '_' and '-', at most 63 (received "
                f"{', '.join(f'{key}={labels[key]}' for key in wrong)}). Rename them."
            )
        types = self._types
        runtime = types.PipelineJob.RuntimeConfig(
            gcs_output_directory=root,
            parameter_values=dict(request.parameters),
            # A failed node ends what waits for it; what does not goes on, so that the view of a
            # refused run is drawn.
            failure_policy=types.PipelineFailurePolicy.PIPELINE_FAILURE_POLICY_FAIL_SLOW,
        )
        return types.PipelineJob(
            display_name=request.name,
            pipeline_spec=(package if request.cache else package.without_cache()).spec,
            runtime_config=runtime,
            labels={MARK: "run", **labels},
            service_account=request.service_account,
        )

    def _run(self, job: Any) -> Run:
        tasks = vertex_tasks.tasks(job)
        status, reason = vertex_tasks.status(job, tasks)
        spec = job.pipeline_spec
        return Run(
            id=_last(job.name),
            name=job.display_name,
            pipeline=spec["pipelineInfo"]["name"] if spec and "pipelineInfo" in spec else "",
            status=status,
            reason=reason,
            started=job.create_time,
            seconds=vertex_tasks.seconds(job.create_time, job.end_time),
            url=f"https://console.cloud.google.com/vertex-ai/locations/{self._location}/pipelines/"
            f"runs/{_last(job.name)}?project={self._project}",
            labels={k: v for k, v in job.labels.items() if k != MARK},
            tasks=tasks,
        )

    def _schedule(self, entry: Any) -> Schedule:
        job = entry.create_pipeline_job_request.pipeline_job
        spec = job.pipeline_spec
        return Schedule(
            id=_last(entry.name),
            name=entry.display_name,
            pipeline=spec["pipelineInfo"]["name"] if spec and "pipelineInfo" in spec else "",
            cron=entry.cron.removeprefix("TZ=UTC").strip(),
            enabled=entry.state == self._types.Schedule.State.ACTIVE,
            catch_up=job.labels.get(CATCH_UP) == "yes",
            max_concurrent=entry.max_concurrent_run_count,
            url=f"https://console.cloud.google.com/vertex-ai/locations/{self._location}/schedules/"
            f"{_last(entry.name)}?project={self._project}",
        )

    def _found(self, run_id: str) -> Any:
        return self._call("PipelineService", "get_pipeline_job", name=self._name(run_id))

    def _name(self, run_id: str) -> str:
        return run_id if "/" in run_id else f"{self._parent}/pipelineJobs/{run_id}"

    def _schedule_name(self, schedule_id: str) -> str:
        return schedule_id if "/" in schedule_id else f"{self._parent}/schedules/{schedule_id}"

    @property
    def _types(self) -> Any:
        from google.cloud import aiplatform_v1

        return aiplatform_v1

    def _call(self, service: str, method: str, **request: Any) -> Any:
        with self._asking(method.replace("_", " ")):
            client = self._client(service)
            return getattr(client, method)(request=request, timeout=TIMEOUT)

    def _client(self, service: str) -> Any:
        if service not in self._made:
            client = getattr(self._types, f"{service}Client")
            emulator = VertexSettings.from_environment().emulator_host
            if emulator:
                import grpc

                channel = grpc.insecure_channel(emulator)
                transport = client.get_transport_class("grpc")(channel=channel)
                self._made[service] = client(transport=transport)
            else:
                host = f"{self._location}-aiplatform.googleapis.com"
                self._made[service] = client(
                    transport="grpc", client_options={"api_endpoint": host}
                )
        return self._made[service]

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turns the client's errors into ours."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        at = f"Vertex AI in {self._project}/{self._location}"
        try:
            yield
        except exceptions.NotFound as error:
            raise BackendError(f"{at} has no such thing: {error.message}") from error
        except (exceptions.Unauthenticated, exceptions.Forbidden, GoogleAuthError) as error:
            raise BackendError(
                f"{at} did not {what}: {error}. Check whom you are there, and what you may "
                f"({HELP})."
            ) from error
        except (exceptions.ServiceUnavailable, exceptions.DeadlineExceeded) as error:
            raise BackendError(
                f"{at} cannot be reached: {error}. Check the network, repeat the command."
            ) from error
        except exceptions.GoogleAPIError as error:
            raise BackendError(
                f"{at} did not {what}: {error}. Mend that and repeat the command."
            ) from error


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _slug(text: str) -> str:
    """A name in the letters that Vertex AI allows in ids and labels."""
    slug = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
    return slug[:63] if slug[:1].isalpha() else f"run-{slug}"[:63].rstrip("-")
