"""Examples are read as columns, and the node writes what the check found."""

import json

import numpy as np
import pytest
from PIL import Image

from components.records import decoded, read_columns, stream_columns
from evaluation.leakage_pairs import SplitImages
from ingest.images import read_image
from ingest.records import RecordError, encode_example, write_records
from schema import features
from tests.components.leaking_records import example, png
from tests.evaluation.leaking import by_person, by_slice, columns, phantom

NAMES = (features.SUBJECT_ID, features.LABEL, features.SLICE_INDEX, "descriptor/csf_fraction")


@pytest.fixture(scope="module")
def people() -> SplitImages:
    return phantom(people=8, slices=32)


def written(place, records) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_records(place, [encode_example(record) for record in records])
    return str(place.parent / "*")


def test_columns_are_what_was_written_and_gaps_have_their_own_value(tmp_path):
    records = [
        {features.SUBJECT_ID: b"a", features.LABEL: 2, "descriptor/csf_fraction": 0.25},
        {features.SUBJECT_ID: "ö-long-name".encode(), features.SLICE_INDEX: 7},
        {features.IMAGE: b"unread", features.LABEL: 0},
    ]
    found = read_columns(written(tmp_path / "data-0.gz", records), NAMES)
    assert found[features.SUBJECT_ID].tolist() == ["a", "ö-long-name", ""]
    assert found[features.LABEL].tolist() == [2, -1, 0]
    assert found[features.SLICE_INDEX].tolist() == [-1, 7, -1]
    np.testing.assert_array_equal(found["descriptor/csf_fraction"], [0.25, np.nan, np.nan])
    assert found[features.LABEL].dtype == np.int64
    assert found["descriptor/csf_fraction"].dtype == np.float64


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_files_and_batches_are_read_in_order(tmp_path, batch):
    for part in range(3):
        rows = [{features.LABEL: 5 * part + row} for row in range(5)]
        pattern = written(tmp_path / f"data-{part}.gz", rows)
    parts = list(stream_columns(pattern, [features.LABEL], batch))
    assert np.concatenate([part[features.LABEL] for part in parts]).tolist() == list(range(15))
    assert max(len(part[features.LABEL]) for part in parts) <= batch


def test_no_records_are_empty_columns(tmp_path):
    found = read_columns(written(tmp_path / "data-0.gz", []), [*NAMES, features.IMAGE])
    assert {name: len(column) for name, column in found.items()} == dict.fromkeys(found, 0)
    assert found[features.IMAGE].dtype == object
    assert len(decoded(str(tmp_path / "*"), 64)) == 0


@pytest.mark.parametrize(
    ("record", "name", "message"),
    [
        ({features.LABEL: b"two"}, features.LABEL, "must hold integers"),
        ({features.SUBJECT_ID: 3}, features.SUBJECT_ID, "must hold bytes"),
        ({features.LABEL: [1, 2]}, features.LABEL, "has 2 values"),
        ({features.SITE: b"\xff\xfe"}, features.SITE, "no UTF-8"),
        ({features.LABEL: 1}, features.IMAGE, "have no 'image'.*label.*cortexflow ingest"),
    ],
)
def test_what_a_feature_should_not_be_is_said(tmp_path, record, name, message):
    with pytest.raises(RecordError, match=message):
        read_columns(written(tmp_path / "data-0.gz", [record]), [name])


def test_files_that_are_not_there_or_damaged_are_named(tmp_path):
    with pytest.raises(RecordError, match="No files match"):
        read_columns(str(tmp_path / "*"), NAMES)
    pattern = written(tmp_path / "data-0.gz", [{features.LABEL: 1}] * 50)
    whole = (tmp_path / "data-0.gz").read_bytes()
    (tmp_path / "data-0.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match="data-0"):
        read_columns(pattern, NAMES)


def test_an_unknown_feature_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="No such feature: age"):
        read_columns(written(tmp_path / "data-0.gz", [{features.LABEL: 1}]), ["age"])


def test_decoded_is_the_table_whatever_the_order_of_files(people, tmp_path):
    order = np.random.default_rng(0).permutation(len(people))
    for part, rows in enumerate(np.array_split(order, 3)):
        pattern = written(tmp_path / f"data-{part}.gz", [example(people, row) for row in rows])
    seen = []
    found = decoded(pattern, 64, seen.append)
    for name, column in columns(people).items():
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)
    assert seen[-1] == len(people)


def test_digests_are_those_of_the_import(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    found = decoded(written(tmp_path / "d.gz", [{features.IMAGE: png(pixels)}]), 64)
    assert found.digests.tolist() == [read_image(png(pixels), "one").pixel_sha256]
    assert found.sides.tolist() == [30]
    assert found.subjects is None


def test_images_that_cannot_be_decoded_are_named_and_left_out(people, tmp_path):
    records = [example(people, row) for row in range(4)]
    for row, data in ((1, records[1][features.IMAGE][:-300]), (3, b"GIF89a nothing")):
        records[row][features.IMAGE] = data
    found = decoded(written(tmp_path / "d.gz", records), 64)
    assert found.slice_index.tolist() == [0, 2]
    assert [line.split(":")[0] for line in found.unreadable] == [
        "subj0001 slice 1",
        "subj0001 slice 3",
    ]


@pytest.mark.parametrize(("splitter", "outcome"), [(by_person, "passed"), (by_slice, "refused")])
def test_the_node_writes_decision_pairs_and_picture(people, tmp_path, splitter, outcome):
    from tfx.types import artifact_utils
    from tfx.types.standard_artifacts import Examples

    from components.artifacts import DataDecision
    from components.decisions import read_decision
    from components.leakage_check import LeakageCheck
    from evaluation.config import LeakageSettings

    splits = splitter(people)
    for split, images in splits.items():
        records = [example(images, row) for row in range(len(images))]
        written(tmp_path / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz", records)
    examples, decision = Examples(), DataDecision()
    examples.uri, decision.uri = str(tmp_path), str(tmp_path / "decision")
    examples.split_names = artifact_utils.encode_split_names(list(splits))
    (tmp_path / "decision").mkdir()
    LeakageCheck.EXECUTOR_SPEC.executor_class().Do(
        {"examples": [examples]},
        {"decision": [decision]},
        {
            "splits": ",".join(splits),
            "settings": LeakageSettings().model_dump_json(),
            "code": "",
        },
    )
    assert read_decision(decision.uri).outcome.value == outcome
    pairs = json.loads((tmp_path / "decision" / "pairs.json").read_text())
    picture = tmp_path / "decision" / "pairs.png"
    assert bool(pairs) == picture.exists() == (outcome == "refused")
    if pairs:
        assert pairs[0]["a"]["subject"] == pairs[0]["b"]["subject"]
        assert Image.open(picture).format == "PNG"
