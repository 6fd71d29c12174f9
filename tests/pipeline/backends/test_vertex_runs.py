"""Runs on Vertex AI Pipelines: Google's client over gRPC before a service that runs them."""

import pytest

from pipeline.backends.interface import BackendError
from pipeline.backends.opening import open_cluster
from tests.pipeline.backends import tiny


def test_a_run_is_made_and_ends_well(vertex):
    made = tiny.submitted(
        vertex, tiny.package(), parameters={"word": "bonjour"}, labels={"commit": "3af5423"}
    )
    assert made.status in ("pending", "running")
    assert made.id.startswith("tiny-run-")
    assert made.url == (
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/"
        f"{made.id}?project=research"
    )
    run = tiny.ended(vertex, made.id)
    assert (run.status, run.reason, run.pipeline, run.name) == ("passed", "", "tiny", "tiny run")
    assert run.labels == {"commit": "3af5423", "cortexflow_experiment": "trials"}
    assert tiny.states(run) == {"First": "ran"}
    assert run.seconds is not None


def test_any_other_failure_is_one_of_the_infrastructure(vertex):
    run = tiny.ended(vertex, tiny.submitted(vertex, tiny.breaking()).id)
    assert (run.status, run.reason) == ("failed", "Teacher: exit status 1")
    assert tiny.states(run)["StopOnRefusal"] == "skipped"


def test_a_run_is_stopped_once(vertex, tmp_path):
    made = tiny.submitted(vertex, tiny.waiting(tmp_path / "never"))
    tiny.until(
        lambda: vertex.get(made.id), lambda run: tiny.states(run)["First"] == "ran", "first node"
    )
    vertex.stop(made.id)
    run = tiny.ended(vertex, made.id)
    assert run.status == "stopped"
    assert tiny.states(run)["Second"] == "stopped"
    with pytest.raises(BackendError, match="has ended already: stopped"):
        vertex.stop(made.id)


def test_logs_say_what_is_known_and_where_the_lines_are(vertex):
    run = tiny.ended(vertex, tiny.submitted(vertex, tiny.refusing()).id)
    lines = list(vertex.logs(run.id, "StopOnRefusal"))
    assert lines[0] == "StopOnRefusal: failed: exit status 1"
    assert "https://console.cloud.google.com/logs/query;query=resource.type%3D%22ml_job" in lines[1]
    assert lines[1].endswith("?project=research")
    assert [line.split(":")[0] for line in vertex.logs(run.id)].count("RegistryPusher") == 1
    with pytest.raises(BackendError, match="no node 'Pusher'"):
        list(vertex.logs(run.id, "Pusher"))


def test_runs_of_others_are_not_listed(vertex, vertex_ai):
    from google.cloud import aiplatform_v1 as v1

    mine = [tiny.submitted(vertex, tiny.package()).id for _ in range(3)]
    runtime = v1.PipelineJob.RuntimeConfig(gcs_output_directory="gs://bucket/root")
    other = v1.PipelineJob(pipeline_spec=tiny.spec(), runtime_config=runtime)
    parent = "projects/research/locations/europe-west4"
    vertex._call("PipelineService", "create_pipeline_job", parent=parent, pipeline_job=other)
    assert [run.id for run in vertex.runs()] == mine[::-1]
    assert [run.id for run in vertex.runs(limit=2)] == mine[:0:-1]


def test_what_the_service_would_refuse_is_refused_before(vertex):
    with pytest.raises(BackendError, match="Give --pipeline-root gs://BUCKET/PATH"):
        tiny.submitted(vertex, tiny.package(), pipeline_root="minio://bucket")
    with pytest.raises(BackendError, match=r"Labels .*\(received Commit=3af5423\)"):
        tiny.submitted(vertex, tiny.package(), labels={"Commit": "3af5423"})
    with pytest.raises(BackendError, match="has no parameter sword"):
        tiny.submitted(vertex, tiny.package(), parameters={"sword": "x"})


def test_versions_are_kept_elsewhere(vertex):
    assert vertex.versions("tiny") == []
    with pytest.raises(BackendError, match="Artifact Registry"):
        vertex.upload(tiny.package(), name="tiny", version="1")


def test_a_cache_that_is_off_is_off_for_every_node(vertex):
    made = tiny.submitted(vertex, tiny.package(), cache=False)
    tasks = vertex._found(made.id).pipeline_spec["root"]["dag"]["tasks"]
    assert [tasks[name]["cachingOptions"]["enableCache"] for name in tasks] == [False]


def test_the_service_account_is_sent(vertex):
    account = "runner@research.iam.gserviceaccount.com"
    made = tiny.submitted(vertex, tiny.package(), service_account=account)
    assert vertex._found(made.id).service_account == account


def test_errors_are_one_clear_line(vertex, vertex_ai, monkeypatch):
    with pytest.raises(BackendError, match="has no such thing: .*nobody is not found"):
        vertex.get("nobody")
    vertex_ai(refuse={"GetPipelineJob": ["PERMISSION_DENIED", "aiplatform.pipelineJobs.get"]})
    with pytest.raises(BackendError, match="pipelineJobs.get. Check whom you are there"):
        vertex.get("nobody")
    monkeypatch.setenv("CORTEXFLOW_VERTEX_EMULATOR_HOST", "127.0.0.1:9")
    monkeypatch.setattr("pipeline.backends.vertex.TIMEOUT", 2.0)
    with pytest.raises(BackendError, match="cannot be reached"):
        open_cluster("vertex://research/europe-west4").get("nobody")


def test_schedules_start_what_is_due(vertex, vertex_ai):
    made = tiny.scheduled(vertex, cron="0 3 * * *")
    assert (made.cron, made.enabled, made.catch_up, made.max_concurrent) == (
        "0 3 * * *",
        True,
        False,
        1,
    )
    assert (made.name, made.pipeline) == ("nightly", "tiny")
    assert vertex.runs() == []
    vertex_ai(advance=tiny.minutes(24 * 60))
    run = settled(vertex, 1)[0]
    assert run.status == "passed"
    assert [entry.id for entry in vertex.schedules()] == [made.id]
    vertex.unschedule(made.id)
    assert vertex.schedules() == []
    assert [run.id for run in vertex.runs()] == [run.id]


@pytest.mark.parametrize(("catch_up", "missed"), [(False, 0), (True, 3)])
def test_a_paused_schedule_catches_up_if_it_was_made_so(vertex, vertex_ai, catch_up, missed):
    made = tiny.scheduled(vertex, catch_up=catch_up)
    vertex.set_enabled(made.id, False)
    assert not vertex.schedules()[0].enabled
    vertex_ai(advance=tiny.minutes(180))
    assert vertex.runs() == []
    vertex.set_enabled(made.id, True)
    assert len(settled(vertex, missed)) == missed


@pytest.mark.parametrize(("catch_up", "total"), [(False, 2), (True, 4)])
def test_what_is_due_beyond_the_limit_waits_or_is_left_out(
    vertex, vertex_ai, tmp_path, catch_up, total
):
    signal = tmp_path / "go"
    text = tiny.waiting(signal)
    tiny.scheduled(vertex, text, parameters={}, catch_up=catch_up, max_concurrent=2)
    vertex_ai(advance=tiny.minutes(240))
    assert len(vertex.runs()) == 2
    signal.touch()
    assert len(settled(vertex, total)) == total


def settled(backend, count):
    return tiny.until(
        backend.runs,
        lambda runs: len(runs) == count and not {r.status for r in runs} & {"pending", "running"},
        f"{count} runs",
    )
