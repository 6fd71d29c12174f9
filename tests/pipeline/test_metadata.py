"""The setting `metadata`: understood or refused before anything is made, and never a secret."""

import datetime
import os

import pytest
from ml_metadata import errors
from typer.testing import CliRunner

from cli.main import app
from evaluation.outcome import Refused
from pipeline import execution, metadata
from pipeline.config import PipelineConfig
from pipeline.metadata import MetadataError, Server, SqliteFile
from pipeline.runs import RunRecord
from pipeline.workspace import Workspace

SECRET = "not-for-logs"  # pragma: allowlist secret


def invoked(tmp_path, *settings: str):
    words = [word for setting in settings for word in ("--set", setting)]
    place = ("--workspace", str(tmp_path / "workspace"))
    return CliRunner().invoke(app, ["run", "quickstart", *words, *place], prog_name="cortexflow")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("mysql://runs@db:3307/mlmd", Server("mysql", "runs", "db", 3307, "mlmd")),
        ("mysql://runs@db/mlmd", Server("mysql", "runs", "db", 3306, "mlmd")),
        ("postgresql://a%40b@h.example/m_1", Server("postgresql", "a@b", "h.example", 5432, "m_1")),
        ("postgresql://r@[::1]:5433/m", Server("postgresql", "r", "::1", 5433, "m")),
    ],
)
def test_an_address_is_understood(address, expected, monkeypatch):
    monkeypatch.setenv(metadata.PASSWORD, SECRET)
    found = metadata.parsed(address)
    assert found == expected
    connection = found.connection()
    part = getattr(connection, found.kind)
    assert (part.user, part.host, int(part.port)) == (found.user, found.host, found.port)
    assert part.password == SECRET
    assert part.skip_db_creation
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "address",
    [
        "metadata.db", "sqlite:///x.db", "mysql://db/mlmd", "mysql://u@/mlmd", "mysql://u@db",
        "mysql://u@db/a/b", "mysql://u@db/a;DROP", "mysql://u@db:port/m", "postgres://u@db/m",
        "mysql://u@db/m?ssl=1",
    ],
)  # fmt: skip
def test_what_names_no_database_is_refused_before_anything_is_made(tmp_path, address):
    answer = invoked(tmp_path, f"metadata={address}")
    assert answer.exit_code == 1, answer.output
    assert "mysql://USER@HOST:PORT/DATABASE" in " ".join(answer.stderr.split())
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(
    "address",
    [f"mysql://u:{SECRET}@db/m", f"postgresql://u:{SECRET}@db:port/m", f"mysql://u:{SECRET}@/m"],
)
def test_a_password_in_the_address_is_refused_and_not_repeated(tmp_path, address):
    answer = invoked(tmp_path, f"metadata={address}")
    assert answer.exit_code == 1, answer.output
    assert SECRET not in answer.output + answer.stderr
    assert metadata.PASSWORD in answer.stderr or "no address" in answer.stderr
    assert not (tmp_path / "workspace").exists()


def test_without_the_setting_metadata_are_a_file_of_the_workspace(tmp_path):
    place = Workspace.at(tmp_path)
    found = metadata.database(PipelineConfig(name="tiny"), place)
    assert found == SqliteFile(place.metadata("tiny"))
    assert not found.exists()
    metadata.check(found)
    assert not found.path.parent.exists(), "a look made something"
    found.connection()
    assert found.path.parent.is_dir()


def test_a_server_that_is_down_is_told_in_one_line_and_the_run_can_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "PAUSE_SECONDS", 0.1)
    monkeypatch.setenv(metadata.PASSWORD, SECRET)
    address = "postgresql://runs@127.0.0.1:1/mlmd"
    answer = invoked(tmp_path, f"metadata={address}")
    assert answer.exit_code == 1
    assert f"ML Metadata at {address} cannot be used" in " ".join(answer.stderr.split())
    workspace = tmp_path / "workspace"
    [folder] = (workspace / "runs").iterdir()
    assert '"status": "failed"' in (folder / "run.json").read_text()
    assert not (workspace / "phantoms").exists()
    for path in (each for each in workspace.rglob("*") if each.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


def raised(error: Exception, *, cause: Exception | None = None) -> Exception:
    """What comes out of the place where a run's errors are told."""
    server = metadata.parsed("mysql://runs@db/mlmd")
    with pytest.raises(Exception) as caught, metadata.told(server):  # noqa: PT011
        raise error from cause
    return caught.value


def test_only_a_lost_server_is_told_as_one(monkeypatch):
    monkeypatch.setenv(metadata.PASSWORD, SECRET)
    lost = errors.InternalError(f"Lost connection\n  {SECRET}")
    told = raised(RuntimeError("a node failed"), cause=lost)
    assert isinstance(told, MetadataError)
    assert "(Lost connection ***)" in str(told)
    own = RuntimeError("a node failed")
    assert raised(own) is own
    refused = Refused("AUC is too low")
    assert raised(refused, cause=lost) is refused


@pytest.mark.parametrize("root", ["gs://", "hdfs://cluster/x", "https://bucket/x", "gs:///"])
def test_a_root_that_is_no_place_is_refused(tmp_path, root):
    answer = invoked(tmp_path, f"pipeline_root={root}")
    assert answer.exit_code == 1
    assert "gs://BUCKET/PATH" in " ".join(answer.stderr.split())
    assert not (tmp_path / "workspace").exists()


def test_a_root_of_ones_own_has_a_folder_per_run(tmp_path):
    place, config = Workspace.at(tmp_path), PipelineConfig(name="tiny")
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC)
    record = RunRecord(
        id="tiny-1", preset="tiny", pipeline="tiny", status="running", started=now, pid=os.getpid()
    )
    assert execution.artifacts_root(config, place, record) == str(place.pipeline_root("tiny"))
    for given, expected in (
        ("gs://bucket/root/", "gs://bucket/root/tiny/tiny-1-000678"),
        (str(tmp_path / "shared"), f"{tmp_path}/shared/tiny/tiny-1-000678"),
    ):
        own = config.model_copy(update={"pipeline_root": given})
        assert execution.artifacts_root(own, place, record) == expected
