"""Runs on Kubeflow Pipelines, through its API v2beta1."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.backends import cron as crontab
from pipeline.backends import kubeflow_tasks, packages
from pipeline.backends.interface import BackendError, Recurrence, Run, RunRequest, Schedule
from pipeline.backends.kubeflow_client import KubeflowClient, Refused
from pipeline.backends.packages import Package

UI = "KF_PIPELINES_UI_ENDPOINT"  # as kfp's own client reads it
EQUALS = "EQUALS"  # of the API's filters
PAGE = 100
DEFAULT_EXPERIMENT = "cortexflow"


class KubeflowBackend:
    """One installation, and one namespace of it where several share it."""

    def __init__(self, uri: str, host: str, *, namespace: str = ""):
        """Connects to nothing yet.

        Args:
            uri: as it was given.
            host: address of the API, without `/apis`.
            namespace: "" where the installation has one user.
        """
        self.uri = uri
        self._namespace = namespace
        self._ui = os.environ.get(UI, host).rstrip("/")
        self._client = KubeflowClient(host)

    def submit(self, package: str, request: RunRequest, *, version: str = "") -> Run:
        """Starts a run of a compiled pipeline (YAML text), or of a version of it that is kept.

        Labels are kept in the run's description: the API has no place of their own.
        """
        types = self._client.types
        found = packages.read(package)
        if version and not request.cache:
            raise BackendError(
                f"A kept version runs as it is (received {version} without cache). Leave out "
                "--no-cache or the version."
            )
        reference = self._version(found.name, version) if version else None
        spec = (found if request.cache else found.without_cache()).for_kubeflow()
        body = types.V2beta1Run(
            display_name=request.name,
            description=_told(request.labels),
            experiment_id=self._experiment(request.experiment),
            pipeline_spec=None if version else spec,
            pipeline_version_reference=reference,
            runtime_config=_runtime(types, request),
            service_account=request.service_account or None,
        )
        made = self._client.call("RunService", "run_service_create_run", body=body)
        return self._run(made, found)

    def upload(self, package: str, *, name: str, version: str) -> str:
        """Keeps a compiled pipeline as a version of a pipeline, made if it is not there.

        Returns:
            The version's page in the UI.
        """
        packages.read(package)
        identifier = self._pipeline(name)
        if identifier is None:
            types = self._client.types
            body = types.V2beta1Pipeline(display_name=name, namespace=self._namespace or None)
            method = "pipeline_service_create_pipeline"
            identifier = self._client.call("PipelineService", method, body=body).pipeline_id
        with tempfile.TemporaryDirectory(prefix="cortexflow-upload-") as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(package)
            made = self._client.call(
                "PipelineUploadService",
                "upload_pipeline_version",
                uploadfile=str(path),
                name=version,
                pipelineid=identifier,
            )
        return f"{self._ui}/#/pipelines/details/{identifier}/version/{made.pipeline_version_id}"

    def versions(self, name: str) -> list[str]:
        """Versions of a kept pipeline, newest first; none if it is not there."""
        identifier = self._pipeline(name)
        return [] if identifier is None else [v.display_name for v in self._versions(identifier)]

    def get(self, run_id: str) -> Run:
        """One run with its tasks."""
        return self._got(run_id, reasons=True)

    def runs(self, limit: int = 50) -> list[Run]:
        """Runs, newest first, without their tasks; of those that failed all but logs is read."""
        found = self._pages(
            "RunService", "run_service_list_runs", "runs", limit, sort_by="created_at desc"
        )
        return [
            self._got(run.run_id, reasons=False).model_copy(update={"tasks": ()})
            if run.state == "FAILED"
            else self._run(run, None)
            for run in found
        ]

    def logs(self, run_id: str, task: str | None = None, *, follow: bool = False) -> Iterator[str]:
        """Lines of a run's log, of one task or of all that have a pod."""
        found = self._client.call("RunService", "run_service_get_run", run_id=run_id)
        pods = kubeflow_tasks.pods(found)
        known = packages.order(self._package(found).spec)
        if task is not None and task not in known:
            raise BackendError(f"The run {run_id} has no node {task!r}. It has {', '.join(known)}.")
        if task is not None and task not in pods:
            raise BackendError(
                f"{task} has no log: it has not started, was skipped, or was answered by the cache."
            )
        for name in [task] if task else [name for name in known if name in pods]:
            prefix = "" if task else f"{name}: "
            for line in self._pod_lines(run_id, pods[name], follow=follow):
                yield prefix + line

    def stop(self, run_id: str) -> None:
        """Ends a run that is going on."""
        self._client.call("RunService", "run_service_terminate_run", run_id=run_id)

    def schedule(self, package: str, request: RunRequest, recurrence: Recurrence) -> Schedule:
        """Makes a recurring run. Kubeflow's cron has seconds before our five fields."""
        types = self._client.types
        found = packages.read(package)
        trigger = types.V2beta1CronSchedule(
            cron=f"0 {crontab.checked(recurrence.cron)}",
            start_time=recurrence.start,
            end_time=recurrence.end,
        )
        body = types.V2beta1RecurringRun(
            display_name=request.name,
            description=_told(request.labels),
            experiment_id=self._experiment(request.experiment),
            pipeline_spec=(found if request.cache else found.without_cache()).for_kubeflow(),
            runtime_config=_runtime(types, request),
            trigger=types.V2beta1Trigger(cron_schedule=trigger),
            mode="ENABLE",
            no_catchup=not recurrence.catch_up,
            max_concurrency=str(recurrence.max_concurrent),
            namespace=self._namespace or None,
            service_account=request.service_account or None,
        )
        method = "recurring_run_service_create_recurring_run"
        return self._schedule(self._client.call("RecurringRunService", method, body=body))

    def schedules(self) -> list[Schedule]:
        """Recurring runs, newest first."""
        method = "recurring_run_service_list_recurring_runs"
        found = self._pages(
            "RecurringRunService", method, "recurring_runs", None, sort_by="created_at desc"
        )
        return [self._schedule(entry) for entry in found]

    def set_enabled(self, schedule_id: str, enabled: bool) -> None:
        """Pauses a recurring run, or lets it go on."""
        verb = "enable" if enabled else "disable"
        method = f"recurring_run_service_{verb}_recurring_run"
        self._client.call("RecurringRunService", method, recurring_run_id=schedule_id)

    def unschedule(self, schedule_id: str) -> None:
        """Removes a recurring run; runs that it started go on."""
        method = "recurring_run_service_delete_recurring_run"
        self._client.call("RecurringRunService", method, recurring_run_id=schedule_id)

    def _got(self, run_id: str, *, reasons: bool) -> Run:
        found = self._client.call("RunService", "run_service_get_run", run_id=run_id)
        return self._run(found, self._package(found), reasons=reasons)

    def _run(self, run: Any, package: Package | None, *, reasons: bool = False) -> Run:
        """A run as the API tells of it, in our words; with `reasons` from logs of failed nodes."""
        tasks = kubeflow_tasks.tasks(run, packages.order(package.spec)) if package else ()
        if run.state == "FAILED" and reasons:
            tasks = tuple(self._with_reason(run, task) for task in tasks)
        status, reason = kubeflow_tasks.status(run, tasks)
        name = package.name if package else _name(run.pipeline_spec)
        return Run(
            id=run.run_id,
            name=run.display_name or "",
            pipeline=name,
            status=status,
            reason=reason,
            started=run.created_at,
            seconds=kubeflow_tasks.seconds(run.created_at, run.finished_at),
            url=f"{self._ui}/#/runs/details/{run.run_id}",
            labels=_labels(run.description),
            tasks=tasks,
        )

    def _with_reason(self, run: Any, task: Any) -> Any:
        """A failed task with the last line of its log: the API knows its exit status alone."""
        pod = kubeflow_tasks.pods(run).get(task.name)
        if task.state != "failed" or pod is None:
            return task
        last = ""
        try:
            for line in self._pod_lines(run.run_id, pod, follow=False):
                last = line.strip() or last
        except BackendError:  # the pod may be gone; what the API says has to do
            return task
        return task.model_copy(update={"error": kubeflow_tasks.told_by(last) or task.error})

    def _pod_lines(self, run_id: str, pod: str, *, follow: bool) -> Iterator[str]:
        path = f"/apis/v2beta1/runs/{run_id}/nodes/{pod}/log"
        try:
            yield from self._client.lines(path, follow=follow)
        except Refused as refusal:
            if refusal.status in (401, 403):
                raise
            # Installations that keep no logs themselves: the pod's own, while it is there.
            from pipeline.backends import pods

            yield from pods.lines(
                run_id, pod, namespace=self._namespace or "kubeflow", follow=follow, said=refusal
            )

    def _package(self, run: Any) -> Package:
        """The pipeline of a run, which the run has, or the version that it names."""
        if run.pipeline_spec is not None:
            return packages.of_document(run.pipeline_spec)
        reference = run.pipeline_version_reference
        if reference is None:
            raise BackendError(f"The run {run.run_id} names no pipeline; look at it in the UI.")
        version = self._client.call(
            "PipelineService",
            "pipeline_service_get_pipeline_version",
            pipeline_id=reference.pipeline_id,
            pipeline_version_id=reference.pipeline_version_id,
        )
        return packages.of_document(version.pipeline_spec)

    def _experiment(self, name: str) -> str:
        """The experiment of this name, made if it is not there."""
        name = name or DEFAULT_EXPERIMENT
        found = self._named(
            "ExperimentService",
            "experiment_service_list_experiments",
            "experiments",
            name,
        )
        if found:
            return found[0].experiment_id
        body = self._client.types.V2beta1Experiment(
            display_name=name, namespace=self._namespace or None
        )
        method = "experiment_service_create_experiment"
        return self._client.call("ExperimentService", method, body=body).experiment_id

    def _pipeline(self, name: str) -> str | None:
        method = "pipeline_service_list_pipelines"
        found = self._named("PipelineService", method, "pipelines", name)
        return found[0].pipeline_id if found else None

    def _versions(self, identifier: str) -> list[Any]:
        return self._pages(
            "PipelineService",
            "pipeline_service_list_pipeline_versions",
            "pipeline_versions",
            None,
            pipeline_id=identifier,
            sort_by="created_at desc",
        )

    def _version(self, pipeline: str, version: str) -> Any:
        identifier = self._pipeline(pipeline)
        if identifier is None:
            raise BackendError(f"There is no pipeline {pipeline!r} at {self.uri}. Upload it first.")
        for found in self._versions(identifier):
            if found.display_name == version:
                return self._client.types.V2beta1PipelineVersionReference(
                    pipeline_id=identifier, pipeline_version_id=found.pipeline_version_id
                )
        raise BackendError(
            f"The pipeline {pipeline} has no version {version!r} (versions: "
            f"{', '.join(self.versions(pipeline)[:10]) or 'none'})."
        )

    def _named(self, service: str, method: str, field: str, name: str) -> list[Any]:
        """Things of this name."""
        wanted = {"operation": EQUALS, "key": "display_name", "string_value": name}
        text = json.dumps({"predicates": [wanted]})
        return self._pages(service, method, field, 2, filter=text)

    def _pages(
        self, service: str, method: str, field: str, limit: int | None, **arguments: Any
    ) -> list[Any]:
        """All pages of a list, or as many as hold `limit` entries."""
        if self._namespace and "pipeline_id" not in arguments:
            arguments["namespace"] = self._namespace
        found: list[Any] = []
        token = ""
        while True:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            answer = self._client.call(
                service, method, page_token=token, page_size=size, **arguments
            )
            found += getattr(answer, field) or []
            token = answer.next_page_token or ""
            if not token or (limit is not None and len(found) >= limit):
                return found

    def _schedule(self, entry: Any) -> Schedule:
        trigger = entry.trigger and entry.trigger.cron_schedule
        fields = (trigger.cron if trigger else "").split()
        return Schedule(
            id=entry.recurring_run_id,
            name=entry.display_name or "",
            pipeline=_name(entry.pipeline_spec),
            cron=" ".join(fields[1:] if len(fields) == 6 else fields),
            enabled=entry.status == "ENABLED",
            catch_up=not entry.no_catchup,
            max_concurrent=int(entry.max_concurrency or 1),
            url=f"{self._ui}/#/recurringrun/details/{entry.recurring_run_id}",
        )


def _runtime(types: Any, request: RunRequest) -> Any:
    return types.V2beta1RuntimeConfig(
        parameters=dict(request.parameters), pipeline_root=request.pipeline_root or None
    )


def _name(document: Any) -> str:
    """The pipeline's name in a spec, "" where the list leaves specs out."""
    spec = (document or {}).get("pipeline_spec", document) or {}
    return spec.get("pipelineInfo", {}).get("name", "")


def _told(labels: Mapping[str, str]) -> str | None:
    return "\n".join(f"{key}={value}" for key, value in labels.items()) or None


def _labels(description: str | None) -> dict[str, str]:
    """Labels out of a description that holds nothing else."""
    lines: Iterable[list[str]] = [line.split("=", 1) for line in (description or "").splitlines()]
    return {line[0]: line[1] for line in lines} if all(len(line) == 2 for line in lines) else {}
