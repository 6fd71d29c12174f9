import io
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.phantom import (
    LAYOUTS,
    LayoutError,
    PhantomSpec,
    SpecError,
    export,
    generate,
    load_truth,
)
from ingest.phantom.layouts import FOLDER_LAYOUTS, _cut, tourist55
from ingest.phantom.listing import Cohort, Slice
from schema.features import ALZHEIMER_CLASSES

SPEC = PhantomSpec(subjects=(7, 5, 3, 2), slices=8)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    return generate(SPEC, tmp_path_factory.mktemp("cache"), workers=1)


@pytest.fixture(scope="module")
def exported(phantom, tmp_path_factory):
    """Folder and sources of every folder layout."""
    out = tmp_path_factory.mktemp("layouts")
    return {name: (out / name, export(phantom, name, out / name)) for name in FOLDER_LAYOUTS}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def original(phantom: Path, source: tuple[str, int]) -> bytes:
    (path,) = phantom.glob(f"images/*/{source[0]}_slice{source[1]:02d}.jpg")
    return path.read_bytes()


@pytest.mark.parametrize("layout", FOLDER_LAYOUTS)
def test_an_export_is_the_layout_and_nothing_else(exported, layout):
    folder, sources = exported[layout]
    assert files(folder) == set(sources)


@pytest.mark.parametrize("layout", ["folders", "tourist55", "sachinkumar413", "reupload"])
def test_files_are_the_phantoms_own_bytes(exported, phantom, layout):
    folder, sources = exported[layout]
    for path, source in sources.items():
        assert (folder / path).read_bytes() == original(phantom, source)


@pytest.mark.parametrize("layout", ["folders", "tourist55", "sachinkumar413"])
def test_every_slice_is_there_once(exported, phantom, layout):
    _, sources = exported[layout]
    ids = load_truth(phantom).ids
    expected = {(str(subject), number) for subject in ids for number in range(SPEC.slices)}
    assert sorted(sources.values()) == sorted(expected)


def test_tourist55_is_cut_by_position(exported):
    _, sources = exported["tourist55"]
    train = {path for path in sources if path.startswith("Alzheimer_s Dataset/train/")}
    test = {path for path in sources if path.startswith("Alzheimer_s Dataset/test/")}
    assert train | test == set(sources)
    # 7 people × 8 slices: 45 of 56, which is 6 slices of everyone and 3 people's seventh.
    folder = "Alzheimer_s Dataset/train/NonDemented/nonDem"
    assert {p for p in train if "NonDemented" in p} == {f"{folder}{n}.jpg" for n in range(45)}
    names = {Path(p).name for p in test if "NonDemented" in p}
    seventh = {"7 (5).jpg", "7 (6).jpg", "7 (7).jpg", "7.jpg"}
    eighth = {f"8 ({person}).jpg" for person in range(2, 8)} | {"8.jpg"}
    assert names == seventh | eighth
    # One person keeps one number; the bare name is the last person.
    people = sorted({sources[p][0] for p in sources if "/NonDemented/" in p})
    assert [sources[f"{folder}{n}.jpg"] for n in range(7)] == [(p, 0) for p in people]
    assert sources["Alzheimer_s Dataset/test/NonDemented/8 (2).jpg"] == (people[0], 7)
    assert sources["Alzheimer_s Dataset/test/NonDemented/8.jpg"] == (people[-1], 7)


def test_tourist55_in_full_starts_its_test_sets_as_the_release_does():
    """2560 + 1792 + 717 + 52 training files, and test sets that start at the published names."""
    people = {"NonDemented": 100, "VeryMildDemented": 70, "MildDemented": 28, "ModerateDemented": 2}
    slices = {
        name: [Slice((f"{name}{p}", s), Path("any")) for s in range(32) for p in range(count)]
        for name, count in people.items()
    }
    cohort = Cohort(0, people, slices)
    paths = [path for path, _, _ in _without_reading(tourist55, cohort)]
    for name, train, first in (
        ("NonDemented", 2560, "26 (62).jpg"),
        ("VeryMildDemented", 1792, "26 (44).jpg"),
        ("MildDemented", 717, "26 (19).jpg"),
        ("ModerateDemented", 52, "27 (2).jpg"),
    ):
        assert _cut(32 * people[name]) == train
        tests = [path for path in paths if f"/test/{name}/" in path]
        assert len(tests) == 32 * people[name] - train
        assert Path(tests[0]).name == first


def _without_reading(layout, cohort):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Slice, "read", lambda self: b"")
        yield from layout(cohort)


def test_sachinkumar413_numbers_the_test_files_first(exported):
    _, tourist = exported["tourist55"]
    _, sachin = exported["sachinkumar413"]
    assert "Dataset/Non_Demented/non.jpg" in sachin
    assert "Dataset/Non_Demented/non_1.jpg" not in sachin
    stems = {
        "Non_Demented": ("non", "NonDemented"),
        "Very_Mild_Demented": ("verymild", "VeryMildDemented"),
        "Mild_Demented": ("mild", "MildDemented"),
        "Moderate_Demented": ("moderate", "ModerateDemented"),
    }
    for folder, (stem, name) in stems.items():
        count = sum(path.startswith(f"Dataset/{folder}/") for path in sachin)
        ordered = [
            sachin[f"Dataset/{folder}/{stem}{'' if n == 1 else f'_{n}'}.jpg"]
            for n in range(1, count + 1)
        ]
        tests = [source for path, source in tourist.items() if f"/test/{name}/" in path]
        trains = [source for path, source in tourist.items() if f"/train/{name}/" in path]
        assert ordered == tests + trains
        slice_numbers = [number for _, number in ordered]
        assert slice_numbers[: len(tests)] == sorted(slice_numbers[: len(tests)])


def test_the_reupload_is_its_own_test_set(exported):
    folder, _ = exported["reupload"]
    train, test = (files(folder / "Alzheimer_s Dataset" / part) for part in ("train", "test"))
    assert train == test
    assert len(train) == len(SPEC) * SPEC.slices


def test_uraninjo_balances_classes_with_altered_copies(exported, phantom):
    folder, sources = exported["uraninjo"]
    originals = {path for path in sources if path.startswith("OriginalDataset/")}
    assert len(originals) == len(SPEC) * SPEC.slices
    copies = Counter(path.split("/")[1] for path in set(sources) - originals)
    # 3 × 56 of the largest class; 168 // 40, 168 // 24 and 168 // 16 of each of the others.
    assert copies == {
        "NonDemented": 168,
        "VeryMildDemented": 4 * 40,
        "MildDemented": 7 * 24,
        "ModerateDemented": 10 * 16,
    }
    hexadecimal = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(hexadecimal.fullmatch(Path(path).stem) for path in sources)
    for path in list(set(sources) - originals)[:20]:
        altered = np.asarray(Image.open(folder / path), float)
        source = np.asarray(Image.open(io.BytesIO(original(phantom, sources[path]))), float)
        assert (altered != source).any()
        best = max(
            np.corrcoef(a.ravel(), source.ravel())[0, 1] for a in (altered, altered[:, ::-1])
        )
        assert best > 0.7


def test_the_full_uraninjo_has_the_published_counts():
    """9600 / 8960 / 8960 / 6464 copies of 3200 / 2240 / 896 / 64 originals."""
    from ingest.phantom.layouts import COPIES_OF_LARGEST, MOST_COPIES

    counts = [3200, 2240, 896, 64]
    copies = [n * min(MOST_COPIES, COPIES_OF_LARGEST * 3200 // n) for n in counts]
    assert copies == [9600, 8960, 8960, 6464]


def test_the_tumour_set_is_colour_of_many_sizes_with_duplicates_across(exported):
    folder, sources = exported["tumour"]
    kinds = {"glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"}
    for part in ("Training", "Testing"):
        assert {path.name for path in (folder / part).iterdir()} == kinds
    sizes = set()
    for path in sources:
        with Image.open(folder / path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.add(image.size)
    assert len(sizes) > 4
    training = {(folder / path).read_bytes() for path in sources if path.startswith("Training/")}
    for kind in kinds:
        tests = [folder / path for path in sources if path.startswith(f"Testing/{kind}/")]
        repeated = sum(path.read_bytes() in training for path in tests)
        assert repeated == (round(88 / 105 * len(tests)) if kind == "no_tumor" else 0)


def test_tumours_are_bright_masses(exported):
    folder, sources = exported["tumour"]
    bright = {}
    for path in sources:
        pixels = np.asarray(Image.open(folder / path).convert("L"))
        bright.setdefault(path.split("/")[1], []).append((pixels > 245).mean())
    without = np.mean(bright.pop("no_tumor"))
    assert len(bright) == 3
    assert all(np.mean(shares) > without + 0.002 for shares in bright.values())


def test_records_have_five_features_and_no_subject(phantom, tmp_path):
    tf = pytest.importorskip("tensorflow")
    sources = export(phantom, "tfrecords", tmp_path / "out")
    assert files(tmp_path / "out") == {"train.small.tfrecords-000", "test.small.tfrecords-000"}
    count = len(SPEC) * SPEC.slices
    assert len(sources) == count
    assert len(set(sources.values())) == count
    for name, share in (("train", 0.8), ("test", 0.2)):
        file = f"{name}.small.tfrecords-000"
        records = list(tf.data.TFRecordDataset(str(tmp_path / "out" / file)).as_numpy_iterator())
        assert len(records) == pytest.approx(share * count, abs=1)
        for number, record in enumerate(records):
            feature = tf.train.Example.FromString(record).features.feature
            assert set(feature) == {"image", "label", "height", "width", "depth"}
            data = feature["image"].bytes_list.value[0]
            source = sources[f"{file}#{number}"]
            assert data == original(phantom, source)
            (path,) = phantom.glob(f"images/*/{source[0]}_slice{source[1]:02d}.jpg")
            label = feature["label"].int64_list.value[0]
            assert ALZHEIMER_CLASSES[label] == path.parent.name
            shape = [feature[key].int64_list.value[0] for key in ("height", "width", "depth")]
            assert shape == [64, 64, 1]


@pytest.mark.parametrize("layout", FOLDER_LAYOUTS)
def test_an_export_is_the_same_every_time(exported, phantom, tmp_path, layout):
    folder, sources = exported[layout]
    assert export(phantom, layout, tmp_path) == sources
    assert all((tmp_path / path).read_bytes() == (folder / path).read_bytes() for path in sources)


def test_a_class_without_subjects_is_left_out(tmp_path):
    phantom = generate(PhantomSpec(subjects=(2, 0, 1, 0), slices=5), tmp_path / "cache", 1)
    for layout in FOLDER_LAYOUTS:
        assert export(phantom, layout, tmp_path / layout)


def test_unknown_layouts_and_full_folders_are_refused(phantom, tmp_path):
    with pytest.raises(LayoutError, match=f"one of {', '.join(LAYOUTS)}.*Received: 'imagenet'"):
        export(phantom, "imagenet", tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(LayoutError, match="empty or absent"):
        export(phantom, "folders", tmp_path)
    assert files(tmp_path) == {"mine.txt"}
    with pytest.raises(SpecError, match="No phantom in"):
        export(tmp_path, "folders", tmp_path / "out")


@pytest.mark.parametrize("count", [1, 4, 5, 16, 896, 3200])
def test_the_cut_rounds_up(count):
    assert _cut(count) == math.ceil(round(0.8 * count, 6))
