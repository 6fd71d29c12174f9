"""TFRecords as a source: the options that apply to them, their labels, people and splits."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
