"""The prediction log: what it holds, how spans appear, and what a crash leaves."""

import datetime
import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ingest.records import decode_example, read_records
from serving.config import LogSettings
from serving.interface import Observation
from serving.prediction_log import FILE, PredictionLog, PredictionLogError, Pseudonyms, examples


def observation(request_id="r", code="ok", images=2, version=3):
    answered = code == "ok"
    return Observation(
        model="severity",
        version=version,
        canary=False,
        routed=True,
        request_id=request_id,
        code=code,
        seconds=0.002,
        images=images,
        probabilities=np.full((images, 4), 0.25, np.float32) if answered else None,
        descriptors={"mean": np.linspace(0, 1, images, dtype=np.float32)} if answered else None,
    )


def opened(folder, **settings):
    log = PredictionLog(folder, LogSettings(flush_seconds=0.01, **settings))
    log.start()
    return log


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def read(folder, span=1):
    path = folder / f"span-{span}" / FILE
    return [decode_example(record) for record in read_records(path)]


def test_an_image_is_an_example():
    first, second = (decode_example(one) for one in examples(observation(), 12.5, b"p"))
    assert first["probabilities"] == [0.25] * 4
    assert (first["descriptor/mean"], second["descriptor/mean"]) == ([0.0], [1.0])
    assert (first["instance"], second["instance"]) == ([0], [1])
    assert first["time_ms"] == [12500]
    assert first["version"] == [3]
    assert first["latency_ms"] == [2.0]
    assert first["model"] == [b"severity"]


def test_a_refused_request_is_one_example_without_an_answer():
    (only,) = map(decode_example, examples(observation(code="invalid_json", version=None), 1, b"p"))
    assert only["code"] == [b"invalid_json"]
    assert not {"version", "probabilities"} & set(only)


def test_pseudonyms_link_within_a_day_and_not_beyond():
    names = Pseudonyms()
    first = names.of("patient-7", 10.0)
    assert names.of("patient-7", 86399.0) == first
    assert names.of("patient-8", 10.0) != first
    assert names.of("patient-7", 86400.0) != first
    assert Pseudonyms().of("patient-7", 10.0) != first


def test_closing_publishes_a_span_and_its_line(tmp_path):
    log = opened(tmp_path / "log")
    log.observe(observation("secret-id"))
    log.close()
    assert [one["code"] for one in read(tmp_path / "log")] == [[b"ok"], [b"ok"]]
    (line,) = manifest(tmp_path / "log")
    assert (line["span"], line["records"], line["recovered"]) == (1, 2, False)
    assert not list((tmp_path / "log" / ".open").iterdir())
    assert b"secret-id" not in b"".join(read_records(tmp_path / "log" / "span-1" / FILE))


def test_the_line_tells_what_the_span_holds(tmp_path):
    log = opened(tmp_path)
    for _ in range(3):
        log.observe(observation())
        time.sleep(0.005)
    log.close()
    (line,) = manifest(tmp_path)
    file = tmp_path / line["file"]
    times = [decode_example(record)["time_ms"][0] for record in read_records(file)]
    told = [datetime.datetime.fromisoformat(line[name]) for name in ("first", "last")]
    assert [round(moment.timestamp() * 1000) for moment in told] == [min(times), max(times)]
    assert line["records"] == len(times) == 6
    assert line["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_later_process_writes_a_later_span(tmp_path):
    for _ in range(2):
        log = opened(tmp_path)
        log.observe(observation())
        log.close()
    assert [line["span"] for line in manifest(tmp_path)] == [1, 2]


def test_an_unused_log_leaves_no_span(tmp_path):
    opened(tmp_path).close()
    assert not (tmp_path / "manifest.jsonl").exists()


def test_spans_turn_by_size(tmp_path):
    log = opened(tmp_path, max_bytes=1)
    log.observe(observation("a"))
    deadline = time.monotonic() + 30
    while not (tmp_path / "manifest.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    log.observe(observation("b"))
    log.close()
    assert [line["records"] for line in manifest(tmp_path)] == [2, 2]


def test_spans_turn_by_age(tmp_path):
    log = opened(tmp_path, max_seconds=0.02)
    log.observe(observation("a"))
    deadline = time.monotonic() + 30
    while not (tmp_path / "manifest.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / "manifest.jsonl").exists()
    log.close()


def test_a_full_queue_drops_and_counts(tmp_path):
    counts = []
    log = PredictionLog(
        tmp_path, LogSettings(queue=2), lambda written, dropped: counts.append((written, dropped))
    )
    for _ in range(5):  # not started: nobody takes them out
        log.observe(observation())
    log.start()
    log.close()
    assert counts == [(4, 3)]


def test_a_disk_that_refuses_drops_and_goes_on(tmp_path, monkeypatch):
    import os

    counts = []
    (tmp_path / ".open").mkdir()
    log = PredictionLog(tmp_path, LogSettings(), lambda *pair: counts.append(pair))
    log.observe(observation("a"))
    real, calls = os.write, []

    def torn(descriptor, content):
        calls.append(descriptor)
        if len(calls) == 1:
            return real(descriptor, bytes(content)[:7])
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", torn)
    log._turn()
    log.observe(observation("b"))
    log._turn()
    log._finish()
    assert counts == [(0, 2), (2, 0)]
    assert len(read(tmp_path)) == 2


def test_two_processes_do_not_share_a_folder(tmp_path):
    first = opened(tmp_path)
    with pytest.raises(PredictionLogError, match="Another process"):
        PredictionLog(tmp_path, LogSettings()).start()
    first.close()
    opened(tmp_path).close()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "log").write_text("")
    with pytest.raises(PredictionLogError, match="cannot be written"):
        PredictionLog(tmp_path / "log", LogSettings()).start()


CRASHING = """
import os, sys, time
sys.path.insert(0, os.environ["HERE"])
from pathlib import Path
from test_prediction_log import observation, opened
folder = Path(sys.argv[1])
log = opened(folder)
for _ in range(10):
    log.observe(observation())
path = folder / ".open" / "span-1.tfrecord"
while not path.exists() or not path.stat().st_size:
    time.sleep(0.01)
print("written", flush=True)
time.sleep(60)
"""


def killed(folder):
    from pathlib import Path

    with subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(folder)],
        stdout=subprocess.PIPE,
        env={"HERE": str(Path(__file__).parent), "PYTHONPATH": str(Path(__file__).parents[3])},
        text=True,
    ) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)


def test_kill_9_keeps_what_was_appended(tmp_path):
    killed(tmp_path)
    with open(tmp_path / ".open" / "span-1.tfrecord", "ab") as file:
        file.write(b"half a record")
    opened(tmp_path).close()
    assert len(read(tmp_path)) == 20
    (line,) = manifest(tmp_path)
    assert line["recovered"]


def test_a_crash_between_rename_and_line_is_settled(tmp_path):
    log = opened(tmp_path)
    log.observe(observation())
    log.close()
    left = (tmp_path / "manifest.jsonl").read_text()[:-40]  # cut short, too
    (tmp_path / "manifest.jsonl").write_text(left)
    (tmp_path / ".open" / "span-1.tfrecord").write_bytes(b"")
    opened(tmp_path).close()
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert lines[0] == left
    assert json.loads(lines[-1])["span"] == 1
    assert not list((tmp_path / ".open").iterdir())


@pytest.mark.slow
def test_tensorflow_reads_a_span(tmp_path):
    import tensorflow as tf

    log = opened(tmp_path)
    log.observe(observation())
    log.close()
    files = [str(tmp_path / "span-1" / FILE)]
    records = list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())
    parsed = tf.io.parse_example(
        records,
        {
            "probabilities": tf.io.FixedLenFeature([4], tf.float32),
            "descriptor/mean": tf.io.FixedLenFeature([], tf.float32),
            "code": tf.io.FixedLenFeature([], tf.string),
        },
    )
    assert parsed["probabilities"].shape == (2, 4)
    assert parsed["descriptor/mean"].numpy().tolist() == [0.0, 1.0]
    assert parsed["code"].numpy().tolist() == [b"ok", b"ok"]
