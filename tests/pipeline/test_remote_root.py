"""Whole runs whose artifacts lie in an object store, shared by TFX, Beam, TensorFlow and us."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipeline import runs
from pipeline.workspace import Workspace
from tests.emulators import processes, tls
from tests.pipeline.conftest import LENIENT, TINY, assignments
from tests.pipeline.conftest import ROOT as HERE

BUCKET = "artifacts"
ROOT = f"gs://{BUCKET}/root"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An object store under Google's own names, for processes started from here."""
    certificates = tmp_path / "tls"
    certificates.mkdir()
    with (
        processes.storage() as running,
        tls.google_storage(running.port, certificates) as environment,
    ):
        running.make_bucket(BUCKET)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.mark.slow
def test_a_run_lives_in_a_bucket(store, cortexflow, tmp_path):
    workspace = tmp_path / "workspace"
    words = assignments(*TINY, *LENIENT, f"pipeline_root={ROOT}")
    ended = cortexflow("run", "quickstart", *words, workspace=workspace)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    [record] = runs.listed(Workspace.at(workspace))
    assert record.pushed_version == record.live_version == 1

    folder = f"root/quickstart/{record.id}-{record.started:%f}/"
    names = [name for name in store.names(BUCKET) if not folder.startswith(name)]  # no parents
    assert all(name.startswith(folder) for name in names)
    kept = {name.removeprefix(folder).split("/")[0] for name in names}
    assert {"ImageExampleGen", "StatisticsGen", "Student", "Evaluator", "ModelGate"} <= kept
    assert not (workspace / "pipelines").exists()
    assert not any(path.name.startswith("gs:") for path in tmp_path.rglob("*"))
    evidence = json.loads((workspace / "runs" / record.id / "evidence/evidence.json").read_text())
    assert evidence["decision"]["outcome"] == "passed"
    assert evidence["statistics"]
    assert evidence["litert"]
    assert len(evidence["histories"]["student"]) == 20

    shown = cortexflow("show", workspace=workspace)
    assert f"artifacts lie below {ROOT}/quickstart/{record.id}" in shown.stdout
    again = cortexflow("run", "quickstart", *words, workspace=workspace)
    assert again.returncode == 0, again.stdout[-3000:]
    states = {node.node: node.state for node in runs.listed(Workspace.at(workspace))[-1].nodes}
    assert states["ImageExampleGen"] == states["Student"] == states["ServingCheck"] == "cached"
    assert states["LiveModel"] == "ran", "the first run's version is live since"


@pytest.mark.slow
def test_a_run_lives_in_s3(cortexflow, tmp_path, monkeypatch):
    needed = ("tensorflow_io", "boto3", "moto", "flask")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: cortexflow[s3] and moto[server]")
    import boto3

    paths = {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    with processes.program("tests.emulators.s3", paths) as port:
        endpoint = f"http://127.0.0.1:{port}"
        for name in ("S3_ENDPOINT", "AWS_ENDPOINT_URL"):
            monkeypatch.setenv(name, endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "nobody")
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        words = assignments(*TINY, *LENIENT, f"pipeline_root=s3://{BUCKET}/root")
        ended = cortexflow("run", "quickstart", *words, workspace=tmp_path)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        assert ended.stdout.rstrip().endswith("passed")
        [record] = runs.listed(Workspace.at(tmp_path))
        folder = f"root/quickstart/{record.id}-{record.started:%f}/"
        names = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert all(name.startswith(folder) for name in names if not folder.startswith(name))
    assert any("/Format-Serving/saved_model.pb" in name for name in names)
    assert not any(path.name.startswith("s3:") for path in tmp_path.rglob("*"))


def test_s3_without_its_add_on_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    find = importlib.util.find_spec

    def absent(name, *rest):
        return None if name == "tensorflow_io" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    words = [*assignments("pipeline_root=s3://bucket/root"), "--workspace", str(tmp_path / "place")]
    answer = CliRunner().invoke(app, ["run", "quickstart", *words], prog_name="cortexflow")
    assert answer.exit_code == 1
    told = " ".join(answer.stderr.split())
    assert "s3://bucket/root needs tensorflow_io" in told
    assert "cortexflow[s3]" in told
    assert not (tmp_path / "place").exists()


def test_a_store_keeps_what_tensorflow_and_beam_write(store, tmp_path):
    """What the run above rests on, in seconds: both see the same bytes, and empty files too."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, apache_beam as beam, tensorflow as tf\n"
        "from pipeline.config import BEAM_IN_PROCESS\n"
        f"io, root = tf.io.gfile, '{ROOT}'\n"
        "content = os.urandom(3_000_000)\n"
        "io.makedirs(f'{root}/inner')\n"
        "with io.GFile(f'{root}/inner/large', 'wb') as file: file.write(content)\n"
        "with io.GFile(f'{root}/inner/BLESSED', 'w') as file: file.write('')\n"
        "assert io.GFile(f'{root}/inner/large', 'rb').read() == content\n"
        "io.rename(f'{root}/inner/large', f'{root}/renamed')\n"
        "assert io.listdir(f'{root}/inner') == ['BLESSED']\n"
        "with beam.Pipeline(argv=list(BEAM_IN_PROCESS)) as pipeline:\n"
        "    records = pipeline | beam.Create([b'one', b'two'])\n"
        "    records | beam.io.WriteToTFRecord(f'{root}/beam', file_name_suffix='.gz')\n"
        "[file] = io.glob(f'{root}/beam*')\n"
        "found = tf.data.TFRecordDataset(file, 'GZIP').as_numpy_iterator()\n"
        "assert sorted(found) == [b'one', b'two']\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], cwd=HERE, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert f"{ROOT.removeprefix(f'gs://{BUCKET}/')}/inner/BLESSED" in store.names(BUCKET)
