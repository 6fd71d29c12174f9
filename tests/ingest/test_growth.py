"""A dataset that grows: what earlier spans fix, so that nobody is trained on and tested."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

import ingest
from ingest.datasets import DatasetError, read_dataset

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


def test_the_pattern_that_named_the_labelled_names_the_unlabelled(noise, tmp_path):
    source = noise(tmp_path / "x", people=8)
    for file in source.rglob("*.png"):
        file.rename(file.with_name(f"sub-{file.name}"))
    held_out = next(
        name
        for name, split in grow(
            source, tmp_path / "probe", subject_regex=None
        ).splits.assignment.items()
        if split == "test"
    )
    extra = noise(tmp_path / "more", classes=("c",), people=2, seed=3)
    (extra / "c/c300_slice00.png").rename(extra / f"c/{held_out}_slice90.png")
    (extra / "c/c300_slice01.png").rename(extra / "c/sub-c300_slice01.png")
    dataset = grow(source, tmp_path / "out", unlabelled=extra, subject_regex=None)
    used = [row for row in rows(dataset, "span-1") if row["label"] == -1]
    assert [(row["subject_id"], row["slice_index"]) for row in used] == [("sub-c300", 1)]
    nameless = ["c300_slice02.png", *(f"c301_slice0{index}.png" for index in range(3))]
    assert findings(dataset.report().set_aside) == {
        f"unlabelled/c/{held_out}_slice90.png": "held_out_subject"
    } | {f"unlabelled/c/{name}": "no_subject_id" for name in nameless}
    assert any("4 unlabelled images have no subject id" in w for w in dataset.report().warnings)


def test_slice_level_data_takes_unlabelled_images_without_ids(noise, tmp_path):
    """Slice-level images cannot leak by person, so unlabelled ones need no id."""
    source = noise(tmp_path / "x", people=8)
    extra = noise(tmp_path / "more", classes=("c",), people=2, seed=3)
    dataset = grow(source, tmp_path / "out", unlabelled=extra, subject_regex=None)
    assert dataset.info.level == "slice"
    assert dataset.report().counts["unlabelled"]["unlabelled"].images == 6


@pytest.mark.parametrize("source", ["order", "clusters"])
def test_people_without_names_have_one_span(layouts, tmp_path, source):
    shutil.copytree(layouts("sachinkumar413")[0], tmp_path / "x")
    out = tmp_path / "out"
    settings = {"subject_regex": None, "subject_source": source}
    assert grow(tmp_path / "x", out, **settings).info.id_source == source
    assert grow(tmp_path / "x", out, **settings).info.spans == ("span-1",)
    for file in (tmp_path / "x/Dataset/Mild_Demented").iterdir():  # a changed source
        file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DatasetError, match=f"from {source} are numbered anew.*fresh dataset"):
        grow(tmp_path / "x", out, **settings)
    with pytest.raises(DatasetError, match=f"from {source} are numbered anew"):
        grow(tmp_path / "x", out, subject_regex=r"(\w+)\.jpg")
    assert read_dataset(out).info.spans == ("span-1",)


def test_people_with_names_are_not_joined_by_people_without(layouts, tmp_path):
    folder, _ = layouts("sachinkumar413")
    named = grow(folder, tmp_path / "out", subject_regex=r"(\w+)\.jpg")
    assert named.info.id_source == "names"
    with pytest.raises(DatasetError, match="from clusters are numbered anew"):
        grow(folder, tmp_path / "out", subject_regex=None, subject_source="clusters")


def test_people_added_one_at_a_time_fill_up_the_fractions(noise, tmp_path):
    source = noise(tmp_path / "x", people=4, slices=1)
    everyone = noise(tmp_path / "later", people=20, slices=1, seed=2)
    grow(source, tmp_path / "out")
    for person in range(4):  # a few, then the rest
        for name in "ab":
            file = everyone / name / f"{name}2{person:02d}_slice00.png"
            shutil.copy(file, source / name / file.name)
        grow(source, tmp_path / "out")
    found = read_dataset(tmp_path / "out").splits.assignment
    for name in "ab":
        counts = Counter(split for who, split in found.items() if who.startswith(name))
        assert counts == {"train": 5, "val": 1, "test": 2}
    shutil.copytree(everyone, source, dirs_exist_ok=True)
    found = grow(source, tmp_path / "out").splits.assignment
    for name in "ab":
        counts = Counter(split for who, split in found.items() if who.startswith(name))
        assert counts == {"train": 15, "val": 4, "test": 5}


def test_images_without_people_fill_up_the_fractions(noise, tmp_path):
    source = noise(tmp_path / "x", people=4, slices=1)
    grow(source, tmp_path / "out", subject_regex=None)
    for seed in range(1, 5):
        noise(source, people=1, slices=1, seed=seed)
        dataset = grow(source, tmp_path / "out", subject_regex=None)
    places = Counter(
        (row["label"], row["file"].split("/")[0])
        for span in dataset.info.spans
        for row in rows(dataset, span)
    )
    assert places == {
        (label, split): count
        for label in (0, 1)
        for split, count in {"train": 5, "val": 1, "test": 2}.items()
    }
