"""Data that drifted end a run before any training; a leak that was asked for runs to its stamp."""

import json
from pathlib import Path

import pytest

from components.report import storage
from evaluation.outcome import Outcome
from ingest.phantom import PhantomSpec, export, generate, render_subject
from ingest.releases import open_source
from ingest.spans import write_span
from tests.pipeline.conftest import TINY, assignments


def told(result) -> str:
    return result.stdout[-3000:] + result.stderr[-3000:]


def record_of(workspace: Path) -> tuple[Path, dict]:
    [path] = workspace.glob("runs/*/run.json")
    return path.parent, json.loads(path.read_text())


@pytest.mark.slow
def test_a_span_that_has_drifted_ends_the_run_before_training(tmp_path, cortexflow):
    """24 people of a reference scanner, then 24 others of a bad one."""
    for site in (0, 2):
        spec = PhantomSpec("standard", (6, 6, 6, 6), slices=2, site=site, seed=site)
        for number in range(len(spec)):
            subject = render_subject(spec, number)
            folder = tmp_path / "source" / subject.class_name
            folder.mkdir(parents=True, exist_ok=True)
            for index, data in enumerate(subject.encoded):
                (folder / f"{subject.id}site{site}_{index}.jpg").write_bytes(data)
        listing = open_source(tmp_path / "source", subject_regex=r"(subj\d+site\d)")
        write_span(listing, tmp_path / "data")
    place = tmp_path / "workspace"
    result = cortexflow("run", "mri", "--data", str(tmp_path / "data"), workspace=place)
    assert result.returncode == 2, told(result)
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("refused")
    assert "The data have drifted: span-2 (24 people) against span-1 (24)" in last
    assert "--set drift.on_drift=report" in last
    folder, record = record_of(place)
    nodes = [node["node"] for node in record["nodes"]]
    assert nodes[-1] == "StopOnBadData"
    assert "Pretrainer" not in nodes
    drift = storage.load(folder / "evidence").drift
    assert drift.decision.outcome is Outcome.REFUSED
    newest = drift.comparisons[0]
    assert (newest.reference, newest.current, newest.people) == ("span-1", "span-2", (24, 24))
    assert "drift" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_shipped_split_that_leaks_is_stamped_and_no_word_puts_it_live(tmp_path, cortexflow):
    """22 people, all of them on both sides, as the release deals them out."""
    spec = PhantomSpec("realistic", (10, 7, 3, 2), 32, 64, 0, 3)
    export(generate(spec, tmp_path / "phantoms"), "tourist55", tmp_path / "release")
    place = tmp_path / "workspace"
    short = ("teacher.epochs=4", "student.epochs=4", "data.reproduce_shipped_split=true")
    result = cortexflow(
        "run", "quickstart", "--data", str(tmp_path / "release"), *assignments(*TINY, *short),
        workspace=place,
    )  # fmt: skip
    assert result.returncode == 2, told(result)
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("refused")
    assert "the split shares subjects" in last
    folder, record = record_of(place)
    states = {node["node"]: node["state"] for node in record["nodes"]}
    assert states["StopOnBadData"] == "ran"
    assert states["ModelGate"] == "ran"
    assert states["StopOnRefusal"] == "failed"
    for name in ("report.html", "model_card.html", "model_card.md"):
        assert "LEAKED" in (folder / name).read_text(), name
    evidence = storage.load(folder / "evidence")
    assert evidence.leakage.decision.outcome is Outcome.REFUSED
    assert evidence.leakage.pairs
    refused = cortexflow(
        "override", "latest", "--who", "R. Roe", "--reason", "why", workspace=place
    )
    assert refused.returncode == 1
    assert "Nobody's word lifts this" in refused.stderr
    assert "the split shares subjects" in refused.stderr
    assert not (place / "registry").exists()
