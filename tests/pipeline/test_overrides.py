"""A model that the gate did not pass goes live by a person's word, and by no other way."""

import dataclasses
import datetime
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from components.decisions import write_decision
from components.report import storage
from evaluation import gate
from evaluation.outcome import Check, Decision, Outcome, concluded
from pipeline import documents, lineage, overrides, runs
from pipeline.config import PipelineConfig
from pipeline.runs import NodeState, RunFolder, RunRecord
from pipeline.workspace import Workspace
from registry import manifest
from registry.interface import RegistryError
from registry.local import LocalRegistry
from tests.components.run_report.conftest import build
from tests.pipeline.finished import recorded

CLASSES = ["mild", "non"]
WHO, REASON = "R. Roe", "reader study, <not> for use"
BY = ("--who", WHO, "--reason", REASON)
FLOOR = Check("macro AUC floor", Outcome.REFUSED, 0.61, 0.7, 0.52, 0.69, "AUC .61 is below .70")
FEW = Check("enough people", Outcome.INSUFFICIENT, 12, 20, detail="12 people cannot decide")
METRICS = {"student": {"subject": {"macro_auc": 0.61}}}


def judged(*checks: Check) -> Decision:
    return concluded(checks, metrics=METRICS, details={"final": list(gate.FINAL)})


@pytest.fixture
def finished(tmp_path):
    """Makes a workspace with one run that ended with a decision, and a version live before it."""

    def make(decision: Decision | None, graph: str = "new") -> Path:
        place, config = Workspace.at(tmp_path), PipelineConfig(name="quickstart")
        database = place.metadata(config.name)
        database.parent.mkdir(parents=True)
        student, judgement = tmp_path / "student", tmp_path / "judgement"
        for folder, content in ((student / "Format-Serving", graph), (tmp_path / "old", "old")):
            folder.mkdir(parents=True)
            (folder / "saved_model.pb").write_text(content)
        (student / "bundle").mkdir()
        (student / "bundle" / "model.json").write_text(json.dumps({"classes": CLASSES}))
        earlier = {"metrics": {}, "lineage": {"classes": CLASSES}, "reason": "run", "who": "ci"}
        LocalRegistry(place.registry, config.model_name).push(tmp_path / "old", **earlier)
        outputs = {"Student": {"model": (student, "Model")}}
        if decision is not None:
            judgement.mkdir()
            tried = manifest.content_digest(manifest.inventory(student / "Format-Serving"))
            decision = dataclasses.replace(decision, details={"content": tried, **decision.details})
            write_decision(decision, str(judgement))
            outputs["ModelGate"] = {"decision": (judgement, "ModelDecision")}
        nodes = tuple(
            NodeState(node=name, state="ran", execution_id=recorded(database, found))
            for name, found in outputs.items()
        )
        folder = RunFolder(place.runs / "quickstart-1")
        folder.path.mkdir(parents=True)
        folder.write_config(config)
        record = RunRecord(
            id="quickstart-1", preset="quickstart", pipeline="quickstart", nodes=nodes,
            status=decision.outcome.value if decision else "refused", live_version=1,
            started=datetime.datetime.now(datetime.UTC), pid=os.getpid(),
        )  # fmt: skip
        folder.write(record)
        found = build(subjects=(6, 6, 6, 6), slices=2, outcome=Outcome.REFUSED)
        run = dataclasses.replace(found.run, id=record.id)
        storage.save(dataclasses.replace(found, run=run), folder.evidence)
        return tmp_path

    return make


def typed(place: Path, *words: str):
    runner = CliRunner(env={"COLUMNS": "160"})
    return runner.invoke(app, [*words, "--workspace", str(place)], prog_name="cortexflow")


def override(place: Path, *words: str):
    return typed(place, "override", "latest", *words)


def models(place: Path) -> LocalRegistry:
    return LocalRegistry(place / "registry", "severity")


def folder_of(place: Path) -> RunFolder:
    return runs.find(Workspace.at(place), "latest")


def annotations(place: Path) -> list[dict]:
    """What ML Metadata knows of overrides."""
    workspace, record = Workspace.at(place), folder_of(place).read()
    nodes = lineage.outputs_of_nodes(workspace.metadata("quickstart"), record.nodes)
    [decision] = nodes["ModelGate"]
    return [json.loads(text) for key, text in decision.properties.items() if key == "override"]


def contents(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def refusal(answer) -> str:
    """The one line of a command that did nothing."""
    assert answer.exit_code == 1, answer.output
    [line] = answer.stderr.splitlines()
    return line


@pytest.mark.parametrize("check", [FLOOR, FEW], ids=lambda check: check.outcome.value)
def test_the_word_stands_wherever_the_version_does(finished, check):
    place = finished(judged(check))
    answer = override(place, *BY)
    assert answer.exit_code == 0, answer.output
    assert f"ended with: {check.outcome}" in answer.stdout
    assert check.detail in answer.stdout
    assert f"Version 2 of severity is live by an override of {WHO}: {REASON}" in answer.stdout

    live = models(place).live()
    assert (live.number, live.who, live.reason) == (2, WHO, f"override: {REASON}")
    assert live.metrics == METRICS
    assert live.lineage["classes"] == CLASSES
    assert live.lineage["run_id"] == "quickstart-1"
    made = live.lineage["override"]
    assert (made["who"], made["reason"]) == (WHO, REASON)
    assert (made["outcome"], made["reasons"]) == (check.outcome.value, [check.detail])
    assert models(place).verify(2).files == live.files
    told = [event for event in models(place).history() if event.version == 2]
    assert told
    assert all((event.who, event.reason) == (WHO, f"override: {REASON}") for event in told)

    record = folder_of(place).read()
    assert (record.override.who, record.override.reason) == (WHO, REASON)
    assert (record.pushed_version, record.live_version) == (2, 2)
    # The gate said what it said: the run still ended so, and nothing takes it up again.
    assert (record.status, record.exit_code) == (check.outcome.value, check.outcome.exit_code)
    with pytest.raises(runs.UnknownRun, match="No unfinished run"):
        runs.last_unfinished(Workspace.at(place), "quickstart")
    [word] = annotations(place)
    assert word == record.override.model_dump(mode="json")
    assert made.items() >= word.items()


def test_report_and_card_show_it_for_good(finished):
    place = finished(judged(FLOOR))
    assert override(place, *BY).exit_code == 0
    folder = folder_of(place).path
    shown = REASON.replace("<", "&lt;").replace(">", "&gt;")
    for name in ("report.html", "model_card.html"):
        text = (folder / name).read_text()
        assert "OVERRIDDEN" in text, name
        assert WHO in text
        assert shown in text
        assert "<not>" not in text
    assert "OVERRIDDEN" in (folder / "model_card.md").read_text()
    # Written again, after the version is no longer live: from the evidence, with the override.
    models(place).rollback(1, reason="test", who="test")
    (folder / "report.html").unlink()
    assert typed(place, "report").exit_code == 0
    assert "OVERRIDDEN" in (folder / "report.html").read_text()
    card = typed(place, "card").stdout
    assert WHO in card
    assert "as version 2, which was not live" in card
    listed = typed(place, "runs").stdout.splitlines()[-1].split()
    assert listed[:2] == ["quickstart-1", "refused"]


def test_a_dry_run_says_it_and_changes_nothing(finished):
    place = finished(judged(FLOOR))
    before = contents(place)
    answer = override(place, *BY, "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert FLOOR.detail in answer.stdout
    assert f"Would put its student live, on the word of {WHO!r}. Nothing was" in answer.stdout
    assert contents(place) == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "--who"),
        (("--who", WHO), 2, "--reason"),
        (("--who", " ", "--reason", REASON), 1, "needs a name and a reason"),
        (("--who", WHO, "--reason", ""), 1, "needs a name and a reason"),
    ],
)
def test_without_name_or_reason_nothing_is_changed(finished, words, code, message):
    place = finished(judged(FLOOR))
    before = contents(place)
    answer = override(place, *words)
    assert answer.exit_code == code
    assert message in answer.stderr
    assert contents(place) == before


def test_a_second_override_is_refused(finished):
    place = finished(judged(FLOOR))
    assert override(place, *BY).exit_code == 0
    before = contents(place)
    line = refusal(override(place, "--who", "S. Poe", "--reason", "another"))
    assert f"was overridden already, by {WHO} at " in line
    assert line.endswith("as version 2.")
    assert contents(place) == before


LEAKED = Check(gate.NO_LEAKS, Outcome.REFUSED, 3, 0, detail="the split shares subjects")
NAN = Check(gate.FINITE, Outcome.REFUSED, detail="the model returned NaN")


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ([dataclasses.replace(FLOOR, outcome=Outcome.PASSED)], "passed: there is nothing to"),
        ([LEAKED], "Nobody's word lifts this: the split shares subjects."),
        ([FLOOR, NAN], "Nobody's word lifts this: the model returned NaN."),
        (None, "ended before a model was judged (refused)"),
    ],
)
def test_what_nobody_may_lift_stays_refused(finished, checks, message):
    place = finished(judged(*checks) if checks else None)
    before = contents(place)
    for words in ((), ("--dry-run",)):
        assert message in refusal(override(place, *BY, *words))
    assert contents(place) == before


def test_files_that_were_changed_after_they_were_judged_are_refused(finished):
    place = finished(judged(FLOOR))
    (place / "student" / "Format-Serving" / "saved_model.pb").write_text("another")
    before = contents(place)
    assert "are not those that were judged" in refusal(override(place, *BY))
    assert contents(place) == before


def test_a_model_that_was_never_tried_out_is_tried_out_first(finished):
    decision = judged(FLOOR)
    place = finished(dataclasses.replace(decision, details={**decision.details, "content": None}))
    before = contents(place)
    answer = override(place, *BY)
    assert answer.exit_code == 2, answer.output
    assert "saved_model.pb cannot be parsed" in answer.stderr
    assert contents(place) == before


def test_an_unknown_run_is_told(finished):
    place = finished(judged(FLOOR))
    line = refusal(typed(place, "override", "absent", *BY))
    assert "No run 'absent'" in line


def test_a_push_that_breaks_leaves_the_word_and_no_deed(finished, monkeypatch):
    """Never a version live without its override; and a second attempt succeeds."""
    place, push = finished(judged(FLOOR)), LocalRegistry.push

    def breaking(*_, **__):
        raise RegistryError("the disk is full")

    monkeypatch.setattr(LocalRegistry, "push", breaking)
    assert "the disk is full" in refusal(override(place, *BY))
    assert len(annotations(place)) == 1
    assert (models(place).live().number, folder_of(place).read().override) == (1, None)
    monkeypatch.setattr(LocalRegistry, "push", push)
    assert override(place, *BY).exit_code == 0
    assert models(place).live().number == 2


def test_a_model_that_is_a_version_already_is_not_passed_off_as_overridden(finished):
    """Its manifest was written without the override, and manifests are never rewritten."""
    place = finished(judged(FLOOR), "old")
    assert "cortexflow promote 1" in refusal(override(place, *BY))
    assert [version.number for version in models(place).versions()] == [1]
    assert folder_of(place).read().override is None


def test_an_override_stopped_after_its_push_is_finished_by_the_next(finished, monkeypatch):
    place, promote = finished(judged(FLOOR)), LocalRegistry.promote

    def breaking(*_, **__):
        raise RegistryError("another change does not end")

    monkeypatch.setattr(LocalRegistry, "promote", breaking)
    assert "does not end" in refusal(override(place, *BY))
    assert models(place).live().number == 1
    monkeypatch.setattr(LocalRegistry, "promote", promote)
    assert override(place, *BY).exit_code == 0
    assert models(place).live().number == 2
    assert models(place).show(2).lineage["override"]["who"] == WHO


def test_documents_are_kept_and_read_again(finished):
    place = finished(judged(FLOOR))
    workspace, folder = Workspace.at(place), folder_of(place)
    found = documents.saved(folder, workspace)
    assert (found.run.id, found.override, found.pushed) == ("quickstart-1", None, None)
    documents.publish(found, folder)
    assert {path.name for path in folder.path.iterdir()} == {
        "config.json", "run.json", "evidence", "report.html", "model_card.md", "model_card.html",
    }  # fmt: skip
    assert "OVERRIDDEN" not in folder.report.read_text()
    config = folder.read_config()
    overrides.override(config, workspace, folder, who=WHO, reason=REASON)
    again = documents.saved(folder, workspace)
    assert (again.override.who, again.override.reason) == (WHO, REASON)
    assert (again.pushed.version, again.pushed.live) == (2, True)
    assert again.decision == found.decision
    documents.publish(again, folder)
    assert storage.load(folder.evidence).override == again.override


def test_a_run_without_evidence_is_told(finished):
    place = finished(judged(FLOOR))
    for file in folder_of(place).evidence.iterdir():
        file.unlink()
    line = refusal(typed(place, "card"))
    assert "No evidence at" in line
