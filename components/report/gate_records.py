"""What the gates on data and on images leave in their artifacts, as evidence."""

import dataclasses
import json
from typing import Any, Protocol, TypeVar

from components.decisions import read_decision
from components.report import gate_evidence as report
from components.report.reading import Reader
from evaluation.outcome import Outcome
from trainer import input_gate as gates
from trainer.input_gate_fit import rows

MAX_FAMILIES = 64  # of spoilt images; there are 19

T = TypeVar("T")


class Artifact(Protocol):
    """What is asked of an artifact here."""

    @property
    def uri(self) -> str:
        """Its folder or address."""
        ...


def leakage(reader: Reader, artifact: Artifact) -> report.Leakage:
    """LeakageCheck's decision, pairs and picture."""
    pairs, picture = (reader.file(artifact.uri, name) for name in ("pairs.json", "pairs.png"))
    return report.Leakage(
        read_decision(artifact.uri),
        tuple(json.loads(pairs.read_text())) if pairs.is_file() else (),
        picture.read_bytes() if picture.is_file() else None,
    )


def drift(reader: Reader, artifact: Artifact) -> report.Drift:
    """DriftGate's decision and comparisons."""
    path = reader.file(artifact.uri, "drift.json")
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


def input_gate(reader: Reader, artifact: Artifact) -> report.InputGate | None:
    """A model's input gate with what was measured of it; None where there is none to be used."""
    path = reader.file(artifact.uri, f"Format-Serving/{gates.FILE}")
    try:
        gate = gates.load(path)
    except gates.InputGateError:  # missing; or damaged, for which ServingCheck has refused it
        return None
    told, held_out = gate.report, gate.report.get("held_out", {})
    return report.InputGate(
        told["people"],
        told["images"],
        told["false_rejection"]["target"],
        told["false_rejection"]["cross_fitted"],
        {turn: told["turns"][turn] for turn in gates.TURNS if turn in told["turns"]},
        held_out.get("images", 0),
        held_out.get("false_rejection"),
        tuple(report.WrongImages(**row) for row in rows(gate)[:MAX_FAMILIES]),
    )


def _feature(told: dict[str, Any]) -> report.DriftFeature:
    rows = {name: tuple(told[name]) for name in ("bins", "reference", "current")}
    return _known(report.DriftFeature, told | rows)


def _known(kind: type[T], told: dict[str, Any]) -> T:
    """What evidence keeps of a gate's own record."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in told.items() if name in names})
