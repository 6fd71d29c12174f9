"""Artifacts of a run as its nodes leave them, small, from the made-up evidence of the report."""

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np

from components.decisions import write_decision
from components.run_view_outputs import INPUTS, outputs
from evaluation import predictions as tables
from evaluation.outcome import Decision, Outcome, concluded
from pipeline.facts import Facts
from tests.components.run_report.conftest import CONFIG, brain


def table(predictions) -> tables.SplitTable:
    """A split's table as Predictor keeps it."""
    rows = len(predictions.labels)
    probabilities = {"student": predictions.student}
    if predictions.teacher is not None:
        probabilities["teacher"] = predictions.teacher
    return tables.SplitTable(
        labels=predictions.labels,
        subjects=predictions.subjects,
        slice_index=predictions.slice_index,
        sites=np.full(rows, "", "<U1"),
        sha256=np.array([f"{row:064x}" for row in range(rows)]),
        csf_fraction=np.zeros(rows),
        probabilities=probabilities,
    )


def write_examples(folder: Path, images: int) -> None:
    """A split of TFRecords whose digests are those of `table`."""
    import tensorflow as tf

    from schema import features

    folder.mkdir(parents=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(folder / "data-0.gz"), options) as writer:
        for row in range(images):
            example = tf.train.Example()
            of = example.features.feature
            of[features.SOURCE_SHA256].bytes_list.value.append(f"{row:064x}".encode())
            of[features.IMAGE].bytes_list.value.append(brain(row, 0.4, 32))
            writer.write(example.SerializeToString())


def write_statistics(folder: Path) -> None:
    """Two descriptors of three splits, with their histograms."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    for shift, split in enumerate(("train", "val", "test")):
        proto = statistics_pb2.DatasetFeatureStatisticsList()
        dataset = proto.datasets.add()
        for name in ("mean", "entropy"):
            feature = dataset.features.add()
            feature.path.step.append(f"descriptor/{name}")
            stats = feature.num_stats
            stats.mean, stats.std_dev, stats.min, stats.max = 2.5 + shift, 1.1, 0.0, 5.0
            histogram = stats.histograms.add()
            for place in range(5):
                histogram.buckets.add(
                    low_value=place, high_value=place + 1, sample_count=9 + shift * place
                )
        (folder / f"Split-{split}").mkdir(parents=True)
        (folder / f"Split-{split}" / "FeatureStats.pb").write_bytes(proto.SerializeToString())


def write_anomalies(folder: Path, description: str = "") -> None:
    """Nothing wrong, or one thing in the training split."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    proto = anomalies_pb2.Anomalies()
    if description:
        proto.anomaly_info["descriptor/entropy"].description = description
    (folder / "Split-train").mkdir(parents=True)
    (folder / "Split-train" / "SchemaDiff.pb").write_bytes(proto.SerializeToString())


def write_model(folder: Path, history) -> None:
    """A trained model's bundle, as far as a report reads it."""
    (folder / "bundle").mkdir(parents=True)
    (folder / "bundle" / "history.json").write_text(json.dumps(list(history)))
    calibration = {"ece_before": 0.12, "ece_after": 0.05}
    described = {"temperature": 1.4, "calibration": calibration}
    (folder / "bundle" / "model.json").write_text(json.dumps(described))
    (folder / "bundle" / "weights.npz").write_bytes(gzip.compress(b"weights"))


def write_run(root: Path, evidence, *, anomaly: str = "") -> dict[str, Path]:
    """Every artifact that RunView reads, by its input name; from evidence with predictions."""
    found = {name: root / name for name in INPUTS if name not in ("control", "evaluation")}
    write_examples(found["examples"] / "Split-test", 200)
    write_statistics(found["statistics"])
    write_anomalies(found["anomalies"], anomaly)
    contract = Decision(Outcome.REFUSED, (anomaly,)) if anomaly else concluded([])
    decisions = {
        "anomaly_decision": contract,
        "leakage": evidence.leakage.decision,
        "drift": evidence.drift.decision,
        "serving": concluded([]),
        "decision": dataclasses.replace(evidence.decision, metrics=evidence.baselines),
    }
    for name, decision in decisions.items():
        found[name].mkdir(parents=True)
        write_decision(decision, str(found[name]))
    (found["leakage"] / "pairs.json").write_text(json.dumps(list(evidence.leakage.pairs)))
    if evidence.leakage.picture:
        (found["leakage"] / "pairs.png").write_bytes(evidence.leakage.picture)
    compared = [dataclasses.asdict(of) for of in evidence.drift.comparisons]
    (found["drift"] / "drift.json").write_text(json.dumps({"comparisons": compared}))
    found["predictions"].mkdir()
    packed = tables.to_bytes({"test": table(evidence.predictions)})
    (found["predictions"] / tables.FILE).write_bytes(packed)
    for name, stage in (("pretrained", "pretrain"), ("teacher", "teacher"), ("student", "student")):
        write_model(found[name], evidence.histories[stage])
    return found


def write_dataset(folder: Path) -> None:
    """The documents of an imported dataset, and one file of images that nobody should ask for."""
    from ingest.datasets import DatasetInfo, Finding, ImportReport, Tally
    from ingest.splits import SplitSettings, SplitsFile

    facts, span = Facts(), folder / "span-1"
    (span / "train").mkdir(parents=True)
    (span / "train" / "data-00000-of-00001.tfrecord.gz").write_bytes(b"not to be read")
    info = DatasetInfo(
        name="phantoms",
        classes=facts.classes,
        severity=facts.severity,
        level="subject",
        channels=1,
        importer="folders",
        source="made up",
        leaked=False,
        spans=("span-1",),
    )
    (folder / "dataset.json").write_text(info.model_dump_json())
    SplitsFile.of(SplitSettings(), {"one": "train", "two": "test"}).write(folder / "splits.json")
    ImportReport(
        span="span-1",
        fingerprint="ab12",
        layout="folders",
        source="made up",
        evidence=(),
        received=9,
        counts={"train": {"NonDemented": Tally(images=8, subjects=4)}},
        quarantined=(Finding(path="a.png", reason="truncated", detail=""),),
    ).write(span / "report.json")


def executor_input(artifacts, folder, *, facts=None, asked=None, **parameters) -> str:
    """What Kubeflow's launcher hands over: JSON in the form of its ExecutorInput."""
    facts = facts or Facts()
    types = {name: kind for name, (kind, _) in outputs(facts.classes).items()}
    given = {
        "config": json.dumps(CONFIG),
        "facts": facts.to_json(),
        "image": "registry/cortexflow@sha256:00",
        "pipeline": "quickstart",
        "run_id": "7f3c",
    }
    return json.dumps(
        {
            "inputs": {
                "artifacts": {
                    name: {"artifacts": [{"name": "17", "uri": str(uri), "metadata": {}}]}
                    for name, uri in artifacts.items()
                },
                "parameterValues": given | parameters,
            },
            "outputs": {
                "artifacts": {
                    name: {
                        "artifacts": [
                            {
                                "name": name,
                                "type": {"schemaTitle": types.get(name, "system.Artifact")},
                                "uri": f"{folder}/{name}",
                                "metadata": {},
                            }
                        ]
                    }
                    for name in (asked or types)
                },
                "outputFile": f"{folder}/outputs/executor_output.json",
            },
        }
    )
