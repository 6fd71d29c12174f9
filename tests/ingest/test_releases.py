"""Every layout: recognised, its people recovered, its defects reported."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.correlation import adjusted_rand
from ingest.folders import canonical_classes, natural_key
from ingest.records import RecordError, encode_example, write_records
from ingest.releases import open_source
from ingest.sources import SourceError, SourceListing
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY

COUNTS = {
    "MildDemented": 96,
    "ModerateDemented": 64,
    "NonDemented": 320,
    "VeryMildDemented": 224,
}


def truth_of(listing: SourceListing, folder: Path, sources: dict) -> list[tuple[str, int]]:
    return [sources[Path(image.path).relative_to(folder).as_posix()] for image in listing.images]


@pytest.mark.parametrize("layout", ["folders", "tourist55", "sachinkumar413"])
def test_people_and_slices_are_recovered(layouts, layout):
    folder, sources = layouts(layout)
    listing = open_source(folder)
    truth = truth_of(listing, folder, sources)
    assert (listing.layout, listing.level) == (layout, "subject")
    assert listing.classes == ALZHEIMER_CLASSES
    assert listing.severity == ALZHEIMER_SEVERITY
    assert listing.counts() == COUNTS
    assert adjusted_rand([who for who, _ in truth], [i.subject_id for i in listing.images]) == 1.0
    assert [index for _, index in truth] == [image.slice_index for image in listing.images]


@pytest.mark.parametrize("layout", ["tourist55", "sachinkumar413"])
def test_people_are_recovered_by_likeness_alone(layouts, layout):
    folder, sources = layouts(layout)
    listing = open_source(folder, subject_source="clusters")
    people = [who for who, _ in truth_of(listing, folder, sources)]
    assert adjusted_rand(people, [image.subject_id for image in listing.images]) == 1.0
    assert any("22 people" in sentence for sentence in listing.evidence)


def test_a_release_with_a_missing_file_falls_back_to_likeness(layouts, tmp_path):
    folder, sources = layouts("sachinkumar413")
    shutil.copytree(folder, tmp_path / "x")
    (tmp_path / "x/Dataset/Non_Demented/non_7.jpg").unlink()
    listing = open_source(tmp_path / "x")
    people = [who for who, _ in truth_of(listing, tmp_path / "x", sources)]
    assert adjusted_rand(people, [image.subject_id for image in listing.images]) == 1.0
    assert any("does not fit" in sentence for sentence in listing.evidence)


def test_shuffled_numbers_are_not_taken_for_an_order(layouts, tmp_path):
    """The arithmetic is checked against the pixels: numbers alone prove nothing."""
    folder, _ = layouts("sachinkumar413")
    shutil.copytree(folder, tmp_path / "x")
    rng = np.random.default_rng(0)
    for place in (tmp_path / "x/Dataset").iterdir():
        files = sorted(place.iterdir())
        contents = [file.read_bytes() for file in files]
        for file, index in zip(files, rng.permutation(len(files)), strict=True):
            file.write_bytes(contents[index])
    with pytest.raises(SourceError, match="The file order gives no people"):
        open_source(tmp_path / "x", subject_source="order")
    listing = open_source(tmp_path / "x")
    assert len({image.subject_id for image in listing.images}) == 22


def test_the_shipped_split_of_tourist55_is_kept_in_mind(layouts):
    listing = open_source(layouts("tourist55")[0])
    shipped = Counter(image.shipped_split for image in listing.images)
    assert shipped == {"train": 565, "test": 139}


def test_the_reupload_is_refused_unless_each_image_is_taken_once(layouts):
    folder, sources = layouts("reupload")
    with pytest.raises(SourceError, match="704 of 704 shipped test files are byte for byte"):
        open_source(folder)
    listing = open_source(folder, deduplicate=True)
    assert (listing.layout, listing.counts()) == ("sachinkumar413", COUNTS)
    assert {image.shipped_split for image in listing.images} == {None}
    people = [who for who, _ in truth_of(listing, folder, sources)]
    assert adjusted_rand(people, [image.subject_id for image in listing.images]) == 1.0


def test_the_augmented_derivative_is_refused_with_the_evidence(layouts):
    folder, _ = layouts("uraninjo")
    with pytest.raises(SourceError) as error:
        open_source(folder)
    message = str(error.value)
    assert "AugmentedAlzheimerDataset holds 3776 images" in message
    assert "0 of 3776 files are byte for byte files of OriginalDataset" in message
    assert "of 64 sampled" in message
    assert "5.4 augmented images per original" in message
    originals = open_source(folder / "OriginalDataset", subject_source="clusters")
    assert len({image.subject_id for image in originals.images}) == 22


def test_the_augmented_folder_alone_is_known_by_its_counts(tmp_path, monkeypatch):
    from ingest import alzheimer

    counts = dict(zip(ALZHEIMER_CLASSES, (4, 3, 5, 4), strict=True))
    monkeypatch.setattr(alzheimer, "AUGMENTED_COUNTS", counts)
    for name, count in counts.items():
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{index}.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match="these are the counts of the augmented derivative"):
        open_source(tmp_path)


def test_the_tumour_set_reports_copies_across_its_split(layouts):
    folder, _ = layouts("tumour")
    listing = open_source(folder)
    files = {
        split: [file.read_bytes() for file in (folder / split).rglob("*.jpg")]
        for split in ("Training", "Testing")
    }
    crossing = sum(data in set(files["Training"]) for data in files["Testing"])
    assert crossing > 0
    assert (listing.layout, listing.level, listing.severity) == ("tumour", "slice", None)
    assert any(
        sentence.startswith(f"{crossing} of {len(files['Testing'])} shipped test files")
        for sentence in listing.evidence
    )


def test_unregistered_slices_have_no_people_to_find(layouts):
    with pytest.raises(SourceError, match="cannot be told apart by correlation"):
        open_source(layouts("tumour")[0], subject_source="clusters")


def test_records_of_the_predecessor(layouts):
    folder, _ = layouts("tfrecords")
    listing = open_source(folder)
    assert (listing.layout, listing.level, listing.counts()) == ("tfrecords", "slice", COUNTS)
    assert listing.keep_shipped_split
    assert {image.shipped_split for image in listing.images} == {"train", "test"}


def test_seed_records(shared):
    listing = open_source(shared / "data" / "seed_tfrecords")
    assert listing.counts() == dict.fromkeys(ALZHEIMER_CLASSES, 20)
    assert Counter(image.shipped_split for image in listing.images) == {"train": 40, "test": 40}


def test_140_real_people_by_name_and_by_likeness(shared):
    source = shared / "data" / "oasis140"
    named = open_source(source, subject_regex=r"(subj\d+)")
    alike = open_source(source, subject_source="clusters")
    names = [image.subject_id for image in named.images]
    assert len(set(names)) == 140
    assert {image.slice_index for image in named.images} == set(range(32))
    assert adjusted_rand(names, [image.subject_id for image in alike.images]) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("source", ["order", "clusters"])
def test_200_people_of_the_full_release(tmp_path_factory, source):
    from ingest.phantom import PhantomSpec, export, generate

    spec = PhantomSpec("realistic", (100, 70, 28, 2), 32, 128, 0, 11)
    base = tmp_path_factory.getbasetemp()
    folder = base / "full"
    phantom = generate(spec, base / "cache")
    shutil.rmtree(folder, ignore_errors=True)
    sources = export(phantom, "sachinkumar413", folder)
    listing = open_source(folder, subject_source=source)
    people = [who for who, _ in truth_of(listing, folder, sources)]
    found = [image.subject_id for image in listing.images]
    assert "Counts are those of the full release" in " ".join(listing.evidence)
    assert len(set(found)) == 200
    assert adjusted_rand(people, found) == 1.0


def test_class_names_have_aliases():
    assert canonical_classes({"Non_Demented", "Very mild Dementia", "MildDemented"}) == {
        "Non_Demented": "NonDemented",
        "Very mild Dementia": "VeryMildDemented",
        "MildDemented": "MildDemented",
    }
    assert canonical_classes({"Non_Demented", "tumour"}) == {
        "Non_Demented": "Non_Demented",
        "tumour": "tumour",
    }
    with pytest.raises(SourceError, match="mean the same class"):
        canonical_classes({"Non_Demented", "NonDemented"})


def test_natural_order():
    assert sorted(["a10", "a2", "a"], key=natural_key) == ["a", "a2", "a10"]


def test_subject_pattern_searches_the_path(noise, tmp_path):
    folder = noise(tmp_path / "x")
    listing = open_source(folder, subject_regex=r"([ab]\d+)_")
    assert (listing.level, len({i.subject_id for i in listing.images})) == ("subject", 8)
    for pattern, message in [
        ("(nobody)", "matches none of 24 names"),
        ("(", "not a regular expression"),
        (r"a\d+", "no group"),
    ]:
        with pytest.raises(SourceError, match=message):
            open_source(folder, subject_regex=pattern)


def test_unknown_names_stay_slice_level(noise, tmp_path):
    listing = open_source(noise(tmp_path / "x"))
    assert listing.level == "slice"
    assert "cannot be blessed" in listing.evidence[-1]
    with pytest.raises(SourceError, match="no known scheme"):
        open_source(tmp_path / "x", subject_source="names")


def test_unlabelled_images_and_site(noise, tmp_path):
    folder = noise(tmp_path / "x")
    extra = noise(tmp_path / "more", classes=("c",))
    listing = open_source(folder, unlabelled=extra, site="A", subject_regex=r"([abc]\d+)_")
    last = listing.images[-1]
    assert (last.label, last.name, last.subject_id) == (-1, "unlabelled/c/c03_slice02.png", "c03")
    assert {image.site for image in listing.images} == {"A"}
    with pytest.raises(SourceError, match="no folder"):
        open_source(folder, unlabelled=tmp_path / "absent")


def test_tables_are_ignored_aloud_and_other_files_are_not(noise, tmp_path):
    folder = noise(tmp_path / "x")
    (folder / "a" / "labels.csv").write_text("x")
    (folder / "a" / "scan.gif").write_bytes(b"GIF89a")
    listing = open_source(folder)
    assert listing.ignored == ("a/labels.csv",)
    assert "a/scan.gif" in {image.name for image in listing.images}


def test_what_is_no_source(noise, tmp_path):
    def refuses(message: str, **options) -> None:
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / "x", **options)

    refuses("There is nothing at")
    (tmp_path / "x").mkdir()
    refuses("No class folders")
    noise(tmp_path / "x", classes=("a",))
    refuses("Only one class")
    (tmp_path / "x" / "b").mkdir()
    refuses("Class b holds 0 files")
    refuses("Class c holds 0 files", classes=["a", "c"])
    noise(tmp_path / "x")
    refuses("Unknown layout 'png'", layout="png")
    refuses("Unknown subject_source", subject_source="guess")
    refuses("holds no \\*.tfrecord", layout="tfrecords")
    Image.new("L", (20, 20)).save(tmp_path / "x" / "loose.png")
    refuses("1 images lie beside the class folders")


def test_records_without_label_or_class_are_refused(tmp_path):
    file = tmp_path / "train.tfrecord"
    write_records(file, [encode_example({"image": b"x"})])
    with pytest.raises(SourceError, match="no single integer label"):
        open_source(tmp_path)
    write_records(file, [encode_example({"image": b"x", "label": 7})])
    with pytest.raises(SourceError, match=r"label 7, but there are 4\s+classes"):
        open_source(tmp_path)
    write_records(file, [])
    with pytest.raises(SourceError, match="hold no record"):
        open_source(tmp_path)
    file.write_bytes(b"not a TFRecord")
    with pytest.raises(RecordError):
        open_source(tmp_path)
