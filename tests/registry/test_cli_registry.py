"""The commands around live versions, as typed."""

import json
import re
import subprocess
import sys

import pytest
from crashes import model
from typer.testing import CliRunner

from cli.registry import app
from registry import manifest
from registry.interface import RegistryError, VerificationError
from registry.local import LocalRegistry
from serving import probe


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


def refused(*words, code=2):
    """Output of a command that is misused, or that finds a fault."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, words, catch_exceptions=False)
    assert result.exit_code == code
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
    assert re.search(r"rollback 2\s+3 → 2\s+\S+\s+worse on site 2", lines[-1])


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


def test_a_canary_is_set_shown_and_ended(workspace):
    words = ("set-traffic", "--canary", "1", "--percent", "5")
    said = typed(*words, "--dry-run", workspace=workspace)
    assert "Nothing was changed" in said
    assert "canary 5 %" not in typed("versions", workspace=workspace)
    assert typed(*words, workspace=workspace) == (
        "severity: canary 1 answers 5 % of the requests, version 3 the others "
        "(before: version 3 answers all requests).\n"
    )
    assert "already" in typed(*words, workspace=workspace)
    assert "canary 5 %" in typed("versions", workspace=workspace)
    assert "set_traffic 1 5 %" in typed("history", workspace=workspace)
    said = typed("rollback", "--to", "3", workspace=workspace)
    assert said == "severity: version 3 stays live. The canary 1 ends.\n"
    typed(*words, workspace=workspace)
    said = typed("set-traffic", "--none", "--reason", "errors", workspace=workspace)
    assert said.startswith("severity: version 3 answers all requests (before: canary 1")


@pytest.mark.parametrize(
    "words",
    [(), ("--canary", "1"), ("--percent", "5"), ("--none", "--canary", "1", "--percent", "5")],
)
def test_half_an_order_for_traffic_is_refused(workspace, words):
    assert "Give --canary VERSION with --percent" in refused("set-traffic", *words)


@pytest.fixture
def tried_out(monkeypatch):
    """The trial passes: it asks for a real model and seconds (tests/serving/test_probe.py)."""

    def passed(folder):
        return probe.ProbeReport(
            (), manifest.content_digest(manifest.inventory(folder)), True, 0, 0
        )

    monkeypatch.setattr(probe, "require", passed)


def test_what_no_server_may_load_is_not_pushed(workspace, tmp_path):
    exported = model(tmp_path / "exported", "exported")
    with pytest.raises(probe.ModelRefused, match="must not be served"):
        typed("push", str(exported), "--live", workspace=workspace)
    assert live(workspace) == 3
    assert len(LocalRegistry(workspace / "registry", "severity").versions()) == 3


def test_a_model_that_changes_after_its_trial_does_not_go_live(workspace, tmp_path, monkeypatch):
    exported = model(tmp_path / "exported", "exported")
    report = probe.ProbeReport((), "0" * 64, True, 0, 0)
    monkeypatch.setattr(probe, "require", lambda folder: report)
    with pytest.raises(VerificationError, match="changed while it was pushed"):
        typed("push", str(exported), "--live", workspace=workspace)
    assert live(workspace) == 3


@pytest.mark.usefixtures("tried_out")
def test_push_by_hand(workspace, tmp_path):
    exported = model(tmp_path / "exported", "exported")
    (tmp_path / "metrics.json").write_text('{"student": {"slice": {"macro_auc": 0.5}}}')
    words = ("push", str(exported), "--metrics", str(tmp_path / "metrics.json"))
    assert "would become version 4" in typed(*words, "--dry-run", workspace=workspace)
    assert "version 4 is stored" in typed(*words, workspace=workspace)
    assert live(workspace) == 3
    assert "is version 4 already" in typed(*words, "--live", workspace=workspace)
    assert live(workspace) == 4
    assert "0.500" in typed("versions", workspace=workspace)
    new = ("push", str(exported), "--registry", str(tmp_path / "new"), "--name", "student")
    assert "version 1 is live (before: nothing)" in typed(*new, "--live")


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_metrics_must_be_an_object(tmp_path, content):
    exported = model(tmp_path / "exported", "exported")
    (tmp_path / "metrics.json").write_text(content)
    words = ("push", str(exported), "--name", "m", "--registry", str(tmp_path / "new"))
    assert "metrics.json" in refused(*words, "--metrics", str(tmp_path / "metrics.json"))
    assert not (tmp_path / "new").exists()


def test_one_version_in_full(workspace):
    said = typed("versions", "3", workspace=workspace)
    assert "severity 3, live" in said
    assert "saved_model.pb" in said
    shown = json.loads(typed("versions", "3", "--json", workspace=workspace))
    assert (shown["number"], shown["state"], shown["size"]) == (3, "live", 23)


def test_documents_for_programs(workspace):
    listed = json.loads(typed("versions", "--json", workspace=workspace))
    assert [(entry["number"], entry["state"]) for entry in listed] == [
        (1, ""),
        (2, "previous"),
        (3, "live"),
    ]
    events = json.loads(typed("history", "--json", workspace=workspace))
    assert [event["action"] for event in events] == ["push"] * 3
    found = json.loads(typed("diff", "1", "2", "--json", workspace=workspace))
    assert found["metrics"] == {"student.subject.macro_auc": [0.71, 0.72]}


def test_diff_in_words(workspace):
    said = typed("diff", "1", "2", workspace=workspace)
    assert re.search(r"file\s+saved_model.pb\s+there\s+other bytes", said)
    assert re.search(r"metric\s+student.subject.macro_auc\s+0.71\s+0.72", said)
    assert typed("diff", "1", "1", workspace=workspace) == "Versions 1 and 1 do not differ.\n"


def test_who_answered_at_a_moment(workspace):
    typed("rollback", workspace=workspace)
    times = [e["time"] for e in json.loads(typed("history", "--json", workspace=workspace))]
    assert "version 3 answers all" in typed("history", "--at", times[2], workspace=workspace)
    assert "version 2 answers all" in typed("history", "--at", times[3], workspace=workspace)
    assert "nothing is live" in typed("history", "--at", "2020-01-01 12:00", workspace=workspace)
    at = typed("history", "--at", times[3], "--json", workspace=workspace)
    assert json.loads(at) == {"at": times[3], "live": 2, "canary": None, "percent": 0}
    assert "is no time" in refused("history", "--at", "yesterday")


def test_gc_in_words(workspace):
    assert "would remove 1." in typed("gc", "--keep", "0", "--dry-run", workspace=workspace)
    assert typed("gc", "--keep", "0", workspace=workspace) == "severity: removed 1.\n"
    assert typed("gc", "--keep", "0", workspace=workspace) == "severity: nothing to remove.\n"


def test_audit_in_words(workspace):
    said = typed("audit", "verify", workspace=workspace)
    assert "6 entries, without a key: nothing was changed." in said
    head = said.split("head: ")[1].strip()
    record = workspace / "registry" / "severity" / "history.jsonl"
    record.write_bytes(record.read_bytes().replace(b"run 2", b"run 9"))
    said = refused("audit", "verify", "--head", head, "--workspace", str(workspace), code=1)
    assert "Line 3 is not as it was written" in said
    found = refused("audit", "verify", "--json", "--workspace", str(workspace), code=1)
    assert len(json.loads(found)["faults"]) == 1


def test_signing_in_words(workspace, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("s" * 32)
    monkeypatch.setenv("CORTEXFLOW_SIGNING_KEY_FILE", str(tmp_path / "secret"))
    with pytest.raises(VerificationError, match="not signed"):
        typed("rollback", workspace=workspace)
    assert "would be signed" in typed("sign", "2", "--dry-run", workspace=workspace)
    assert "version 2 is signed" in typed("sign", "2", workspace=workspace)
    assert "version 2 is live" in typed("rollback", workspace=workspace)


COMMANDS = ["versions", "push", "promote", "rollback", "set-traffic", "history", "diff", "verify"]


@pytest.mark.parametrize("command", [*COMMANDS, "gc", "sign", "audit verify"])
def test_help_shows_examples(command):
    said = typed(*command.split(), "--help")
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
    heavy |= {"google.cloud.aiplatform", "google.protobuf", "grpc", "cryptography"}
    assert not heavy & set(run.stdout.split())
