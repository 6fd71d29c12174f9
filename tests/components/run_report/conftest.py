"""Synthetic evidence: plausible, deterministic, of any number of classes.

The folder is not called `report`: without `__init__.py` it would shadow `components.report`.
"""

import dataclasses
import io

import numpy as np
import pytest
from markupsafe import Markup, escape
from PIL import Image, ImageDraw

from components.report import html, samples, storage, style
from components.report.evidence import (
    Calibration,
    Count,
    Dataset,
    Descriptor,
    Evidence,
    Histogram,
    LiteRt,
    Node,
    Predictions,
    Pushed,
    Run,
    Sample,
)
from evaluation.outcome import Outcome
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY
from tests.components.run_report import gates
from trainer import metrics

# Four of 22: each is a figure, and the page draws one like another.
DESCRIPTORS = ("mean", "entropy", "csf_fraction", "ventricle_fraction")
NODES = (
    ("ImageExampleGen", 21.4),
    ("StatisticsGen", 9.8),
    ("ImportSchemaGen", 0.4),
    ("ExampleValidator", 0.9),
    ("AnomalyGate", 0.3),
    ("Pretrainer", 96.0),
    ("Teacher", 71.5),
    ("Student", 38.2),
    ("LiveModel", 0.2),
    ("Predictor", 6.1),
    ("Evaluator", 17.7),
    ("ModelGate", 1.9),
    ("RegistryPusher", 0.8),
    ("StopOnRefusal", 0.1),
)


CONFIG = {
    "name": "quickstart",
    "model_name": "phantom",
    "data": {"source": "phantom"},
    "gate": {
        "macro_auc_floor": 0.7,
        "class_auc_floor": 0.55,
        "min_people_per_class": 5,
        "confidence": 0.95,
        "resamples": 2000,
        "total_csf": "beat",
        "live_margin": 0.05,
        "teacher_margin": 0.05,
    },
    "pretrain": {"backbone": {"depth": 18}, "epochs": 14},
    "teacher": {"epochs": 12, "imbalance": "balanced_sampling"},
    "student": {
        "epochs": 12,
        "network": "cnn",
        "filters": [16, 32, 64],
        "input": {"image_size": 64, "channels": 1},
        "min_people_to_choose": 20,
    },
}


def brain(seed: int, atrophy: float, size: int = 96) -> bytes:
    """A PNG of an ellipse with two ventricles, larger with `atrophy` in [0, 1]."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)

    def ellipse(x, y, rx, ry, grey):
        box = [size * (x - rx), size * (y - ry), size * (x + rx), size * (y + ry)]
        draw.ellipse(box, fill=grey)

    ellipse(0.5, 0.5, 0.36, 0.44, 120)
    ellipse(0.5, 0.5, 0.31, 0.39, 175)
    for side in (-1, 1):
        ellipse(0.5 + side * 0.055, 0.48, 0.02 + 0.03 * atrophy, 0.10 + 0.04 * atrophy, 45)
    pixels = np.asarray(image, float)
    noisy = pixels + rng.normal(0, 7, pixels.shape) * (pixels > 0)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def predict(labels, person, *, classes, rank, skill, seed) -> np.ndarray:
    """Probabilities whose errors are shared by a person's slices and favour neighbours."""
    rng = np.random.default_rng(seed)
    place = rank[labels] + rng.normal(0, 1.25 - skill, person.max() + 1)[person] * 1.2
    place = place + rng.normal(0, 0.35, len(labels))
    centres = np.arange(classes, dtype=float)[rank]
    return softmax(
        -0.9 * (place[:, None] - centres) ** 2 + rng.normal(0, 0.2, (len(labels), classes))
    )


def make_predictions(classes, severity, subjects, slices, with_subjects=True) -> Predictions:
    rank = np.array([(severity or classes).index(name) for name in classes])
    person = np.repeat(np.arange(sum(subjects)), slices)
    labels = np.repeat(np.arange(len(classes)), subjects)[person]
    student, teacher = (
        predict(labels, person, classes=len(classes), rank=rank, skill=skill, seed=seed)
        for skill, seed in ((0.45, 1), (0.6, 2))
    )
    names = np.array([f"phantom-{number:04d}" for number in range(sum(subjects))])
    return Predictions(
        labels=labels.astype(np.int64),
        student=student,
        teacher=teacher,
        subjects=names[person] if with_subjects else None,
        slice_index=np.tile(np.arange(slices), sum(subjects)),
    )


def make_baselines(predictions, classes, order) -> dict:
    prior = np.bincount(predictions.labels, minlength=classes) / len(predictions.labels)
    rng = np.random.default_rng(5)
    per_person = rng.normal(0, 1.1, (len(predictions.labels), classes))
    if predictions.subjects is not None:
        per_person = per_person[np.unique(predictions.subjects, return_inverse=True)[1]]
    models = {
        "constant prior": np.tile(prior, (len(predictions.labels), 1)),
        "total CSF": softmax(0.8 * np.eye(classes)[predictions.labels] + per_person),
    }
    measured = {}
    for name, probabilities in models.items():
        measured[name] = {"slice": metrics.summary(probabilities, predictions.labels, order)}
        if predictions.subjects is not None:
            _, means, labels = metrics.aggregate_by_subject(
                probabilities, predictions.labels, predictions.subjects
            )
            measured[name]["subject"] = metrics.summary(means, labels, order)
    return storage.plain(measured)


def macro_aucs(predictions: Predictions) -> dict[str, float]:
    found = {}
    for name in ("student", "teacher"):
        table, labels = getattr(predictions, name), predictions.labels
        if predictions.subjects is not None:
            _, table, labels = metrics.aggregate_by_subject(table, labels, predictions.subjects)
        found[name] = float(np.nan_to_num(metrics.macro_auc(table, labels, 5), nan=0.5))
    return found


def make_history(epochs: int, start: float, supervised: bool, seed: int) -> tuple[dict, ...]:
    rng = np.random.default_rng(seed)
    rows = []
    for epoch in range(1, epochs + 1):
        decay = np.exp(-2.2 * epoch / epochs)
        row = {
            "epoch": epoch,
            "loss": float(start * (0.3 + 0.7 * decay) + rng.normal(0, 0.015 * start)),
            "lr": 0.3 * min(1, epoch / 2) * 0.5 * (1 + np.cos(np.pi * epoch / epochs)),
            "seconds": 3.1,
        }
        if supervised:
            row["val_loss"] = float(start * (0.48 + 0.55 * decay) + rng.normal(0, 0.03 * start))
            row["val_macro_auc"] = float(0.82 - 0.3 * decay + rng.normal(0, 0.012))
        else:
            row["contrastive_accuracy"] = float(0.93 - 0.75 * decay)
            row["embedding_std"] = float(0.26 - 0.18 * decay)
            if epoch % 5 == 0 or epoch == epochs:
                row["probe_knn_auc"] = float(0.78 - 0.2 * decay)
                row["probe_linear_auc"] = float(0.8 - 0.2 * decay)
        rows.append(row)
    return tuple(rows)


def make_statistics() -> dict:
    rng = np.random.default_rng(3)
    statistics = {}
    for split, people in (("train", 2200), ("val", 480), ("test", 672)):
        statistics[split] = {}
        for position, name in enumerate(DESCRIPTORS):
            centre = 0.12 + 0.035 * position
            values = rng.gamma(8 + position, (centre + 0.004 * (split == "test")) / 8, people)
            counts, edges = np.histogram(values, bins=24)
            statistics[split][f"descriptor/{name}"] = Descriptor(
                mean=float(values.mean()),
                std=float(values.std()),
                min=float(values.min()),
                max=float(values.max()),
                histogram=Histogram(tuple(edges.tolist()), tuple(map(float, counts))),
            )
    return statistics


def build(
    *,
    classes=ALZHEIMER_CLASSES,
    severity=ALZHEIMER_SEVERITY,
    subjects=(21, 21, 21, 21),
    slices=8,
    level="subject",
    leaked=False,
    outcome=Outcome.PASSED,
) -> Evidence:
    """Complete evidence of one run."""
    predictions = make_predictions(classes, severity, subjects, slices, level == "subject")
    rows = samples.choose_samples(predictions.labels, predictions.student)
    order = severity or classes
    counts = {
        split: {
            name: Count(int(people * scale) * slices, int(people * scale))
            for name, people in zip(classes, subjects, strict=True)
        }
        for split, scale in (("train", 1.45), ("val", 0.43), ("test", 1.0))
    }
    baselines = make_baselines(
        predictions, len(classes), [classes.index(name) for name in order] if severity else None
    )
    macro = macro_aucs(predictions) | {"total CSF": 0.7}
    refused = outcome is not Outcome.PASSED
    return Evidence(
        run=Run(
            id="20260218-101502-quickstart",
            preset="quickstart",
            pipeline="quickstart",
            started="2026-02-18T10:15:02+00:00",
            seconds=274.3,
            status="finished",
            versions={"cortexflow": "0.1.0", "tfx": "1.16.0", "tensorflow": "2.16.2"},
            command="cortexflow run quickstart --set student.epochs=12",
        ),
        config=CONFIG,
        dataset=Dataset(
            name="phantom-standard",
            classes=classes,
            severity=severity,
            level=level,
            leaked=leaked,
            counts=counts,
            quarantined=3,
            quarantine_reasons={"truncated": 2, "too_many_pixels": 1},
        ),
        statistics=make_statistics(),
        histories={
            "pretrain": make_history(14, 4.6, False, 1),
            "teacher": make_history(12, 1.4, True, 2),
            "student": make_history(12, 1.3, True, 3),
        },
        calibrations={"student": Calibration(1.37, before=0.118, after=0.046)},
        predictions=predictions,
        samples=tuple(
            Sample(row, brain(row, order.index(classes[predictions.labels[row]]) / len(classes)))
            for row in rows
        ),
        baselines=baselines,
        tfma={"accuracy": 0.512, "": {"auc": 0.731}},
        decision=gates.model_gate(classes, subjects, outcome, level, macro),
        nodes=tuple(Node(name, "ran", seconds) for name, seconds in NODES),
        pushed=None if refused else Pushed(4, "workspace/registry/severity/4", True),
        litert=(
            LiteRt("model.float.tflite", 412_004, 1.0),
            LiteRt("model.int8.tflite", 118_600, 0.991),
        ),
        leakage=gates.leakage(),
        drift=gates.drift(),
        control=gates.control(),
        input_gate=gates.input_gate(),
        lineage={"split by person (SHA-256)": "5e" * 32},
    )


@pytest.fixture(scope="session")
def make_evidence():
    """Builds evidence; see `build` for what may be set."""
    return build


@pytest.fixture(scope="session")
def evidence():
    """The usual evidence: 84 people, 8 slices each, 4 classes, passed."""
    return build()


@pytest.fixture(scope="session")
def page(evidence):
    """The whole report, drawn once: matplotlib takes seconds."""
    return html.render(evidence)


@pytest.fixture
def undrawn(monkeypatch):
    """Panels say what they would show; for tests of what the page says, not of how it looks."""

    def panel(name, description, draw, size=None):
        return Markup(f'<svg role="img" aria-label="{escape(description)}"></svg>')

    monkeypatch.setattr(style, "panel", panel)


@pytest.fixture(scope="session")
def stopped_at_data(evidence):
    """A run that the anomaly gate ended."""
    from components.report.evidence import Anomaly

    return dataclasses.replace(
        evidence,
        run=dataclasses.replace(
            evidence.run, status="stopped", message="The data breaks its contract"
        ),
        anomalies=(Anomaly("train: descriptor/entropy", "Unexpectedly high values: 9.1 > 6"),),
        histories={},
        predictions=None,
        samples=(),
        baselines={},
        tfma={},
        decision=None,
        nodes=tuple(
            Node(name, "ran" if i < 4 else "failed" if i == 4 else "skipped", s if i < 5 else None)
            for i, (name, s) in enumerate(NODES)
        ),
        pushed=None,
        litert=(),
    )
