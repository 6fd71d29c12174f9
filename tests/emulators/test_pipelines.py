"""The emulated PipelineService: jobs run by a given program, with the states of the real one."""

import threading

import pytest
from google.cloud import aiplatform_v1 as v1

from tests.emulators import jobs
from tests.emulators.resources import ApiError
from tests.emulators.vertex import Vertex, request_types

PARENT = "projects/research/locations/europe-west4"
NAME = f"{PARENT}/pipelineJobs/job-1"
State = v1.PipelineState
OTHERS: set[threading.Thread] = set()


def call(vertex, method, snake, **fields):
    request = request_types("PipelineService", "pipeline_service")[method](**fields)
    return vertex.call(method, snake, "pipelines", request)


def spec():
    """A pipeline of one program."""
    container = {"image": "registry.test/tiny:1", "command": ["true"]}
    return {
        "pipelineInfo": {"name": "tiny"},
        "root": {"dag": {"tasks": {"First": {"componentRef": {"name": "First"}}}}},
        "components": {"First": {"executorLabel": "first"}},
        "deploymentSpec": {"executors": {"first": {"container": container}}},
    }


def create(vertex, job="job-1", root="gs://bucket/root", **parameters):
    runtime = v1.PipelineJob.RuntimeConfig(gcs_output_directory=root, parameter_values=parameters)
    message = v1.PipelineJob.pb(
        v1.PipelineJob(display_name="training", pipeline_spec=spec(), runtime_config=runtime)
    )
    return call(
        vertex,
        "CreatePipelineJob",
        "create_pipeline_job",
        parent=PARENT,
        pipeline_job=message,
        pipeline_job_id=job,
    )


@pytest.fixture(autouse=True)
def others():
    """Threads of whatever ran before in this process; the jobs' are those that come."""
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


def ended(vertex):
    """The job once its thread is done with it."""
    for thread in set(threading.enumerate()) - OTHERS:
        thread.join(timeout=10)
    return call(vertex, "GetPipelineJob", "get_pipeline_job", name=NAME)


def failing(job, tell):
    """A run whose first node fails."""
    tell("First", "running", "")
    tell("First", "failed", "no space left")
    return False


@pytest.mark.parametrize(
    ("run", "state", "error"),
    [
        (jobs.run, State.PIPELINE_STATE_SUCCEEDED, ""),
        (lambda job, tell: job.run_id == "job-1", State.PIPELINE_STATE_SUCCEEDED, ""),
        (failing, State.PIPELINE_STATE_FAILED, "tasks failed. The failed tasks are: [First]."),
        (lambda job, tell: 1 / 0, State.PIPELINE_STATE_FAILED, "division by zero"),
    ],
)
def test_runs_jobs(run, state, error):
    vertex = Vertex(run)
    assert create(vertex).name == NAME
    job = ended(vertex)
    assert job.state == state
    assert job.error.message.endswith(error)
    with pytest.raises(ApiError, match="already exists"):
        create(vertex)
    with pytest.raises(ApiError, match="has ended"):
        call(vertex, "CancelPipelineJob", "cancel_pipeline_job", name=NAME)


def test_a_cancelled_job_stays_cancelled():
    go = threading.Event()
    vertex = Vertex(lambda job, tell: go.wait(10))
    create(vertex)
    call(vertex, "CancelPipelineJob", "cancel_pipeline_job", name=NAME)
    go.set()
    assert ended(vertex).state == State.PIPELINE_STATE_CANCELLED


def test_refuses_what_the_service_refuses():
    vertex = Vertex()
    for wrong, message in [
        ({"root": "s3://bucket"}, "no gs:// URI"),
        ({"epochs": 3}, "no parameter epochs"),
        ({"job": "Job_1"}, "malformed"),
    ]:
        with pytest.raises(ApiError, match=message):
            create(vertex, **wrong)
    assert not vertex.pipelines.jobs


def test_lists_pages_by_filter_and_refuses_what_it_does_not_know():
    vertex = Vertex()
    for number in range(3):
        create(vertex, f"job-{number}")
    listed = {"parent": PARENT, "page_size": 2, "filter": 'display_name="training"'}
    page = call(vertex, "ListPipelineJobs", "list_pipeline_jobs", **listed)
    assert [job.name[-1] for job in page.pipeline_jobs] == ["2", "1"]
    page = call(
        vertex, "ListPipelineJobs", "list_pipeline_jobs", **listed, page_token=page.next_page_token
    )
    assert [job.name[-1] for job in page.pipeline_jobs] == ["0"]
    assert not page.next_page_token
    for bad in ("nothing=1", "display_name ~ x"):
        with pytest.raises(ApiError):
            call(vertex, "ListPipelineJobs", "list_pipeline_jobs", parent=PARENT, filter=bad)
    with pytest.raises(ApiError, match="not emulated"):
        vertex.call(
            "CreateTrainingPipeline",
            "create_training_pipeline",
            "pipelines",
            v1.CreateTrainingPipelineRequest.pb()(),
        )
