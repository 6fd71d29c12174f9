"""The node that runs the models: one pass, a fixed order, and a touch on record."""

import json
from pathlib import Path

import numpy as np
import pytest
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Model

from components import predictor
from components.artifacts import Predictions
from components.predictor import CANDIDATE, PEOPLE, TOUCHES, Predictor, tabulate
from evaluation import predictions
from evaluation.touches import FILE as RECORD
from schema import features

SPLITS = {"train": 6, "val": 4, "test": 5}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two SavedModels that read the slice's number: softmax of ± it."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("models")
    for name, sign in (("student", 1.0), ("teacher", -1.0)):
        module = tf.Module()

        def serve(examples, sign=sign):
            wanted = {features.SLICE_INDEX: tf.io.FixedLenFeature([], tf.int64)}
            place = tf.io.parse_example(examples, wanted)[features.SLICE_INDEX]
            logit = sign * tf.cast(place, tf.float32)
            return {"probabilities": tf.nn.softmax(tf.stack([logit, -logit], axis=1))}

        signature = tf.function(serve).get_concrete_function(
            tf.TensorSpec([None], tf.string, name="examples")
        )
        tf.saved_model.save(module, str(folder / name / "Format-Serving"), signatures=signature)
    return folder


def example(subject: str, place: int) -> bytes:
    import tensorflow as tf

    def text(value: str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    def whole(value: int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    fields = {
        features.SUBJECT_ID: text(subject),
        features.SOURCE_SHA256: text(f"{subject}{place}"),
        features.LABEL: whole(int(subject[-1]) % 2),
        features.SLICE_INDEX: whole(place),
        predictor.CSF: tf.train.Feature(float_list=tf.train.FloatList(value=[0.25])),
    }
    return tf.train.Example(features=tf.train.Features(feature=fields)).SerializeToString()


@pytest.fixture
def examples(tmp_path):
    import tensorflow as tf

    made = Examples()
    made.uri = str(tmp_path / "examples")
    made.split_names = artifact_utils.encode_split_names(list(SPLITS))
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for split, people in SPLITS.items():
        folder = Path(artifact_utils.get_split_uri([made], split))
        folder.mkdir(parents=True)
        for part in (1, 0):  # files in an order that is not the people's
            with tf.io.TFRecordWriter(str(folder / f"{1 - part}.gz"), options) as writer:
                for person in range(part, people, 2):
                    for place in (2, 0, 1):
                        writer.write(example(f"{split}{person}", place))
    return made


def run(tmp_path, examples, models, student="student", **options) -> Predictions:
    def model(name):
        made = Model()
        made.uri = str(models / name)
        return made

    table = Predictions()
    table.uri = str(tmp_path / "predictions")
    Path(table.uri).mkdir(exist_ok=True)
    splits = {"train_split": "train", "val_split": "val", "eval_split": "test"}
    Predictor.EXECUTOR_SPEC.executor_class._FUNCTION(
        examples=examples,
        student=model(student),
        teacher=model("teacher"),
        predictions=table,
        **splits,
        **{"touches": "", "code": "", **options},
    )
    return table


def test_tables_of_three_splits(tmp_path, examples, models):
    live = Model()
    live.uri = str(models / "teacher")
    found = run(tmp_path, examples, models, live=live)
    tables = predictions.from_bytes((tmp_path / "predictions" / predictions.FILE).read_bytes())
    assert {split: set(table.probabilities) for split, table in tables.items()} == {
        "train": set(),
        "val": {"student", "teacher"},
        "test": {"student", "teacher", "live"},
    }
    test = tables["test"]
    assert test.subjects.tolist() == [f"test{person}" for person in range(5) for _ in range(3)]
    assert test.slice_index.tolist() == [0, 1, 2] * 5
    wanted = 1 / (1 + np.exp(-2.0 * test.slice_index))
    np.testing.assert_allclose(test.probabilities["student"][:, 0], wanted, atol=1e-6)
    np.testing.assert_allclose(test.probabilities["live"][:, 1], wanted, atol=1e-6)
    assert not found.has_custom_property(TOUCHES)
    assert found.get_string_custom_property(PEOPLE) == predictions.people_digest(test)


def test_one_touch_for_each_candidate(tmp_path, examples, models):
    folder = tmp_path / "touches"
    first = run(tmp_path, examples, models, touches=str(folder))
    again = run(tmp_path, examples, models, touches=str(folder))
    assert first.get_int_custom_property(TOUCHES) == again.get_int_custom_property(TOUCHES) == 1
    [line] = [json.loads(it) for it in (folder / RECORD).read_text().splitlines()]
    assert line["candidate"] == first.get_string_custom_property(CANDIDATE)
    assert line["people"] == first.get_string_custom_property(PEOPLE)
    second = run(tmp_path, examples, models, student="teacher", touches=str(folder))
    assert second.get_int_custom_property(TOUCHES) == 2
    assert second.get_string_custom_property(PEOPLE) == line["people"]


def test_each_split_is_read_once(examples, models, monkeypatch):
    read = []
    original = predictor.read_records

    def counted(pattern):
        for batch in original(pattern):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(predictor, "read_records", counted)
    answers = {
        name: predictor.load(str(models / name / "Format-Serving"))
        for name in ("student", "teacher")
    }
    pattern = str(Path(artifact_utils.get_split_uri([examples], "test")) / "*")
    assert len(tabulate(pattern, answers).labels) == sum(read) == 15


def test_an_empty_split_says_so(tmp_path):
    with pytest.raises(ValueError, match="No examples"):
        tabulate(str(tmp_path / "*"), {})
