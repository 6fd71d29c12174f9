"""Spans: the layout, the same bytes however they are written, and every way to stop half-way."""

import gzip
import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ingest
from ingest.datasets import DatasetError, read_dataset
from ingest.images import read_image
from ingest.publishing import locked
from ingest.records import decode_example, encode_example, read_records, write_records
from ingest.releases import open_source
from ingest.spans import QuarantineError
from ingest.splits import SplitError

REGEX = r"([abc]\d+)_"


def tree(folder: Path) -> dict[str, bytes]:
    """Path → bytes of everything in a dataset but its lock."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def examples(dataset, split: str, span: str | None = None) -> list[dict]:
    return [
        decode_example(record)
        for file in dataset.files(split, span)
        for record in read_records(file)
    ]


def run(source: Path, out: Path, **settings):
    return ingest.import_dataset(source, out, **{"subject_regex": REGEX, **settings})


def findings(found) -> dict[str, str]:
    return {finding.path: finding.reason for finding in found}


def test_a_dataset_holds_every_image_once_under_its_person(noise, tmp_path):
    source = noise(tmp_path / "x", people=10)
    dataset = run(source, tmp_path / "out", site="A", shards=2)
    info = dataset.info
    assert (info.name, info.classes, info.level, info.leaked) == ("x", ("a", "b"), "subject", False)
    assert (info.spans, info.severity, info.channels) == (("span-1",), None, 1)
    seen, people = [], {}
    for split in ("train", "val", "test"):
        for example in examples(dataset, split):
            subject = example["subject_id"][0].decode()
            seen.append((subject, example["slice_index"][0]))
            people.setdefault(subject, set()).add(split)
            file = source / "ab"[example["label"][0]] / f"{subject}_slice{seen[-1][1]:02d}.png"
            image = read_image(file.read_bytes(), "")
            assert example["image"] == [image.data]
            assert example["source_sha256"] == [image.source_sha256.encode()]
            assert (example["height"], example["width"], example["depth"]) == ([20], [24], [1])
            assert example["site"] == [b"A"]
    assert len(seen) == len(set(seen)) == 60
    assert {subject: {split} for subject, split in dataset.splits.assignment.items()} == people
    assert dataset.report().counts["test"]["a"].subjects == 2
    assert dataset.patterns()["train"] == "span-1/train/data-*.tfrecord.gz"
    assert len(dataset.files("train")) == 2
    assert not list(dataset.path.glob(".import-*"))


def test_the_same_input_is_the_same_span(noise, tmp_path):
    source = noise(tmp_path / "x")
    run(source, tmp_path / "out")
    before = tree(tmp_path / "out")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.gz")}
    source.rename(tmp_path / "moved")
    run(tmp_path / "moved", tmp_path / "out", shards=3)
    assert tree(tmp_path / "out") == before
    assert {file: file.stat().st_mtime_ns for file in times} == times


def test_the_same_bytes_whatever_the_parallelism(noise, tmp_path, monkeypatch):
    monkeypatch.setattr("ingest.spans.BATCH", 5)
    source = noise(tmp_path / "x")
    run(source, tmp_path / "one", shards=3)
    parallel = ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]
    run(source, tmp_path / "many", shards=3, beam_options=parallel)
    assert tree(tmp_path / "one") == tree(tmp_path / "many")


@pytest.mark.slow
def test_processes_give_the_same_bytes(noise, tmp_path):
    source = noise(tmp_path / "x")
    run(source, tmp_path / "one", shards=3)
    parallel = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    run(source, tmp_path / "many", shards=3, beam_options=parallel)
    assert tree(tmp_path / "one") == tree(tmp_path / "many")


def test_new_images_make_a_new_span_and_people_keep_their_split(noise, tmp_path):
    source = noise(tmp_path / "x", people=8)
    first = run(source, tmp_path / "out").splits.assignment
    noise(source, people=8, seed=1)
    dataset = run(source, tmp_path / "out")
    assert dataset.info.spans == ("span-1", "span-2")
    assert first.items() <= dataset.splits.assignment.items()
    assert len(dataset.splits.assignment) == 32
    assert sum(len(examples(dataset, s, "span-2")) for s in ("train", "val", "test")) == 48
    assert Counter(findings(dataset.report().set_aside).values()) == {"duplicate": 48}
    run(source, tmp_path / "out")
    assert len(read_dataset(tmp_path / "out").info.spans) == 2


def test_nothing_new_is_said(noise, tmp_path):
    source = noise(tmp_path / "x")
    run(source, tmp_path / "out")
    with pytest.raises(DatasetError, match="Nothing new: all 24 images"):
        run(source, tmp_path / "out", subject_regex="([ab])")
    assert read_dataset(tmp_path / "out").info.spans == ("span-1",)


def test_other_settings_need_another_dataset(noise, tmp_path):
    source = noise(tmp_path / "x")
    run(source, tmp_path / "out")
    with pytest.raises(SplitError, match="seed 0"):
        run(source, tmp_path / "out", seed=1)
    noise(source, classes=("c",))
    with pytest.raises(DatasetError, match="does not fit"):
        run(source, tmp_path / "out")


def test_copies_are_used_once_and_contradictions_never(noise, tmp_path):
    source = noise(tmp_path / "x", people=6)
    shutil.copy(source / "a/a00_slice00.png", source / "a/a01_slice77.png")
    shutil.copy(source / "a/a02_slice00.png", source / "b/b02_slice77.png")
    report = run(source, tmp_path / "out", max_quarantined=0.1).report()
    assert findings(report.set_aside) == {"a/a01_slice77.png": "duplicate"}
    assert "another subject (a00, a01)" in report.set_aside[0].detail
    assert findings(report.quarantined) == {
        "a/a02_slice00.png": "conflicting_labels",
        "b/b02_slice77.png": "conflicting_labels",
    }
    assert any("filed under different subjects" in warning for warning in report.warnings)
    assert report.received == 38
    listed = json.loads((tmp_path / "out/quarantine/span-1.json").read_text())
    assert [row["path"] for row in listed["set_aside"]] == ["a/a01_slice77.png"]


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-30],
    "wrong_type": lambda data: b"GIF89a" + data,
}


def test_damaged_files_are_quarantined_each_with_its_reason(noise, tmp_path):
    source = noise(tmp_path / "x", people=12)
    for index, change in enumerate(DAMAGE.values()):
        file = source / f"a/a0{index}_slice01.png"
        file.write_bytes(change(file.read_bytes()))
    (source / "a/nobody.png").write_bytes((source / "a/a00_slice00.png").read_bytes() + b"\0")
    os.mkfifo(source / "b/b00_slice99.png")
    dataset = run(source, tmp_path / "out", max_quarantined=0.2)
    report = dataset.report()
    expected = {f"a/a0{index}_slice01.png": code for index, code in enumerate(DAMAGE)}
    expected |= {"a/nobody.png": "no_subject_id", "b/b00_slice99.png": "unreadable"}
    assert findings(report.quarantined) == expected
    written = sum(len(examples(dataset, split)) for split in ("train", "val", "test"))
    assert written + len(report.quarantined) + len(report.set_aside) == report.received == 74


def test_too_much_damage_stops_the_import_and_keeps_the_report(noise, tmp_path):
    source = noise(tmp_path / "x")
    for index in range(2):
        (source / f"a/a0{index}_slice01.png").write_bytes(b"")
    with pytest.raises(QuarantineError, match=r"2 of 24 files \(8\.3%\).*2× empty"):
        run(source, tmp_path / "out")
    with pytest.raises(DatasetError, match="is no imported dataset"):
        read_dataset(tmp_path / "out")
    (kept,) = (tmp_path / "out/quarantine").glob("refused-*.json")
    assert len(json.loads(kept.read_text())["quarantined"]) == 2
    assert not list((tmp_path / "out").glob(".import-*"))
    run(source, tmp_path / "out", max_quarantined=0.1)


def test_a_class_without_a_usable_image_stops_the_import(noise, tmp_path):
    source = noise(tmp_path / "x")
    for file in (source / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DatasetError, match="Class b has no usable image"):
        run(source, tmp_path / "out", max_quarantined=1.0)


def test_metadata_of_a_file_is_in_no_output(noise, tmp_path):
    canary = "CANARY-51c0"
    source = noise(tmp_path / "x")
    exif = Image.Exif()
    exif[0x010E] = canary
    pixels = np.random.default_rng(9).integers(0, 255, (20, 24), np.uint8)
    Image.fromarray(pixels).save(source / "a/a09_slice00.jpg", exif=exif)
    run(source, tmp_path / "out")
    for name, data in tree(tmp_path / "out").items():
        content = gzip.decompress(data) if name.endswith(".gz") else data
        assert canary.encode() not in content


def test_unlabelled_images_train_only_without_labels(noise, tmp_path):
    source = noise(tmp_path / "x", people=8)
    extra = noise(tmp_path / "more", classes=("c",), seed=3)
    held_out = next(
        name
        for name, split in run(source, tmp_path / "probe").splits.assignment.items()
        if split == "test"
    )
    first = extra / "c/c300_slice00.png"
    first.rename(extra / f"c/{held_out}_slice90.png")
    shutil.copy(source / "a/a00_slice00.png", extra / "c/c399_slice00.png")
    dataset = run(source, tmp_path / "out", unlabelled=extra)
    found = examples(dataset, "unlabelled")
    assert len(found) == 11
    assert {example["label"][0] for example in found} == {-1}
    assert findings(dataset.report().set_aside) == {
        f"unlabelled/c/{held_out}_slice90.png": "held_out_subject",
        "unlabelled/c/c399_slice00.png": "duplicate",
    }
    assert set(dataset.patterns()) == {"train", "val", "test", "unlabelled"}


def test_slice_level_data_is_split_by_pixels(noise, tmp_path):
    dataset = ingest.import_dataset(noise(tmp_path / "x", people=20), tmp_path / "out")
    assert (dataset.info.level, dataset.splits.assignment) == ("slice", {})
    assert all("subject_id" not in example for example in examples(dataset, "train"))
    counts = dataset.report().counts
    assert [counts[split]["a"].images for split in ("train", "val", "test")] == [39, 9, 12]
    assert "people may be on both sides" in dataset.report().warnings[-1]


def test_the_shipped_split_is_reproduced_and_stamped(layouts, tmp_path):
    folder, _ = layouts("tourist55")
    dataset = ingest.import_dataset(folder, tmp_path / "out", reproduce_shipped_split=True)
    assert dataset.info.leaked
    manifest = gzip.decompress((dataset.path / "span-1/manifest.jsonl.gz").read_bytes())
    rows = [json.loads(line) for line in manifest.splitlines()]
    assert len(rows) == 704
    for row in rows:
        assert (row["file"].split("/")[0] == "test") == (row["shipped_split"] == "test")
    train = {row["subject_id"] for row in rows if row["file"].startswith("train")}
    assert train & {row["subject_id"] for row in rows if row["file"].startswith("test")}


def test_records_keep_their_split_and_can_be_imported_again(noise, tmp_path):
    first = run(noise(tmp_path / "x", people=8), tmp_path / "first")
    (tmp_path / "records").mkdir()
    for split in ("train", "test"):
        records = [
            encode_example({name: example[name] for name in ("image", "label")})
            for example in examples(first, split)
        ]
        write_records(tmp_path / f"records/{split}.tfrecord", records)
    dataset = ingest.import_dataset(tmp_path / "records", tmp_path / "out", classes=["a", "b"])
    assert dataset.info.level == "slice"
    images, origin = (
        {
            split: {e["image"][0] for e in examples(found, split)}
            for split in ("train", "val", "test")
        }
        for found in (dataset, first)
    )
    assert images["test"] == origin["test"]
    assert images["train"] | images["val"] == origin["train"]
    again = open_source(first.path / "span-1", classes=["a", "b"])
    assert again.level == "subject"
    assert {image.subject_id for image in again.images} == set(first.splits.assignment)


def test_the_seed_records_become_a_dataset(shared, tmp_path):
    dataset = ingest.import_dataset(shared / "data" / "seed_tfrecords", tmp_path / "out")
    counts = dataset.report().counts
    assert [counts[s]["MildDemented"].images for s in ("train", "val", "test")] == [8, 2, 10]
    assert (dataset.info.level, dataset.info.leaked) == ("slice", False)


def _import_and_die(source: Path, out: Path, after: int) -> None:
    """Kills itself, as by kill -9, when `after` task results are there."""
    original = Path.replace
    count = 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal count
        done = original(self, target)
        count += 1
        if count == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.replace = replace
    run(source, out, shards=2)


@pytest.mark.parametrize("after", [1, 4, 10, 13, 15, 17, 18, 19, 20])
def test_killed_anywhere_it_continues_to_the_same_bytes(noise, tmp_path, after):
    source = noise(tmp_path / "x", people=5)
    (source / "a/a00_slice00.png").write_bytes(b"")
    run(source, tmp_path / "whole", shards=2)
    process = multiprocessing.get_context("fork").Process(
        target=_import_and_die, args=(source, tmp_path / "out", after)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run(source, tmp_path / "out", shards=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_two_imports_do_not_write_to_one_dataset(noise, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(DatasetError, match="Another import"):
        run(noise(tmp_path / "x"), tmp_path / "out")


def test_a_dataset_within_its_source_is_refused(noise, tmp_path):
    source = noise(tmp_path / "x")
    with pytest.raises(DatasetError, match="lies within its source"):
        run(source, source / "out")


def test_a_dataset_that_lacks_a_span_is_refused(noise, tmp_path):
    run(noise(tmp_path / "x"), tmp_path / "out")
    shutil.rmtree(tmp_path / "out/span-1")
    with pytest.raises(DatasetError, match="lacks span-1"):
        read_dataset(tmp_path / "out")
