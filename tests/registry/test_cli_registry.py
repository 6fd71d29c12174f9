"""The commands around live versions, as typed."""

import re
import subprocess
import sys

import pytest
from crashes import model
from typer.testing import CliRunner

from cli.registry import app
from registry.interface import RegistryError, VerificationError
from registry.local import LocalRegistry


@pytest.fixture
def workspace(tmp_path):
    """A workspace with versions 1, 2, 3 of `severity`; 3 is live."""
    registry = LocalRegistry(tmp_path / "registry", "severity")
    for number in (1, 2, 3):
        auc = {"slice": {"macro_auc": 0.6}, "subject": {"macro_auc": 0.7 + number / 100}}
        registry.push(
            model(tmp_path / f"model-{number}", f"graph {number}"),
            metrics={"student": auc},
            lineage={},
            reason=f"run {number}",
            who="ci",
        )
    return tmp_path


def live(workspace):
    return LocalRegistry(workspace / "registry", "severity").live().number


def typed(*words, workspace=None):
    """Output of a command; its error is raised, as the command line's `main` would see it."""
    place = ["--workspace", str(workspace)] if workspace else []
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words, *place], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_versions_shows_what_is_live(workspace):
    lines = typed("versions", workspace=workspace).splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert "live" in rows["3"]
    assert "0.730" in rows["3"]
    assert "previous" in rows["2"]
    assert "run 1" in rows["1"]


def test_rollback_and_promote(workspace):
    said = typed("rollback", "--reason", "bad", workspace=workspace)
    assert said == "severity: version 2 is live (before: version 3).\n"
    typed("rollback", workspace=workspace)
    assert live(workspace) == 1
    typed("promote", "3", workspace=workspace)
    assert live(workspace) == 3
    assert "is live already" in typed("promote", "3", workspace=workspace)
    typed("rollback", "--to", "2", workspace=workspace)
    assert live(workspace) == 2


@pytest.mark.parametrize(
    ("words", "number"), [(("rollback",), 2), (("rollback", "--to", "1"), 1), (("promote", "1"), 1)]
)
def test_dry_run_verifies_and_changes_nothing(workspace, words, number):
    before = sorted((path, path.read_bytes()) for path in workspace.rglob("*") if path.is_file())
    said = typed(*words, "--dry-run", workspace=workspace)
    assert f"version {number} would go live in place of version 3" in said
    after = sorted((path, path.read_bytes()) for path in workspace.rglob("*") if path.is_file())
    assert after == before
    damaged = workspace / "registry" / "severity" / str(number) / "saved_model.pb"
    damaged.write_text("graph X")
    with pytest.raises(VerificationError):
        typed(*words, "--dry-run", workspace=workspace)


def test_history_tells_who_and_why(workspace):
    typed("rollback", "--reason", "worse on site 2", workspace=workspace)
    lines = typed("history", workspace=workspace).strip().splitlines()
    assert len(lines) == 2 + 4  # a header, a rule, three pushes, one rollback
    assert re.search(r"rollback\s+2\s+3 → 2\s+\S+\s+worse on site 2", lines[-1])


def test_a_reason_is_no_markup(workspace):
    typed("rollback", "--reason", "[/oops] [bold]", workspace=workspace)
    assert "[/oops] [bold]" in typed("history", workspace=workspace)


def test_verify_all_or_one(workspace):
    assert typed("verify", workspace=workspace).count("2 files are as pushed") == 3
    (workspace / "registry" / "severity" / "2" / "saved_model.pb").write_text("graph X")
    assert "severity 1" in typed("verify", "1", workspace=workspace)
    with pytest.raises(VerificationError, match=r"saved_model\.pb"):
        typed("verify", workspace=workspace)


def test_the_model_must_be_known(workspace, tmp_path):
    with pytest.raises(RegistryError, match=r"no model 'other'.*models: severity"):
        typed("versions", "--name", "other", workspace=workspace)
    with pytest.raises(RegistryError, match="none yet"):
        typed("versions", workspace=tmp_path / "elsewhere")
    other = LocalRegistry(workspace / "registry", "teacher")
    other.push(tmp_path / "model-1", metrics={}, lineage={}, reason="", who="")
    with pytest.raises(RegistryError, match="models: severity, teacher"):
        typed("rollback", workspace=workspace)
    assert "teacher" in typed("versions", "--name", "teacher", workspace=workspace)


@pytest.mark.parametrize("command", ["versions", "promote", "rollback", "history", "verify"])
def test_help_shows_examples(command):
    said = typed(command, "--help")
    assert "Examples" in said
    assert f"cortexflow {command}" in said


def test_rollback_loads_nothing_heavy(workspace):
    program = f"""
import sys
from cli.registry import app
app(["rollback", "--workspace", {str(workspace)!r}], standalone_mode=False)
print(*sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "version 2 is live" in run.stdout
    heavy = {"tensorflow", "apache_beam", "tfx", "numpy", "scipy", "matplotlib"}
    assert not heavy & set(run.stdout.split())
