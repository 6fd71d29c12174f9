"""Who runs distributed trainings: Kubeflow's training operator, or Vertex AI.

Both are asked for three things: start a job under a name, say how it is, stop it. Client libraries
are loaded, and connections made, at the first question.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from schema.errors import CortexflowError

GROUP, VERSION, PLURAL = "kubeflow.org", "v1", "tfjobs"
OF_JOB = "training.kubeflow.org/job-name"  # label that the operator gives to a job's pods
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CALL_SECONDS = 30
RETRIED = 128  # exit codes from here on mean that a machine was taken back, or a peer was lost
UNREACHABLE = (408, 429, 500, 502, 503, 504)

Word = Literal["pending", "running", "succeeded", "failed"]


class TrainingJobError(CortexflowError):
    """A distributed training failed, or cannot be started."""


class Unreachable(TrainingJobError):
    """Whoever runs the job does not answer at present."""


@dataclass(frozen=True)
class State:
    """How a job is; `reason` is that of the worker that failed, or what its runner says."""

    word: Word
    reason: str = ""


class Jobs(Protocol):
    """Whoever runs jobs. All methods raise TrainingJobError, Unreachable where waiting may help."""

    def start(self, name: str, job: Any) -> None:
        """Starts a job; one of this name that goes on or succeeded is taken as the one meant."""
        ...

    def look(self, name: str) -> State | None:
        """How it is; None where there is none."""
        ...

    def stop(self, name: str) -> None:
        """Stops it; its workers get SIGTERM. Nothing happens where there is none."""
        ...


def open_jobs(told: Mapping[str, Any]) -> Jobs:
    """Who runs the job of `pipeline.distributed.handover`; connects to nothing yet."""
    if told["target"] == "kubeflow":
        return KubeflowJobs()
    return VertexJobs(told["timeout_seconds"], told.get("service_account", ""))


class KubeflowJobs:
    """TFJobs of the namespace that this pod, or the present context of kubectl, is in."""

    def __init__(self) -> None:
        self._made: tuple[Any, Any, str] | None = None

    def start(self, name: str, job: Any) -> None:
        """Creates the TFJob. One that failed before is removed first."""
        objects, _, namespace = self._connected()
        state = self.look(name)
        if state is not None and state.word == "failed":
            self.stop(name)
            _until_gone(self, name)
            state = None
        if state is not None:
            return
        with _asking("create the TFJob"):
            objects.create_namespaced_custom_object(
                GROUP, VERSION, namespace, PLURAL, job, _request_timeout=CALL_SECONDS
            )

    def look(self, name: str) -> State | None:
        """Reads the TFJob's conditions, and of a failed one the ends of its pods."""
        from kubernetes.client.exceptions import ApiException

        objects, _, namespace = self._connected()
        with _asking("read the TFJob"):
            try:
                job = objects.get_namespaced_custom_object(
                    GROUP, VERSION, namespace, PLURAL, name, _request_timeout=CALL_SECONDS
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
        state = state_of(job.get("status") or {})
        if state.word != "failed":
            return state
        return State("failed", " ".join(filter(None, (self._worker_ended(name), state.reason))))

    def stop(self, name: str) -> None:
        """Deletes the TFJob, its pods first."""
        from kubernetes.client.exceptions import ApiException

        objects, _, namespace = self._connected()
        with _asking("delete the TFJob"):
            try:
                objects.delete_namespaced_custom_object(
                    GROUP,
                    VERSION,
                    namespace,
                    PLURAL,
                    name,
                    body={"propagationPolicy": "Foreground"},
                    _request_timeout=CALL_SECONDS,
                )
            except ApiException as error:
                if error.status != 404:
                    raise

    def _worker_ended(self, name: str) -> str:
        """The worst end of the job's pods in words; "" if none is known."""
        _, core, namespace = self._connected()
        with _asking("list the TFJob's pods"):
            pods = core.list_namespaced_pod(
                namespace, label_selector=f"{OF_JOB}={name}", _request_timeout=CALL_SECONDS
            )
        ends = [
            (status.state.terminated, pod.metadata.name)
            for pod in pods.items
            for status in pod.status.container_statuses or ()
            if status.state.terminated is not None and status.state.terminated.exit_code != 0
        ]
        if not ends:
            return ""
        # Who failed by itself, before those that were stopped, or ended since a peer was gone.
        end, pod = min(ends, key=lambda each: (each[0].exit_code >= RETRIED, each[1]))
        lines = [line for line in (end.message or "").splitlines() if line.strip()]
        told = f": {lines[-1].strip()}" if lines else f" ({end.reason})" if end.reason else ""
        return f"{pod} ended with {end.exit_code}{told}"

    def _connected(self) -> tuple[Any, Any, str]:
        if self._made is None:
            self._made = _connect()
        return self._made


def state_of(status: Mapping[str, Any]) -> State:
    """The state that a TFJob's `status` tells, by the newest condition that holds."""
    words: dict[str, Word] = {"Succeeded": "succeeded", "Failed": "failed", "Running": "running"}
    held = [each for each in status.get("conditions") or () if each.get("status") == "True"]
    for kind, word in words.items():
        for each in held:
            if each["type"] == kind:
                reason = each.get("message") or each.get("reason") or ""
                return State(word, reason if word == "failed" else "")
    return State("pending", held[-1]["type"].lower() if held else "")


class VertexJobs:
    """CustomJobs of the project and location that this node runs in."""

    def __init__(self, timeout_seconds: int, service_account: str = "") -> None:
        self._timeout, self._account = timeout_seconds, service_account
        self._client: Any = None
        self._names: dict[str, str] = {}  # display name → resource name

    def start(self, name: str, job: Any) -> None:
        """Creates the CustomJob, unless one of this name goes on."""
        from google.cloud import aiplatform_v1

        with _asking("start the CustomJob"):
            parent = _vertex_location()
            going = self._connected().list_custom_jobs(
                request={"parent": parent, "filter": f'display_name="{name}"'},
                timeout=CALL_SECONDS,
            )
            for each in going:
                if _vertex_state(each).word in ("pending", "running"):
                    self._names[name] = each.name
                    return
            spec: dict[str, Any] = {
                "worker_pool_specs": job,
                "scheduling": {"timeout": {"seconds": self._timeout}},
                "service_account": self._account,
            }
            made = self._connected().create_custom_job(
                parent=parent,
                custom_job=aiplatform_v1.CustomJob(display_name=name, job_spec=spec),
                timeout=CALL_SECONDS,
            )
            self._names[name] = made.name

    def look(self, name: str) -> State | None:
        """Reads the job's state, and of a failed one its error."""
        if name not in self._names:
            return None
        with _asking("read the CustomJob"):
            job = self._connected().get_custom_job(name=self._names[name], timeout=CALL_SECONDS)
        return _vertex_state(job)

    def stop(self, name: str) -> None:
        """Cancels it."""
        if name in self._names:
            with _asking("cancel the CustomJob"):
                self._connected().cancel_custom_job(name=self._names[name], timeout=CALL_SECONDS)

    def _connected(self) -> Any:
        if self._client is None:
            from google.cloud import aiplatform_v1

            from registry.vertex_settings import VertexSettings

            kind = aiplatform_v1.JobServiceClient
            host = VertexSettings.from_environment().emulator_host
            if host:
                import grpc

                channel = grpc.insecure_channel(host)
                self._client = kind(transport=kind.get_transport_class("grpc")(channel=channel))
            else:
                location = _vertex_location().rpartition("/")[2]
                self._client = kind(
                    client_options={"api_endpoint": f"{location}-aiplatform.googleapis.com"}
                )
        return self._client


def _vertex_location() -> str:
    """`projects/…/locations/…`, from what Vertex AI tells every container that it runs."""
    values = {key: os.environ.get(key) for key in ("CLOUD_ML_PROJECT_ID", "CLOUD_ML_REGION")}
    missing = [key for key, value in values.items() if not value]
    if missing:
        raise TrainingJobError(
            f"{' and '.join(missing)} not set, so that project and location of the CustomJob are "
            "not known. Vertex AI sets them in the nodes of a pipeline; elsewhere, set them."
        )
    project, region = values.values()
    return f"projects/{project}/locations/{region}"


def _vertex_state(job: Any) -> State:
    name = job.state.name.removeprefix("JOB_STATE_")
    if name == "SUCCEEDED":
        return State("succeeded")
    if name in ("FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"):
        return State("failed", job.error.message or name.lower())
    return State("running" if name == "RUNNING" else "pending", name.lower())


def _until_gone(jobs: Jobs, name: str) -> None:
    import time

    until = time.monotonic() + 300
    while jobs.look(name) is not None:
        if time.monotonic() > until:
            raise TrainingJobError(
                f"{name}, which failed before, is deleted but not gone after 300 s. Look for a "
                "finalizer with kubectl describe tfjob, and run the pipeline again."
            )
        time.sleep(0.5)


def _connect() -> tuple[Any, Any, str]:
    """Kubernetes' clients and the namespace: of this pod, else of kubectl's present context."""
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
        namespace = NAMESPACE_FILE.read_text().strip()
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=settings)
            _, context = config.list_kube_config_contexts()
        except config.ConfigException as error:
            raise TrainingJobError(
                f"No Kubernetes is known here ({error}): this is no pod, and there is no "
                "kubeconfig. Run the node on a cluster, or set KUBECONFIG."
            ) from error
        namespace = context["context"].get("namespace", "default")
    api = client.ApiClient(settings)
    return client.CustomObjectsApi(api), client.CoreV1Api(api), namespace


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turns the errors of both client libraries into ours."""
    try:
        yield
    except TrainingJobError:
        raise
    except Exception as error:
        code, message = _told(error)
        if code is None and not _of_the_network(error):
            raise
        kind = Unreachable if code is None or code in UNREACHABLE else TrainingJobError
        hint = " Its service account lacks the right: see docs/kubernetes.md." * (code == 403)
        raise kind(f"Could not {what}: {message}.{hint}") from error


def _told(error: Exception) -> tuple[int | None, str]:
    """HTTP status and words of an error that a server gave."""
    if hasattr(error, "status") and hasattr(error, "body"):  # kubernetes' ApiException
        try:
            words = json.loads(error.body)["message"]
        except (TypeError, ValueError, KeyError):
            words = error.reason if hasattr(error, "reason") else str(error)
        return error.status or None, str(words).rstrip(".")
    code = getattr(error, "code", None)  # google.api_core's GoogleAPICallError
    return (int(code), str(error).rstrip(".")) if isinstance(code, int) else (None, str(error))


def _of_the_network(error: Exception) -> bool:
    import urllib3

    return isinstance(error, urllib3.exceptions.HTTPError | OSError)
