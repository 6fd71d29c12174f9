"""The trigger as a program: real HTTP, duplicates, a killed process, a backend that is down."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.file_backend import submitted

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = """
pipelineInfo: {name: quickstart}
root:
  dag: {tasks: {}}
  inputDefinitions:
    parameters:
      dataset: {parameterType: STRING}
      registry: {parameterType: STRING}
      model_name: {parameterType: STRING, defaultValue: severity}
      teacher_epochs: {parameterType: NUMBER_INTEGER, defaultValue: 20}
"""
PARAMETERS = ("--param", "teacher_epochs=3", "--param", "registry=gs://runs/registry")


def message(name="oasis/dataset.json", generation=1, bucket="scans", **more) -> dict:
    """A push message of Pub/Sub about an object of Cloud Storage."""
    attributes = {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": bucket,
        "objectId": name,
        "objectGeneration": str(generation),
    }
    return {"message": {"attributes": attributes | more, "messageId": "1"}, "subscription": "s"}


class Service:
    """A running trigger."""

    def __init__(self, process: subprocess.Popen, port: int, folder: Path, log: Path):
        self.process, self.port, self.folder, self._log = process, port, folder, log

    def ask(self, method="POST", path="/", document=None, headers=None, content=None):
        """Status and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = content if content is not None else json.dumps(document).encode()
        connection.request(method, path, body if method == "POST" else None, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(text) if is_json else text

    def send(self, document, **more):
        """Status and, of a 200, the outcomes."""
        status, told = self.ask(document=document, **more)
        return status, [one["outcome"] for one in told["results"]] if status == 200 else told

    def lines(self) -> list[dict]:
        """What it logged."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture
def start(tmp_path):
    """Starts triggers on one folder, as often as it is called."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "package.yaml").write_text(PACKAGE)
    running = contextlib.ExitStack()

    def starting(*more: str, debounce: float = 0.0) -> Service:
        log = tmp_path / f"log-{time.monotonic_ns()}"
        options = ["--on", "kubeflow://files", "--package", tmp_path / "package.yaml"]
        options += ["--watch", "gs://scans", "--port", "0", "--state", tmp_path / "state"]
        options += ["--debounce", debounce, "--pipeline-root", "gs://runs/root"]
        options += [*PARAMETERS, "--service-account", "nodes", "--no-token", *more]
        command = [sys.executable, "-m", "tests.pipeline.file_backend", tmp_path / "runs"]
        process = subprocess.Popen(
            [*map(str, command), *map(str, options)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=running.enter_context(log.open("w")),
        )
        running.callback(process.wait)
        running.callback(process.kill)
        deadline = time.monotonic() + 60
        while not (lines := log.read_text().splitlines()) and process.poll() is None:
            assert time.monotonic() < deadline, "the trigger did not start"
            time.sleep(0.02)
        assert process.poll() is None, log.read_text()
        return Service(process, json.loads(lines[0])["port"], tmp_path / "runs", log)

    with running:
        yield starting


def test_a_finished_span_starts_one_run_however_often_it_is_told(start):
    service = start()
    assert service.send(message()) == (200, ["started"])
    assert service.send(message()) == (200, ["duplicate"])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        told = list(pool.map(service.send, [message(generation=2)] * 8))
    assert {status for status, _ in told} == {200}
    first, second = submitted(service.folder)
    assert first["name"] != second["name"]
    assert first == {
        "package": PACKAGE,
        "name": first["name"],
        "parameters": {
            "teacher_epochs": 3,
            "registry": "gs://runs/registry",
            "dataset": "gs://scans/oasis",
        },
        "pipeline_root": "gs://runs/root",
        "experiment": "new-data",
        "service_account": "nodes",
        "labels": {"trigger": "new-data", "object": first["name"][-12:]},
        "cache": True,
    }
    # What is told late of an older state was read by the run of the newer one.
    assert service.send(message(generation=1)) == (200, ["duplicate"])
    service.process.kill()
    again = start()
    assert again.send(message(generation=2)) == (200, ["duplicate"])
    assert again.send(message(generation=0)) == (200, ["overtaken"])
    assert len(submitted(service.folder)) == 2


def test_what_arrives_within_the_window_shares_a_run(start):
    service = start(debounce=1.0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        told = list(pool.map(service.send, [message(generation=n) for n in (3, 1, 2, 3)]))
        told += pool.map(service.send, [message("other/dataset.json"), message(generation=2)])
    assert told[:5] == [(200, ["started"])] * 5
    assert told[5] == (200, ["duplicate"])
    assert [run["parameters"]["dataset"] for run in submitted(service.folder)] == [
        "gs://scans/oasis",
        "gs://scans/other",
    ]


def test_what_does_not_complete_a_watched_dataset_is_settled_without_a_run(start):
    service = start()
    for document in (
        message("oasis/span-1/train/data-00000.tfrecord.gz"),
        message(bucket="scans-of-others"),
        message(eventType="OBJECT_DELETE"),
        message("oasis/../dataset.json"),
        message("dataset.json.old"),
    ):
        assert service.send(document) == (200, ["ignored"])
    assert submitted(service.folder) == []


def test_a_bad_body_is_refused_with_the_reason(start):
    service = start()
    for content, status, reason in (
        (b"not json", 400, "no JSON"),
        (b'{"a": 1}', 400, "no message that is known"),
        (b" " * 300_000, 413, "262144 bytes"),
        (iter([b" " * 200_000] * 2), 413, "262144 bytes"),  # in chunks, of no told length
    ):
        received, told = service.ask(content=content)
        assert received == status
        assert reason in told["error"]
    assert service.send(message()) == (200, ["started"])


def test_one_of_several_records_starts_a_run(start):
    service = start("--watch", "s3://scans")
    records = [
        {
            "eventName": "s3:ObjectCreated:Put",
            "s3": {"bucket": {"name": "scans"}, "object": {"key": key, "sequencer": "1F"}},
        }
        for key in ("a/dataset.json", "a/span-1/report.json")
    ]
    assert service.send({"Records": records}) == (200, ["started", "ignored"])
    assert submitted(service.folder)[0]["parameters"]["dataset"] == "s3://scans/a"


def test_a_backend_that_is_down_is_tried_again(start):
    service = start()
    down = service.folder / "down"
    down.touch()
    status, told = service.send(message())
    assert status == 503
    assert "connection refused" not in str(told)  # of the inside, for the log alone
    reasons = [line.get("reason", "") for line in service.lines()]
    assert any("connection refused" in reason for reason in reasons)
    down.unlink()
    assert service.send(message()) == (200, ["started"])
    assert len(submitted(service.folder)) == 1


def test_killed_after_the_run_exists_and_before_it_is_remembered(start):
    service = start()
    (service.folder / "die").touch()
    with pytest.raises((http.client.HTTPException, OSError)):
        service.send(message())
    assert service.process.wait(30) == -signal.SIGKILL
    assert len(submitted(service.folder)) == 1
    (service.folder / "die").unlink()
    again = start()
    assert again.send(message()) == (200, ["adopted"])
    assert again.send(message()) == (200, ["duplicate"])
    assert len(submitted(service.folder)) == 1


def test_a_slow_backend_gets_one_submission(start):
    service = start("--timeout", "0.2")
    (service.folder / "slow").write_text("1.2")
    assert service.send(message())[0] == 503
    assert service.send(message())[0] == 503  # the first is still under way
    deadline = time.monotonic() + 30
    while not submitted(service.folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert service.send(message()) == (200, ["adopted"])
    assert len(submitted(service.folder)) == 1


def test_sigterm_lets_a_submission_end_and_refuses_what_waits(start):
    service = start()
    (service.folder / "slow").write_text("1.5")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(service.send, message())
        deadline = time.monotonic() + 30
        while not list((service.folder.parent / "state").glob("book.json")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        service.process.terminate()
        assert under_way.result() == (200, ["started"])
    assert service.process.wait(30) == 0

    waiting = start(debounce=200)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(waiting.send, message(generation=9))
        while "cortexflow_trigger_waiting 1.0" not in waiting.ask("GET", "/metrics")[1]:
            assert not held.done()
        waiting.process.terminate()
        assert held.result()[0] == 503
    assert waiting.process.wait(30) == 0
    assert len(submitted(service.folder)) == 1


def test_health_readiness_and_metrics(start):
    service = start()
    assert service.ask("GET", "/healthz") == (200, {"status": "ok"})
    assert service.ask("GET", "/readyz") == (200, {"status": "ok"})
    assert service.ask("GET", "/")[0] == 405
    assert service.ask("PUT", "/healthz")[0] == 405
    assert service.ask("GET", "/elsewhere")[0] == 404
    service.send(message())
    service.send(message())
    service.ask(content=b"x")
    text = service.ask("GET", "/metrics")[1]
    for line in (
        'cortexflow_trigger_arrivals_total{outcome="started"} 1.0',
        'cortexflow_trigger_arrivals_total{outcome="duplicate"} 1.0',
        'cortexflow_trigger_answers_total{status="200"} 2.0',
        'cortexflow_trigger_answers_total{status="400"} 1.0',
        "cortexflow_trigger_ready 1.0",
    ):
        assert line in text
    events = [line["event"] for line in service.lines()]
    assert events.count("started") == 1


def test_a_dry_run_submits_and_remembers_nothing(start):
    service = start("--dry-run")
    assert service.send(message()) == (200, ["would start"])
    assert service.send(message()) == (200, ["would start"])
    assert submitted(service.folder) == []
    assert not (service.folder.parent / "state").exists()


def trigger(*options: str, **environment: str) -> subprocess.CompletedProcess:
    """The program, for what it says at once."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.trigger", *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_one_message_is_tried_out(tmp_path):
    (tmp_path / "p.yaml").write_text(PACKAGE)
    data = base64.b64encode(b'{"dataset": "gs://scans/oasis"}').decode()
    (tmp_path / "m.json").write_text(json.dumps({"message": {"data": data, "messageId": "5"}}))
    answer = trigger(
        *("--no-token", "--dry-run", "--message", str(tmp_path / "m.json")),
        CORTEXFLOW_TRIGGER_ON="vertex://p/europe-west4",
        CORTEXFLOW_TRIGGER_PACKAGE=str(tmp_path / "p.yaml"),
        CORTEXFLOW_TRIGGER_WATCH="gs://elsewhere gs://scans/",
        CORTEXFLOW_TRIGGER_PARAM="registry=gs://r model_name=severity",
        CORTEXFLOW_TRIGGER_PIPELINE_ROOT="gs://runs",
    )
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert told.pop("name") == f"new-data-{told['labels']['object']}"
    assert told == {
        "outcome": "would start",
        "dataset": "gs://scans/oasis",
        "on": "vertex://p/europe-west4",
        "pipeline_root": "gs://runs",
        "labels": {"trigger": "new-data", "object": told["labels"]["object"]},
        "parameters": {
            "registry": "gs://r",
            "model_name": "severity",
            "dataset": "gs://scans/oasis",
        },
    }


GOOD = ("--on", "vertex://p/l", "--package", "p.yaml", "--watch", "gs://b", "--no-token")
GOOD = (*GOOD, *PARAMETERS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (GOOD[2:], "--on is missing"),
        (GOOD[:2] + GOOD[4:], "--package is missing"),
        (GOOD[:4] + GOOD[6:], "--watch is missing"),
        (GOOD[:6] + GOOD[7:], "--audience and --sender are missing"),
        ((*GOOD, "--sender", "a@b"), "--no-token checks nobody"),
        ((*GOOD, "--watch", "scans/"), "received 'scans/'"),
        ((*GOOD, "--debounce", "soon"), "--debounce"),
        ((*GOOD, "--param", "epochs"), "name=value"),
        ((*GOOD, "--param", "teacher_epoch=3"), "Did you mean teacher_epochs?"),
        ((*GOOD, "--param", "teacher_epochs=many"), "NUMBER_INTEGER"),
        (GOOD[:-2], "needs values for registry"),
        ((*GOOD, "--package", str(ROOT / "pyproject.toml")), "is no YAML"),
        ((*GOOD, "--package", "absent.yaml"), "cortexflow compile"),
        ((*GOOD, "--on", "kubernetes://x"), "no place where pipelines run"),
        ((*GOOD, "--message", "absent.json"), "cannot be read"),
        ((*GOOD, "--port", "99999"), "no port"),
    ],
)
def test_what_is_asked_wrongly_is_said(options, reason, tmp_path):
    (tmp_path / "p.yaml").write_text(PACKAGE)
    placed = [str(tmp_path / one) if one == "p.yaml" else one for one in options]
    answer = trigger(*placed, CORTEXFLOW_TRIGGER_STATE=str(tmp_path / "state"))
    assert answer.returncode == 1
    assert reason in answer.stderr
    assert "Traceback" not in answer.stderr


def test_help_shows_examples():
    answer = trigger("--help")
    assert answer.returncode == 0
    assert "--dry-run --message message.json" in answer.stdout
