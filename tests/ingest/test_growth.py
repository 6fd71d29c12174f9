"""A dataset that grows: what earlier spans fix, so that nobody is trained on and tested."""

import gzip
import json
import shutil
from pathlib import Path

import ingest

REGEX = r"([a-z]\d+)_"


def grow(source: Path, out: Path, **settings):
    return ingest.import_dataset(source, out, **{"subject_regex": REGEX, **settings})


def rows(dataset, span: str) -> list[dict]:
    """The manifest of a span."""
    manifest = gzip.decompress((dataset.path / span / "manifest.jsonl.gz").read_bytes())
    return [json.loads(line) for line in manifest.splitlines()]


def findings(found) -> dict[str, str]:
    return {finding.path: finding.reason for finding in found}


def test_who_was_unlabelled_trains_in_every_later_span(noise, tmp_path):
    source = noise(tmp_path / "x", people=8)
    extra = noise(tmp_path / "more", classes=("c",), people=6, seed=3)
    first = grow(source, tmp_path / "out", unlabelled=extra)
    seen = {f"c3{person:02d}" for person in range(6)}
    assert {name: first.splits.assignment.get(name) for name in seen} == dict.fromkeys(
        seen, "train"
    )
    fresh = noise(tmp_path / "fresh", classes=("c",), people=6, seed=4)
    for file in (fresh / "c").iterdir():  # new slices of the same people, now with a label
        file.rename(source / "a" / file.name.replace("c4", "c3"))
    second = grow(source, tmp_path / "out")
    places = {
        row["file"].split("/")[0] for row in rows(second, "span-2") if row["subject_id"] in seen
    }
    assert places == {"train"}
    assert second.splits.assignment.items() >= first.splits.assignment.items()


def test_a_label_that_comes_later_is_not_used_and_said(noise, tmp_path):
    source = noise(tmp_path / "x", people=8)
    extra = noise(tmp_path / "more", classes=("c",), people=1, seed=3)
    grow(source, tmp_path / "out", unlabelled=extra)
    noise(source, people=2, seed=5)
    shutil.copy(extra / "c/c300_slice00.png", source / "a/c300_slice00.png")
    shutil.copy(extra / "c/c300_slice00.png", source / "a/c300_slice77.png")
    report = grow(source, tmp_path / "out").report()
    found = findings(report.set_aside)
    assert found["a/c300_slice00.png"] == "label_came_later"
    assert found["a/c300_slice77.png"] == found["a/a00_slice00.png"] == "duplicate"
    assert any(
        "1 images got a label" in warning and "fresh dataset" in warning
        for warning in report.warnings
    )
