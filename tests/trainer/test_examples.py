from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from blob_dataset import CLASSES, blob_split, draw_blob, make_example, write_records

from trainer import examples, preprocessing
from trainer.config import InputSettings
from trainer.errors import TrainingDataError
from trainer.examples import Examples

INPUT = InputSettings(image_size=32)


def blob() -> np.ndarray:
    return draw_blob(0, np.random.default_rng(0))


def test_reads_splits_as_tfx_lists_them(blobs):
    read = examples.read([blobs.train, blobs.unlabelled], INPUT, CLASSES)
    assert read.images.shape == (117, 32, 32, 1)
    assert read.images.dtype == np.uint8
    assert np.bincount(read.labels + 1).tolist() == [27, 30, 30, 30]
    assert len(set(read.subjects)) == 39
    assert len(read.labelled()) == 90


def test_cached_bytes_are_what_serving_computes(blobs):
    settings = InputSettings(image_size=24)
    read = examples.read([blobs.val], settings, CLASSES)
    file = examples.match([blobs.val])[0]
    record = next(iter(tf.data.TFRecordDataset(file, "GZIP")))
    encoded = tf.train.Example.FromString(record.numpy()).features.feature["image"].bytes_list
    served = preprocessing.preprocess(tf.constant(encoded.value), settings)
    cached = preprocessing.scale(read.images).numpy()
    assert np.sum((cached == served[0].numpy()).all(axis=(1, 2, 3))) == 1


@pytest.mark.parametrize("named", [True, False])
def test_the_order_of_files_and_records_does_not_matter(tmp_path, named):
    random = np.random.default_rng(4)
    records = [
        make_example(draw_blob(n % 3, random), n % 3, f"person-{n % 4}" if named else None)
        for n in range(24)
    ]
    write_records(tmp_path / "1" / "Split-train" / "0.gz", records)
    order = random.permutation(24)
    for shard, chosen in enumerate(np.split(order, [5, 16])):
        path = tmp_path / "2" / "Split-train" / f"{shard}.gz"
        write_records(path, [records[position] for position in chosen])
    first, second = (
        examples.read([str(tmp_path / run / "Split-train" / "*")], INPUT, CLASSES) for run in "12"
    )
    np.testing.assert_array_equal(first.images, second.images)
    assert first.labels.tolist() == second.labels.tolist()
    if named:
        assert first.subjects.tolist() == second.subjects.tolist()


def test_slices_of_a_person_are_in_the_order_of_the_stack(tmp_path):
    shades = {position: np.full((32, 32, 1), 20 * position, np.uint8) for position in range(9)}
    records = []
    for position in (4, 8, 0, 2, 6, 1, 7, 3, 5):
        example = tf.train.Example.FromString(make_example(shades[position], 0, "someone"))
        example.features.feature["slice_index"].int64_list.value.append(position)
        records.append(example.SerializeToString())
    pattern = write_records(tmp_path / "Split-train" / "data.gz", records)
    read = examples.read([pattern], INPUT, CLASSES)
    assert read.images[:, 0, 0, 0].tolist() == list(range(0, 180, 20))


def test_slice_level_data_has_no_subjects(tmp_path):
    pattern = blob_split(tmp_path, "train", 3, named=False)
    assert examples.read([pattern], INPUT, CLASSES).subjects is None


def test_unlabelled_examples_need_no_subject(tmp_path):
    known = make_example(blob(), 0, "someone")
    unknown = make_example(blob(), -1, None)
    pattern = write_records(tmp_path / "Split-train" / "data.gz", [known, unknown])
    assert examples.read([pattern], INPUT, CLASSES).subjects.tolist() == ["", "someone"]


def test_refuses_some_subjects_without_others(tmp_path):
    both = [make_example(blob(), 0, "someone"), make_example(blob(), 0, None)]
    pattern = write_records(tmp_path / "Split-train" / "data.gz", both)
    with pytest.raises(TrainingDataError, match="1 of 2 labelled examples carry no subject id"):
        examples.read([pattern], INPUT, CLASSES)


def test_refuses_no_files(tmp_path):
    with pytest.raises(TrainingDataError, match="No files match"):
        examples.read([str(tmp_path / "*")], INPUT, CLASSES)


def test_refuses_no_examples(tmp_path):
    pattern = write_records(tmp_path / "Split-train" / "data.gz", [])
    with pytest.raises(TrainingDataError, match="No examples in 1 file"):
        examples.read([pattern], INPUT, CLASSES)


@pytest.mark.parametrize("label", [3, -2])
def test_refuses_a_label_outside_the_classes(tmp_path, label):
    pattern = write_records(
        tmp_path / "Split-train" / "data.gz", [make_example(blob(), label, "someone")]
    )
    with pytest.raises(TrainingDataError, match=rf"Received \[{label}\]"):
        examples.read([pattern], INPUT, CLASSES)


def test_refuses_to_learn_classes_without_labels(blobs):
    read = examples.read([blobs.unlabelled], INPUT, CLASSES)
    with pytest.raises(TrainingDataError, match="No labelled examples"):
        read.labelled()


def test_identity_ignores_where_the_pipeline_put_the_files(tmp_path):
    first = blob_split(tmp_path / "1", "train", 3)
    second = blob_split(tmp_path / "2", "train", 3)
    other = blob_split(tmp_path / "3", "train", 6)
    assert examples.identity([first]) == examples.identity([second])
    assert examples.identity([first]) != examples.identity([other])


def test_identity_tells_files_of_one_size_apart(tmp_path):
    patterns = []
    for label in (0, 1):
        path = tmp_path / str(label) / "Split-train" / "data"
        path.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(make_example(blob(), label, "someone"))
        patterns.append(str(path))
    assert len({Path(path).stat().st_size for path in patterns}) == 1
    assert examples.identity(patterns[:1]) != examples.identity(patterns[1:])


def test_absent_examples_can_be_done_without(tmp_path, blobs):
    empty = write_records(tmp_path / "Split-val" / "data.gz", [])
    for patterns in ([], [str(tmp_path / "absent" / "*")], [empty]):
        assert examples.read_if_any(patterns, INPUT, CLASSES) is None
    assert len(examples.read_if_any([blobs.val], INPUT, CLASSES)) == 45


def test_the_images_are_handed_to_tensorflow_once():
    few = Examples(np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), np.array([0, 1]), None)
    tf.function(lambda: few.levels + tf.constant(1, tf.uint8))()
    np.testing.assert_array_equal(few.levels.numpy(), few.images)  # a value, not a part of a graph
    assert few.levels is few.levels
    assert few.labelled() is few
    some = Examples(few.images, np.array([-1, 1]), None)
    assert len(some.labelled()) == 1
