"""CustomJobs: what is sent, how a job's states are told, and what SIGTERM does."""

import os
import signal
import threading
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from components.distributed_training import hand_over, job_name
from components.training_jobs import TrainingJobError
from pipeline import distributed, presets
from pipeline.config import with_overrides
from trainer.errors import Preempted

SERVICE = "google.cloud.aiplatform.v1.JobService"
PARENT = "projects/lab/locations/europe-west4"


class JobService(grpc.GenericRpcHandler):
    """The four methods that a node asks; jobs go through given states, one at each look."""

    def __init__(self):
        self.jobs: dict[str, v1.CustomJob] = {}
        self.states: list[str] = []
        self.calls: list[str] = []

    def service(self, details):
        method = details.method.removeprefix(f"/{SERVICE}/")
        kinds = {
            "CreateCustomJob": v1.CreateCustomJobRequest,
            "GetCustomJob": v1.GetCustomJobRequest,
            "ListCustomJobs": v1.ListCustomJobsRequest,
            "CancelCustomJob": v1.CancelCustomJobRequest,
        }
        if method not in kinds:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._answer(method, request, context),
            request_deserializer=kinds[method].deserialize,
            response_serializer=lambda answer: (
                type(answer).serialize(answer)
                if hasattr(type(answer), "serialize")
                else answer.SerializeToString()
            ),
        )

    def _answer(self, method, request, context):
        self.calls.append(method)
        if method == "CreateCustomJob":
            name = f"{request.parent}/customJobs/{len(self.jobs) + 1}"
            job = v1.CustomJob(request.custom_job, name=name, state="JOB_STATE_PENDING")
            self.jobs[name] = job
            return job
        if method == "ListCustomJobs":
            wanted = request.filter.split('"')[1]
            return v1.ListCustomJobsResponse(
                custom_jobs=[each for each in self.jobs.values() if each.display_name == wanted]
            )
        if request.name not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.name} not found")
        job = self.jobs[request.name]
        if method == "CancelCustomJob":
            self.states = ["CANCELLED"]
            return empty_pb2.Empty()
        if self.states:
            job.state = f"JOB_STATE_{self.states.pop(0)}"
        if job.state.name == "JOB_STATE_FAILED":
            job.error = {"code": 3, "message": "The replica workerpool1-0 exited with status 1."}
        return job


@pytest.fixture
def service(monkeypatch):
    handler = JobService()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("CORTEXFLOW_VERTEX_EMULATOR_HOST", f"127.0.0.1:{port}")
    monkeypatch.setenv("CLOUD_ML_PROJECT_ID", "lab")
    monkeypatch.setenv("CLOUD_ML_REGION", "europe-west4")
    yield handler
    server.stop(None)


def arguments(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(
        train_files=[],
        eval_files=[],
        base_model=None,
        serving_model_dir=str(folder / "Format-Serving"),
        model_run_dir=None,
        custom_config={},
    )


def told() -> dict:
    wanted = [f"cluster.nodes.{each}.workers=2" for each in distributed.STAGE_OF]
    config = with_overrides(
        presets.load("quickstart"),
        [
            "execution.strategy=multi_worker",
            "cluster.service_account=train@lab.iam.gserviceaccount.com",
            *wanted,
        ],
    )
    return distributed.handover(config, "Teacher", "vertex")


def test_a_custom_job_is_started_and_waited_for(service, tmp_path):
    service.states = ["QUEUED", "PENDING", "RUNNING", "SUCCEEDED"]
    hand_over(arguments(tmp_path), told(), look_seconds=0.01)
    [job] = service.jobs.values()
    assert job.name.startswith(f"{PARENT}/customJobs/")
    assert job.display_name == job_name(str(tmp_path / "job.json"))
    spec = job.job_spec
    assert spec.service_account == "train@lab.iam.gserviceaccount.com"
    assert spec.scheduling.timeout.total_seconds() == 720 * 60
    assert [pool.replica_count for pool in spec.worker_pool_specs] == [1, 1]
    for pool in spec.worker_pool_specs:
        assert pool.machine_spec.machine_type == "n1-highmem-4"
        assert list(pool.container_spec.args) == ["--job", str(tmp_path / "job.json")]


def test_a_job_that_fails_tells_why(service, tmp_path):
    service.states = ["RUNNING", "FAILED"]
    with pytest.raises(TrainingJobError, match="workerpool1-0 exited with status 1"):
        hand_over(arguments(tmp_path), told(), look_seconds=0.01)


def test_another_attempt_waits_for_the_job_that_goes_on(service, tmp_path):
    name = job_name(str(tmp_path / "job.json"))
    place = f"{PARENT}/customJobs/7"
    going = v1.CustomJob(name=place, display_name=name, state="JOB_STATE_RUNNING")
    service.jobs[place] = going
    service.states = ["RUNNING", "SUCCEEDED"]
    hand_over(arguments(tmp_path), told(), look_seconds=0.01)
    assert "CreateCustomJob" not in service.calls


def test_sigterm_cancels_the_job(service, tmp_path):
    service.states = ["RUNNING"]

    def strike():
        while "GetCustomJob" not in service.calls:
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=strike, daemon=True).start()
    with pytest.raises(Preempted):
        hand_over(arguments(tmp_path), told(), look_seconds=0.01)
    assert "CancelCustomJob" in service.calls


def test_a_place_that_is_not_known_is_asked_for(service, tmp_path, monkeypatch):
    monkeypatch.delenv("CLOUD_ML_REGION")
    with pytest.raises(TrainingJobError, match="CLOUD_ML_REGION not set"):
        hand_over(arguments(tmp_path), told(), look_seconds=0.01)
