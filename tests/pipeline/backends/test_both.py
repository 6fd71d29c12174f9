"""What holds on Kubeflow and on Vertex AI alike."""

import pytest

from tests.pipeline.backends import tiny


@pytest.fixture(params=["kubeflow", "vertex"])
def cluster(request):
    return request.getfixturevalue(request.param)


def test_states_go_from_pending_over_running_to_the_end(cluster, tmp_path):
    signal = tmp_path / "go"
    made = tiny.submitted(cluster, tiny.waiting(signal))
    running = tiny.until(
        lambda: cluster.get(made.id),
        lambda run: tiny.states(run)["Second"] == "running",
        "running node",
    )
    assert running.status == "running"
    assert tiny.states(running) == {"First": "ran", "Second": "running", "Third": "pending"}
    signal.touch()
    run = tiny.ended(cluster, made.id)
    assert tiny.states(run) == dict.fromkeys(["First", "Second", "Third"], "ran")


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        ("StopOnBadData", "refused"),
        ("StopOnRefusal", "refused"),
        ("StopOnInsufficientEvidence", "insufficient evidence"),
    ],
)
def test_a_stop_node_tells_the_outcome(cluster, stop, status):
    run = tiny.ended(cluster, tiny.submitted(cluster, tiny.refusing(stop)).id)
    assert run.status == status
    # Of Kubeflow the log is read; Vertex AI keeps it elsewhere.
    assert run.reason in (
        f"{stop}: the model is no better than the prior",
        f"{stop}: exit status 1",
    )
    assert tiny.states(run) == {"ModelGate": "ran", stop: "failed", "RegistryPusher": "skipped"}
    assert [run.status for run in cluster.runs()] == [status]
