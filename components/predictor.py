"""Predictor: what student, teacher and live version say about people they have never seen.

One pass over each split with the exported `serving_default` signature, the one that is evaluated
and served; the gate and the report then work on arrays alone. Here a candidate meets the test
split, so here the touch is recorded.
"""

import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Model
from tfx.utils import path_utils

from components.artifacts import Predictions
from components.live_model import holds_model
from evaluation import touches as touch_record
from evaluation.predictions import FILE, SplitTable, answers_digest, people_digest, to_bytes
from schema import features

BATCH = 256
TOUCHES, CANDIDATE, PEOPLE = "touches", "candidate_digest", "test_people_digest"  # properties
CSF = features.DESCRIPTOR_PREFIX + "csf_fraction"
Answers = Callable[[np.ndarray], np.ndarray]


def read_records(pattern: str, batch: int = BATCH) -> Iterator[np.ndarray]:
    """Yields batches of serialized examples, `object[<=batch]`, from GZIP TFRecords."""
    import tensorflow as tf

    files = sorted(tf.io.gfile.glob(pattern))
    dataset = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(batch)
    yield from dataset.as_numpy_iterator()


def load(path: str) -> Answers:
    """Loads a SavedModel: a function from serialized examples, object[B], to float64[B, C]."""
    import tensorflow as tf

    model = tf.saved_model.load(path)

    def answer(batch: np.ndarray) -> np.ndarray:
        found = model.signatures["serving_default"](examples=tf.constant(batch))
        return found["probabilities"].numpy().astype(np.float64)

    return answer


def tabulate(pattern: str, models: Mapping[str, Answers]) -> SplitTable:
    """Reads a split once, and runs every model on it.

    Args:
        pattern: GZIP TFRecord files of the split.
        models: name → what `load` returns.

    Returns:
        The table of the split, ordered by subject, slice and digest, whatever the file order.

    Raises:
        ValueError: the split has no examples.
    """
    import tensorflow as tf

    rows: list[dict] = []
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for batch in read_records(pattern):
        rows.extend(_row(tf.train.Example.FromString(record)) for record in batch)
        for name, answer in models.items():
            outputs[name].append(answer(batch))
    if not rows:
        raise ValueError(f"No examples in {pattern}. Import data for this split first.")
    subjects = np.array([row["subject"] for row in rows])
    sha256 = np.array([row["sha256"] for row in rows])
    slices = np.array([row["slice_index"] for row in rows], np.int64)
    order = np.lexsort((sha256, slices, subjects))
    return SplitTable(
        labels=np.array([row["label"] for row in rows], np.int64)[order],
        subjects=subjects[order] if all(subjects) else None,
        slice_index=slices[order],
        sites=np.array([row["site"] for row in rows])[order],
        sha256=sha256[order],
        csf_fraction=np.array([row["csf"] for row in rows], np.float64)[order],
        probabilities={name: np.concatenate(parts)[order] for name, parts in outputs.items()},
    )


def _row(example) -> dict:
    feature = example.features.feature

    def text(name: str) -> str:
        values = feature[name].bytes_list.value if name in feature else ()
        return values[0].decode() if values else ""

    def number(name: str, kind: str, default: float) -> float:
        values = getattr(feature[name], kind).value if name in feature else ()
        return values[0] if values else default

    return {
        "subject": text(features.SUBJECT_ID),
        "site": text(features.SITE),
        "sha256": text(features.SOURCE_SHA256),
        "label": number(features.LABEL, "int64_list", features.UNLABELLED),
        "slice_index": number(features.SLICE_INDEX, "int64_list", -1),
        "csf": number(CSF, "float_list", float("nan")),
    }


def _serving_dir(model: Model) -> str:
    return path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))


@component
def Predictor(  # noqa: N802 (a TFX node is named as a class)
    examples: InputArtifact[Examples],
    student: InputArtifact[Model],
    teacher: InputArtifact[Model],
    predictions: OutputArtifact[Predictions],
    train_split: Parameter[str],
    val_split: Parameter[str],
    eval_split: Parameter[str],
    touches: Parameter[str],
    code: Parameter[str],
    live: InputArtifact[Model] = None,
):
    """TFX node: tables "train" (no models: for baselines), "val" (student and teacher: where the
    operating point is set) and "test" (all models).

    `touches` is the folder in which the candidate's look at the test people is recorded; "" records
    nothing. `code` is the hash of the code, for the cache.
    """
    models = {"student": load(_serving_dir(student)), "teacher": load(_serving_dir(teacher))}

    def pattern(split: str) -> str:
        return os.path.join(artifact_utils.get_split_uri([examples], split), "*")

    tables = {
        "train": tabulate(pattern(train_split), {}),
        "val": tabulate(pattern(val_split), models),
    }
    if live is not None and holds_model(live):
        models["live"] = load(_serving_dir(live))
    tables["test"] = test = tabulate(pattern(eval_split), models)
    people, candidate = people_digest(test), answers_digest(test.probabilities["student"])
    predictions.set_string_custom_property(PEOPLE, people)
    predictions.set_string_custom_property(CANDIDATE, candidate)
    if touches:
        count = touch_record.record(touches, people=people, candidate=candidate)
        predictions.set_int_custom_property(TOUCHES, count)
    with fileio.open(os.path.join(predictions.uri, FILE), "wb") as file:
        file.write(to_bytes(tables))
