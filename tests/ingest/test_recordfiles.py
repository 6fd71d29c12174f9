"""TFRecords as a source: the options that apply to them, their labels, people and splits."""

from collections.abc import Callable
from pathlib import Path

import pytest

import ingest
from ingest.records import encode_example, write_records
from ingest.releases import open_source
from ingest.sources import SourceError


@pytest.fixture
def records() -> Callable[..., Path]:
    """Writes a file of records, each of the given features."""

    def write(file: Path, *features: dict) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_records(file, [encode_example({"image": b"x", **given}) for given in features])
        return file

    return write


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("subject_regex", "(", "--subject-regex"),
        ("subject_regex", r"(subj\d+)", "--subject-regex"),
        ("subject_source", "clusters", "--subjects"),
        ("deduplicate", True, "--deduplicate"),
    ],
)
@pytest.mark.parametrize("layout", ["auto", "tfrecords"])
def test_options_that_do_not_apply_are_refused(records, tmp_path, layout, option, value, named):
    records(tmp_path / "train.tfrecord", {"label": 0})
    with pytest.raises(SourceError, match=f"{named} cannot be used with TFRecords"):
        open_source(tmp_path, layout, **{option: value})


@pytest.mark.parametrize("source", ["none", "order", "clusters"])
def test_a_pattern_and_another_source_of_people_exclude_each_other(noise, tmp_path, source):
    folder = noise(tmp_path / "x")
    with pytest.raises(SourceError, match=f"--subjects {source} does not"):
        open_source(folder, subject_regex=r"([ab]\d+)_", subject_source=source)


def test_images_do_not_vanish_behind_a_stray_record_file(noise, records, tmp_path):
    folder = noise(tmp_path / "x")
    records(folder / "a/deep/stray.tfrecord-00000-of-00001", {"label": 0})
    with pytest.raises(SourceError, match=r"24 \(first: a/a00_slice00.*1 \(first: .*stray"):
        open_source(folder)
    images = open_source(folder, "folders").images
    assert len(images) == 25  # the stray is read as an image, and quarantined by name
    listing = open_source(folder, "tfrecords")
    assert (len(listing.images), len(listing.ignored)) == (1, 24)


def _split_by_name(records, folder: Path, **features) -> Path:
    for split in ("train", "val", "test"):
        given = [{"label": label, **features} for label in (0, 1)]
        records(folder / f"{split}.tfrecord", *given)
    return folder


def test_the_evidence_says_what_is_done_with_the_shipped_split(records, tmp_path):
    def opened(folder: Path):
        listing = open_source(folder, classes=["a", "b"])
        return listing.level, listing.keep_shipped_split, listing.evidence[-1]

    named = opened(_split_by_name(records, tmp_path / "named", subject_id=b"s1"))
    assert named[:2] == ("subject", False)
    assert "a split is made by person" in named[2]
    assert "kept" not in named[2]
    nameless = _split_by_name(records, tmp_path / "nameless")
    assert opened(nameless)[:2] == ("slice", True)
    assert "train, val and test are kept" in opened(nameless)[2]
    (nameless / "val.tfrecord").unlink()
    assert "validation is carved out of train" in opened(nameless)[2]
    records(nameless / "unlabelled.tfrecord", {"label": -1})
    assert opened(nameless)[:2] == ("slice", True)
    records(nameless / "others.tfrecord", {"label": 1})
    assert opened(nameless)[:2] == ("slice", False)
    assert "so a split is made" in opened(nameless)[2]


def test_the_error_names_the_option_there_is(records, tmp_path):
    file = records(tmp_path / "train.tfrecord", {"label": 7})
    with pytest.raises(SourceError, match="by --class, in label order"):
        open_source(file)
    records(file, {"label": -2})
    with pytest.raises(SourceError, match="has label -2"):
        open_source(file)
    records(file, {"label": -1})
    with pytest.raises(SourceError, match="hold no record with a label"):
        open_source(file)


@pytest.mark.parametrize("regex", [r"([abc]\d+)_", None])
def test_a_span_with_unlabelled_images_can_be_imported_again(noise, tmp_path, regex):
    source = noise(tmp_path / "x", people=8)
    extra = noise(tmp_path / "more", classes=("c",), people=2, seed=3)
    settings = {"subject_regex": regex, "unlabelled": extra}
    first = ingest.import_dataset(source, tmp_path / "first", **settings)
    again = ingest.import_dataset(first.path / "span-1", tmp_path / "again", classes=["a", "b"])
    assert again.info.level == first.info.level
    assert again.splits.assignment.keys() == first.splits.assignment.keys()
    unlabelled = {"unlabelled": {"images": 6, "subjects": 2 if regex else 0}}
    counts = again.report().model_dump()["counts"]
    assert counts["unlabelled"] == unlabelled
    if regex is None:
        assert counts == first.report().model_dump()["counts"]
