"""Collects what a run left behind into the evidence that its report shows."""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from components.decisions import read_decision
from components.report import evidence as report
from components.report.samples import choose_samples
from evaluation import predictions as prediction_tables
from evaluation.outcome import Decision
from evaluation.predictions import SplitTable
from ingest.datasets import read_dataset
from pipeline import gate_records, lineage, versions
from pipeline.config import PipelineConfig
from pipeline.documents import override_of, put_live
from pipeline.lineage import ArtifactRef
from pipeline.runs import RunRecord
from pipeline.workspace import Workspace
from registry.interface import Version
from schema import features

PACKAGES = (
    "cortexflow", "tensorflow", "tfx", "tensorflow-model-analysis", "apache-beam", "numpy",
)  # fmt: skip
STAGES = {"pretrain": "Pretrainer", "teacher": "Teacher", "student": "Student"}

T = TypeVar("T")


def collect(
    config: PipelineConfig, workspace: Workspace, record: RunRecord, dataset: Path | None
) -> report.Evidence:
    """Reads artifacts of every node that ended, through ML Metadata.

    Args:
        config: the run's settings.
        workspace: where the run kept its things.
        record: the run's record; its nodes may be any beginning of the DAG.
        dataset: the imported dataset, or None when the run stopped before it.

    Returns:
        Evidence with whatever there is.
    """
    nodes = lineage.outputs_of_nodes(workspace.metadata(config.name), record.nodes)

    def of(node: str, key: str, read: Callable[[ArtifactRef], T]) -> T | None:
        found = [artifact for artifact in nodes.get(node, ()) if artifact.key == key]
        return read(found[0]) if found else None

    live = versions.registry(config, workspace).live()
    tables = of("Predictor", "predictions", _tables)
    decision = of("ModelGate", "decision", lambda artifact: read_decision(artifact.uri))
    histories = {
        stage: history
        for stage, node in STAGES.items()
        if (history := of(node, "model", _history)) is not None
    }
    calibrations = {
        stage: calibration
        for stage, node in STAGES.items()
        if (calibration := of(node, "model", _calibration)) is not None
    }
    judged = _judged(tables["test"]) if tables else None
    samples = None
    if tables and judged:
        samples = of("ImageExampleGen", "examples", lambda it: _samples(it, tables["test"], judged))
    return report.Evidence(
        run=_run(record),
        config=config.model_dump(mode="json"),
        dataset=_dataset(dataset) if dataset else None,
        statistics=of("StatisticsGen", "statistics", _statistics) or {},
        anomalies=of("ExampleValidator", "anomalies", _anomalies) or (),
        histories=histories,
        calibrations=calibrations,
        predictions=judged,
        samples=samples or (),
        baselines=_baselines(decision) if decision else {},
        tfma=of("Evaluator", "evaluation", _evaluated) or {},
        decision=decision,
        nodes=tuple(_node(state) for state in record.nodes),
        pushed=put_live(record, live)
        or of("RegistryPusher", "pushed_model", lambda artifact: _pushed(artifact, live)),
        litert=of("Student", "model", _litert) or (),
        leakage=of("LeakageCheck", "decision", gate_records.leakage),
        drift=of("DriftGate", "decision", gate_records.drift),
        control=of("ShuffleControl", "decision", lambda artifact: read_decision(artifact.uri)),
        serving=of("ServingCheck", "decision", lambda artifact: read_decision(artifact.uri)),
        input_gate=of("Student", "model", gate_records.input_gate),
        override=override_of(record),
        lineage=_lineage(config, dataset, of("Student", "model", _weights)),
    )


def _run(record: RunRecord) -> report.Run:
    return report.Run(
        id=record.id,
        preset=record.preset,
        pipeline=record.pipeline,
        started=record.started.isoformat(timespec="seconds"),
        seconds=record.seconds,
        status=record.status,
        message=record.reason,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        command=record.command,
    )


def _node(state) -> report.Node:
    ended = "failed" if state.state == "running" else state.state
    return report.Node(id=state.node, state=ended, seconds=state.seconds)


def _dataset(path: Path) -> report.Dataset:
    found = read_dataset(path)
    imported = found.report()
    by_subject = found.info.level == "subject"
    return report.Dataset(
        name=found.info.name,
        classes=found.info.classes,
        severity=found.info.severity,
        level=found.info.level,
        leaked=found.info.leaked,
        counts={
            split: {
                name: report.Count(tally.images, tally.subjects if by_subject else None)
                for name, tally in classes.items()
            }
            for split, classes in imported.counts.items()
        },
        quarantined=len(imported.quarantined),
        quarantine_reasons=dict(Counter(item.reason for item in imported.quarantined)),
        importer=found.info.importer,
        id_source=found.info.id_source,
    )


def _lineage(config: PipelineConfig, path: Path | None, weights: str | None) -> dict[str, str]:
    """Digests of what the run was made from and of what it made."""
    settings = json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()
    found = {"settings (SHA-256)": hashlib.sha256(settings).hexdigest()}
    if path is not None:
        dataset = read_dataset(path)
        found["split by person (SHA-256)"] = dataset.splits.sha256
        for span in dataset.info.spans:
            found[f"images of {span} (fingerprint)"] = dataset.report(span).fingerprint
    if weights is not None:
        found["student's weights (SHA-256)"] = weights
    return found


def _weights(artifact: ArtifactRef) -> str | None:
    path = Path(artifact.uri) / "bundle" / "weights.npz"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _statistics(artifact: ArtifactRef) -> dict[str, dict[str, report.Descriptor]]:
    """StatisticsGen's numeric statistics of the image descriptors, by split."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    found: dict[str, dict[str, report.Descriptor]] = {}
    for folder in sorted(Path(artifact.uri).glob("Split-*")):
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


def _anomalies(artifact: ArtifactRef) -> tuple[report.Anomaly, ...]:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    found = []
    for path in sorted(Path(artifact.uri).glob("Split-*/SchemaDiff.pb")):
        proto = anomalies_pb2.Anomalies()
        proto.ParseFromString(path.read_bytes())
        split = path.parent.name.removeprefix("Split-")
        found += [
            report.Anomaly(f"{split}: {name}", info.description)
            for name, info in sorted(proto.anomaly_info.items())
        ]
    return tuple(found)


def _history(artifact: ArtifactRef) -> tuple[dict[str, Any], ...] | None:
    path = Path(artifact.uri) / "bundle" / "history.json"
    return tuple(json.loads(path.read_text())) if path.is_file() else None


def _calibration(artifact: ArtifactRef) -> report.Calibration | None:
    path = Path(artifact.uri) / "bundle" / "model.json"
    described = json.loads(path.read_text()) if path.is_file() else {}
    measured = described.get("calibration")  # empty where none was sought, absent in older bundles
    if not measured:
        return None
    return report.Calibration(
        described["temperature"], measured["ece_before"], measured["ece_after"]
    )


def _tables(artifact: ArtifactRef) -> dict[str, SplitTable]:
    return prediction_tables.from_bytes((Path(artifact.uri) / prediction_tables.FILE).read_bytes())


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


def _samples(
    artifact: ArtifactRef, table: SplitTable, judged: report.Predictions
) -> tuple[report.Sample, ...]:
    """Encoded bytes of the images that show the student fairly, found by their digest."""
    rows = choose_samples(judged.labels, judged.student)
    wanted = {str(table.sha256[row]): row for row in rows}
    images = _images(Path(artifact.uri) / "Split-test", set(wanted))
    return tuple(
        report.Sample(row, images[digest]) for digest, row in wanted.items() if digest in images
    )


def _images(folder: Path, digests: set[str]) -> dict[str, bytes]:
    import tensorflow as tf

    found: dict[str, bytes] = {}
    files = [str(path) for path in sorted(folder.iterdir())]
    for record in tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        values = feature[features.SOURCE_SHA256].bytes_list.value
        if values and (digest := values[0].decode()) in digests:
            found[digest] = feature[features.IMAGE].bytes_list.value[0]
    return found


def _baselines(decision: Decision) -> dict:
    models = ("student", "teacher")
    return {name: levels for name, levels in decision.metrics.items() if name not in models}


def _evaluated(artifact: ArtifactRef) -> dict[str, float]:
    from pipeline.tfma import measured  # TFMA: only where the run has used it already

    return measured(artifact.uri)


def _pushed(artifact: ArtifactRef, live: Version | None) -> report.Pushed | None:
    """The version pushed; after a rollback it may be in the registry and yet not live."""
    version = artifact.properties.get("pushed_version")
    if version is None:
        return None
    return report.Pushed(
        int(version),
        str(artifact.properties.get("pushed_destination", "")),
        live=live is not None and live.number == int(version),
    )


def _litert(artifact: ArtifactRef) -> tuple[report.LiteRt, ...]:
    """The exported files with what their check against the SavedModel measured."""
    path = Path(artifact.uri) / "Format-Serving" / "litert" / "check.json"
    if not path.is_file():
        return ()
    return tuple(
        report.LiteRt(name, measured["bytes"], measured["agreement"])
        for name, measured in sorted(json.loads(path.read_text()).items())
    )
