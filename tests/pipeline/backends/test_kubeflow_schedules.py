"""Recurring runs on Kubeflow Pipelines, with the server's clock moved."""

import pytest

from pipeline.backends.interface import ENDED, BackendError
from tests.pipeline.backends import tiny

HOUR = tiny.minutes(60)


def settled(backend, count):
    """The runs once there are so many and all have ended."""
    return tiny.until(
        backend.runs,
        lambda runs: len(runs) >= count and all(run.status in ENDED for run in runs),
        f"{count} runs",
    )


def test_a_schedule_is_made_listed_and_removed(kubeflow, kfp):
    made = tiny.scheduled(kubeflow, cron="30 3 * * 1-5", max_concurrent=2, catch_up=True)
    assert (made.cron, made.enabled, made.catch_up) == ("30 3 * * 1-5", True, True)
    assert (made.max_concurrent, made.name, made.pipeline) == (2, "nightly", "tiny")
    other = tiny.scheduled(kubeflow, name="other")
    assert not other.catch_up
    assert [entry.id for entry in kubeflow.schedules()] == [other.id, made.id]
    kubeflow.unschedule(made.id)
    assert [entry.id for entry in kubeflow.schedules()] == [other.id]
    with pytest.raises(BackendError, match="404"):
        kubeflow.unschedule(made.id)


def test_due_runs_are_started_with_their_parameters(kubeflow, kfp):
    tiny.scheduled(kubeflow)
    assert kubeflow.runs() == []
    kfp(advance=HOUR)
    run = settled(kubeflow, 1)[0]
    assert run.status == "passed"
    assert list(kubeflow.logs(run.id, "First")) == ["again"]


@pytest.mark.parametrize(("catch_up", "missed"), [(False, 1), (True, 5)])
def test_catching_up_makes_up_for_every_missed_run(kubeflow, kfp, catch_up, missed):
    tiny.scheduled(kubeflow, catch_up=catch_up)
    kfp(advance=5 * HOUR)
    assert len(settled(kubeflow, missed)) == missed
    kfp(advance=0)
    assert len(settled(kubeflow, missed)) == missed


def test_no_more_runs_at_once_than_allowed(kubeflow, kfp, tmp_path):
    signal = tmp_path / "go"
    tiny.scheduled(kubeflow, tiny.waiting(signal), parameters={}, catch_up=True, max_concurrent=2)
    kfp(advance=4 * HOUR)
    assert len(kubeflow.runs()) == 2
    signal.touch()
    assert len(settled(kubeflow, 4)) == 4


def test_a_paused_schedule_starts_nothing_and_goes_on_with_the_latest(kubeflow, kfp):
    made = tiny.scheduled(kubeflow)
    kubeflow.set_enabled(made.id, False)
    assert not kubeflow.schedules()[0].enabled
    kfp(advance=3 * HOUR)
    assert kubeflow.runs() == []
    kubeflow.set_enabled(made.id, True)
    assert len(settled(kubeflow, 1)) == 1


def test_what_the_server_does_not_allow_is_told(kubeflow):
    with pytest.raises(BackendError, match="between 1 and 10"):
        tiny.scheduled(kubeflow, max_concurrent=11)
    with pytest.raises(BackendError, match="five fields"):
        tiny.scheduled(kubeflow, cron="0 0 3 * * *")
