"""Runs on Kubeflow Pipelines: its own client library before a server that runs what it is sent."""

import pytest

from pipeline.backends.interface import BackendError
from pipeline.backends.opening import open_cluster
from tests.pipeline.backends import tiny


def test_a_run_is_made_and_ends_well(kubeflow, kfp):
    made = tiny.submitted(
        kubeflow, tiny.package(), parameters={"word": "bonjour"}, labels={"commit": "3af5423"}
    )
    assert made.status in ("pending", "running")
    assert made.url == f"http://{kfp.address}/#/runs/details/{made.id}"
    run = tiny.ended(kubeflow, made.id)
    assert (run.status, run.reason, run.pipeline) == ("passed", "", "tiny")
    assert run.labels == {"commit": "3af5423"}
    assert run.seconds is not None
    assert tiny.states(run) == {"First": "ran"}
    assert list(kubeflow.logs(run.id, "First")) == ["bonjour"]


def test_experiments_are_made_once(kubeflow, kfp):
    for _ in range(2):
        tiny.submitted(kubeflow, tiny.package())
    calls = kfp()["calls"]
    assert calls.count("POST /apis/v2beta1/experiments") == 1
    assert calls.count("POST /apis/v2beta1/runs") == 2


def test_any_other_failure_is_one_of_the_infrastructure(kubeflow):
    run = tiny.ended(kubeflow, tiny.submitted(kubeflow, tiny.breaking()).id)
    assert run.status == "failed"
    assert run.reason == "Teacher: OSError: No space left on device"
    assert tiny.states(run)["StopOnRefusal"] == "skipped"


def test_without_its_log_a_failure_is_told_by_the_exit_status(kubeflow, kfp):
    run = tiny.ended(kubeflow, tiny.submitted(kubeflow, tiny.breaking()).id)
    kfp(keeps_logs=False)
    assert kubeflow.get(run.id).reason == "Teacher: exit status 1"
    with pytest.raises(BackendError, match="pods .* not found"):
        list(kubeflow.logs(run.id, "Teacher"))


def test_a_run_is_stopped(kubeflow, tmp_path):
    made = tiny.submitted(kubeflow, tiny.waiting(tmp_path / "never"))
    tiny.until(
        lambda: kubeflow.get(made.id), lambda run: tiny.states(run)["First"] == "ran", "first node"
    )
    kubeflow.stop(made.id)
    run = tiny.ended(kubeflow, made.id)
    assert run.status == "stopped"
    assert tiny.states(run) == {"First": "ran", "Second": "stopped", "Third": "stopped"}


def test_logs_of_all_nodes_and_one_that_goes_on(kubeflow, tmp_path):
    signal = tmp_path / "go"
    made = tiny.submitted(kubeflow, tiny.waiting(signal))
    tiny.until(
        lambda: kubeflow.get(made.id),
        lambda run: tiny.states(run)["Second"] == "running",
        "running node",
    )
    lines = kubeflow.logs(made.id, follow=True)
    signal.touch()
    assert list(lines) == ["First: begun", "Second: done"]
    with pytest.raises(BackendError, match="no node 'Frist'. It has First, Second, Third"):
        list(kubeflow.logs(made.id, "Frist"))


def test_a_node_without_pod_has_no_log(kubeflow):
    run = tiny.ended(kubeflow, tiny.submitted(kubeflow, tiny.refusing()).id)
    with pytest.raises(BackendError, match="RegistryPusher has no log: it has not started"):
        list(kubeflow.logs(run.id, "RegistryPusher"))


def test_versions_are_kept_listed_and_run(kubeflow, kfp):
    assert kubeflow.versions("tiny") == []
    page = kubeflow.upload(tiny.package(), name="tiny", version="main-1")
    assert page.startswith(f"http://{kfp.address}/#/pipelines/details/")
    kubeflow.upload(tiny.refusing(), name="tiny", version="main-2")
    assert kubeflow.versions("tiny") == ["main-2", "main-1"]
    with pytest.raises(BackendError, match="main-2 already exists"):
        kubeflow.upload(tiny.package(), name="tiny", version="main-2")
    run = tiny.submitted(kubeflow, tiny.package(), version="main-1")
    assert tiny.ended(kubeflow, run.id).status == "passed"
    run = tiny.ended(kubeflow, tiny.submitted(kubeflow, tiny.refusing(), version="main-2").id)
    assert (run.status, run.pipeline) == ("refused", "tiny")
    with pytest.raises(BackendError, match=r"no version 'main-3' \(versions: main-2, main-1\)"):
        tiny.submitted(kubeflow, tiny.package(), version="main-3")
    with pytest.raises(BackendError, match="no pipeline 'tyni'"):
        tiny.submitted(kubeflow, tiny.package(name="tyni"), version="main-1")
    with pytest.raises(BackendError, match="Leave out --no-cache"):
        tiny.submitted(kubeflow, tiny.package(), version="main-1", cache=False)


def test_runs_are_listed_newest_first_over_pages(kubeflow):
    made = [tiny.submitted(kubeflow, tiny.package(), name=f"run {n}").id for n in range(3)]
    assert [run.id for run in kubeflow.runs()] == made[::-1]
    assert [run.id for run in kubeflow.runs(limit=2)] == made[:0:-1]


def test_a_run_without_cache_says_so_for_every_node(kubeflow, kfp):
    run = tiny.submitted(kubeflow, tiny.package(), cache=False)
    found = kubeflow._client.call("RunService", "run_service_get_run", run_id=run.id)
    tasks = found.pipeline_spec["root"]["dag"]["tasks"].values()
    assert [task["cachingOptions"] for task in tasks] == [{"enableCache": False}]


def test_kfp_s_own_client_sees_the_same(kubeflow, kfp, monkeypatch, tmp_path):
    """The client that people use in notebooks: the run, its experiment and the version."""
    import kfp as library

    monkeypatch.setattr(library.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    run = tiny.submitted(kubeflow, tiny.package())
    kubeflow.upload(tiny.package(), name="tiny", version="main-1")
    client = library.Client(host=f"http://{kfp.address}")
    found = client.get_run(run.id)
    assert found.display_name == "tiny run"
    experiment = client.get_experiment(experiment_id=found.experiment_id)
    assert experiment.display_name == "trials"
    pipeline = client.get_pipeline_id("tiny")
    versions = client.list_pipeline_versions(pipeline).pipeline_versions
    assert [version.display_name for version in versions] == ["main-1"]
    assert client.wait_for_run_completion(run.id, timeout=20, sleep_duration=1).state == "SUCCEEDED"


def test_an_unknown_run_is_one_clear_line(kubeflow):
    with pytest.raises(BackendError, match=r"did not get run \(404\): Run nobody not found"):
        kubeflow.get("nobody")


def test_a_body_with_a_field_of_nobody_s_is_refused(kubeflow, monkeypatch):
    types = kubeflow._client.types.V2beta1Run
    monkeypatch.setitem(types.attribute_map, "display_name", "displayed_name")
    with pytest.raises(BackendError, match=r"\(400\): .*unknown field 'displayed_name'"):
        tiny.submitted(kubeflow, tiny.package())


def test_a_spec_that_is_none_is_refused_by_the_server(kubeflow):
    text = tiny.package().replace("componentRef", "componentReference")
    with pytest.raises(BackendError, match=r"\(400\): Invalid pipeline spec"):
        tiny.submitted(kubeflow, text)


def test_credentials_come_from_a_file_and_are_read_anew(kfp, monkeypatch, tmp_path):
    backend = open_cluster(f"kubeflow+http://{kfp.address}")
    kfp(token="first")
    with pytest.raises(BackendError, match=r"\(401\): .*no user identity.* Check whom you are"):
        backend.runs()
    file = tmp_path / "token"
    monkeypatch.setenv("CORTEXFLOW_KUBEFLOW_TOKEN_FILE", str(file))
    backend = open_cluster(f"kubeflow+http://{kfp.address}")
    with pytest.raises(BackendError, match="cannot be read from .*token: No such file"):
        backend.runs()
    file.write_text("first\n")
    assert backend.runs() == []
    kfp(token="second")
    with pytest.raises(BackendError, match="401"):
        backend.runs()
    file.write_text("second\n")
    assert backend.runs() == []


def test_a_server_that_is_gone_or_fails_is_one_clear_line(kubeflow, kfp):
    gone = open_cluster("kubeflow+http://127.0.0.1:9")
    with pytest.raises(BackendError, match="cannot be reached: .*refused"):
        gone.runs()
    kfp(refuse={"/runs$": [503, "database is locked"]})
    with pytest.raises(BackendError, match=r"\(503\): database is locked. The server failed"):
        kubeflow.runs()
    with pytest.raises(BackendError, match=r"cannot be reached: \[SSL.*kubeflow\+http://"):
        open_cluster(f"kubeflow://{kfp.address}").runs()
