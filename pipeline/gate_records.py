"""What the gates on the data leave in their artifacts, as evidence."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from components.decisions import read_decision
from components.report import evidence as report
from evaluation.outcome import Outcome
from pipeline.lineage import ArtifactRef

T = TypeVar("T")


def leakage(artifact: ArtifactRef) -> report.Leakage:
    """LeakageCheck's decision, pairs and picture."""
    folder = Path(artifact.uri)
    pairs, picture = folder / "pairs.json", folder / "pairs.png"
    return report.Leakage(
        read_decision(artifact.uri),
        tuple(json.loads(pairs.read_text())) if pairs.is_file() else (),
        picture.read_bytes() if picture.is_file() else None,
    )


def drift(artifact: ArtifactRef) -> report.Drift:
    """DriftGate's decision and comparisons."""
    path = Path(artifact.uri) / "drift.json"
    told = json.loads(path.read_text())["comparisons"] if path.is_file() else ()
    return report.Drift(
        read_decision(artifact.uri),
        tuple(
            _known(
                report.DriftComparison,
                each
                | {
                    "people": tuple(each["people"]),
                    "outcome": Outcome(each["outcome"]),
                    "features": tuple(_feature(feature) for feature in each["features"]),
                },
            )
            for each in told
        ),
    )


def _feature(told: dict[str, Any]) -> report.DriftFeature:
    rows = {name: tuple(told[name]) for name in ("bins", "reference", "current")}
    return _known(report.DriftFeature, told | rows)


def _known(kind: type[T], told: dict[str, Any]) -> T:
    """What evidence keeps of a gate's own record."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in told.items() if name in names})
