"""Turns the artifacts of a run into the evidence that its report shows.

Who knows the artifacts does not matter: ML Metadata of a local run, or the inputs of a container.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from components.decisions import read_decision
from components.report import evidence as report
from components.report import gate_records
from components.report.reading import Reader
from components.report.samples import choose_samples
from evaluation import predictions as prediction_tables
from evaluation.outcome import Decision
from evaluation.predictions import SplitTable
from schema import features, places

STAGES = {"pretrain": "Pretrainer", "teacher": "Teacher", "student": "Student"}
BUNDLE, SERVING = "bundle", "Format-Serving"  # folders of a model

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Found:
    """One artifact: its folder or address, and its custom properties."""

    uri: str
    properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Artifacts = Mapping[tuple[str, str], Found]  # node id and output key → artifact
Tables = Mapping[str, SplitTable]


def collected(
    artifacts: Artifacts,
    *,
    run: report.Run,
    config: Mapping[str, Any],
    dataset: report.Dataset | None,
    live: int | None = None,
) -> report.Evidence:
    """Reads whatever artifacts there are.

    Args:
        artifacts: of the nodes that ended, any beginning of the DAG.
        run: which run it is.
        config: its settings as plain data.
        dataset: what it learnt from; without it, predictions are left out.
        live: number of the registry's live version, if one is known.

    Returns:
        Evidence with what they hold; without nodes, override and lineage, of which they know
        nothing.
    """
    with Reader() as reader:

        def of(node: str, key: str, read: Callable[[Reader, Found], T]) -> T | None:
            found = artifacts.get((node, key))
            return None if found is None else read(reader, found)

        def of_stages(read: Callable[[Reader, Found], T | None]) -> dict[str, T]:
            every = {stage: of(node, "model", read) for stage, node in STAGES.items()}
            return {stage: value for stage, value in every.items() if value is not None}

        tables = of("Predictor", "predictions", _tables) if dataset else None
        decision = of("ModelGate", "decision", _decision)
        judged = _judged(tables["test"]) if tables else None
        samples = None
        if tables and judged:
            shown = _wanted(tables["test"], judged)
            samples = of("ImageExampleGen", "examples", lambda _, it: _samples(it, shown))
        return report.Evidence(
            run=run,
            config=dict(config),
            dataset=dataset,
            statistics=of("StatisticsGen", "statistics", _statistics) or {},
            anomalies=of("ExampleValidator", "anomalies", _anomalies) or (),
            histories=of_stages(_history),
            calibrations=of_stages(_calibration),
            predictions=judged,
            samples=samples or (),
            baselines=_baselines(decision) if decision else {},
            tfma=of("Evaluator", "evaluation", _evaluated) or {},
            decision=decision,
            pushed=of("RegistryPusher", "pushed_model", lambda _, it: _pushed(it, live)),
            litert=of("Student", "model", _litert) or (),
            leakage=of("LeakageCheck", "decision", gate_records.leakage),
            drift=of("DriftGate", "decision", gate_records.drift),
            control=of("ShuffleControl", "decision", _decision),
            serving=of("ServingCheck", "decision", _decision),
            input_gate=of("Student", "model", gate_records.input_gate),
        )


def tables(artifacts: Artifacts) -> Tables | None:
    """What the models said about each split; None where the Predictor's table is not there."""
    found = artifacts.get(("Predictor", "predictions"))
    if found is None:
        return None
    with Reader() as reader:
        return _tables(reader, found)


def weights_digest(artifacts: Artifacts) -> str | None:
    """SHA-256 of the student's weights; None where there are none."""
    found = artifacts.get(("Student", "model"))
    if found is None:
        return None
    with Reader() as reader:
        path = reader.file(found.uri, f"{BUNDLE}/weights.npz")
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _decision(_: Reader, artifact: Found) -> Decision:
    return read_decision(artifact.uri)


def _statistics(reader: Reader, artifact: Found) -> dict[str, dict[str, report.Descriptor]]:
    """StatisticsGen's numeric statistics of the image descriptors, by split."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    found: dict[str, dict[str, report.Descriptor]] = {}
    for folder in sorted(reader.folder(artifact.uri).glob("Split-*")):
        proto = statistics_pb2.DatasetFeatureStatisticsList()
        proto.ParseFromString((folder / "FeatureStats.pb").read_bytes())
        found[folder.name.removeprefix("Split-")] = {
            name.removeprefix(features.DESCRIPTOR_PREFIX): _descriptor(feature.num_stats)
            for feature in proto.datasets[0].features
            if (name := "/".join(feature.path.step)).startswith(features.DESCRIPTOR_PREFIX)
        }
    return found


def _descriptor(stats) -> report.Descriptor:
    standard = [item for item in stats.histograms if item.type == item.STANDARD and item.buckets]
    histogram = None
    if standard:
        buckets = standard[0].buckets
        histogram = report.Histogram(
            edges=(buckets[0].low_value, *(bucket.high_value for bucket in buckets)),
            counts=tuple(bucket.sample_count for bucket in buckets),
        )
    return report.Descriptor(stats.mean, stats.std_dev, stats.min, stats.max, histogram)


def _anomalies(reader: Reader, artifact: Found) -> tuple[report.Anomaly, ...]:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    found = []
    for path in sorted(reader.folder(artifact.uri).glob("Split-*/SchemaDiff.pb")):
        proto = anomalies_pb2.Anomalies()
        proto.ParseFromString(path.read_bytes())
        split = path.parent.name.removeprefix("Split-")
        found += [
            report.Anomaly(f"{split}: {name}", info.description)
            for name, info in sorted(proto.anomaly_info.items())
        ]
    return tuple(found)


def _history(reader: Reader, artifact: Found) -> tuple[dict[str, Any], ...] | None:
    path = reader.file(artifact.uri, f"{BUNDLE}/history.json")
    return tuple(json.loads(path.read_text())) if path.is_file() else None


def _calibration(reader: Reader, artifact: Found) -> report.Calibration | None:
    path = reader.file(artifact.uri, f"{BUNDLE}/model.json")
    described = json.loads(path.read_text()) if path.is_file() else {}
    measured = described.get("calibration")  # empty where none was sought, absent in older bundles
    if not measured:
        return None
    return report.Calibration(
        described["temperature"], measured["ece_before"], measured["ece_after"]
    )


def _tables(reader: Reader, artifact: Found) -> Tables:
    packed = reader.file(artifact.uri, prediction_tables.FILE).read_bytes()
    return prediction_tables.from_bytes(packed)


def _judged(table: SplitTable) -> report.Predictions | None:
    student = table.probabilities["student"]
    if not np.isfinite(student).all():
        return None
    return report.Predictions(
        labels=table.labels,
        student=student,
        teacher=table.probabilities.get("teacher"),
        subjects=table.subjects,
        slice_index=table.slice_index,
    )


def _wanted(table: SplitTable, judged: report.Predictions) -> dict[str, int]:
    """Images that show the student fairly: digest → row."""
    rows = choose_samples(judged.labels, judged.student)
    return {str(table.sha256[row]): row for row in rows}


def _samples(artifact: Found, wanted: Mapping[str, int]) -> tuple[report.Sample, ...]:
    """Encoded bytes of the images, found by their digest; nothing is copied to find them."""
    images = _images(places.below(artifact.uri, "Split-test"), set(wanted))
    return tuple(
        report.Sample(row, images[digest]) for digest, row in wanted.items() if digest in images
    )


def _images(folder: str, digests: set[str]) -> dict[str, bytes]:
    import tensorflow as tf

    found: dict[str, bytes] = {}
    files = sorted(tf.io.gfile.glob(f"{folder}/*"))
    for record in tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        values = feature[features.SOURCE_SHA256].bytes_list.value
        if values and (digest := values[0].decode()) in digests:
            found[digest] = feature[features.IMAGE].bytes_list.value[0]
    return found


def _baselines(decision: Decision) -> dict:
    models = ("student", "teacher")
    return {name: levels for name, levels in decision.metrics.items() if name not in models}


def _evaluated(_: Reader, artifact: Found) -> dict[str, float]:
    from components.tfma_metrics import measured  # TFMA: only where the run has used it already

    return measured(artifact.uri)


def _pushed(artifact: Found, live: int | None) -> report.Pushed | None:
    """The version pushed; after a rollback it may be in the registry and yet not live."""
    version = artifact.properties.get("pushed_version")
    if version is None:
        return None
    return report.Pushed(
        int(version),
        str(artifact.properties.get("pushed_destination", "")),
        live=live == int(version),
    )


def _litert(reader: Reader, artifact: Found) -> tuple[report.LiteRt, ...]:
    """The exported files with what their check against the SavedModel measured."""
    path = reader.file(artifact.uri, f"{SERVING}/litert/check.json")
    if not path.is_file():
        return ()
    return tuple(
        report.LiteRt(name, measured["bytes"], measured["agreement"])
        for name, measured in sorted(json.loads(path.read_text()).items())
    )
