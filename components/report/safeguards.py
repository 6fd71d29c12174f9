"""What stands between data and belief: leak check, drift, label-shuffle control, as the page shows.

All numbers are the gates' own; nothing is computed here but where they stand.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from components.report import figures
from components.report.evidence import Evidence, Metrics
from components.report.gate_evidence import DriftComparison, DriftFeature
from components.report.judgement import finite
from components.report.panels import Panel, short
from components.report.samples import data_uri
from components.report.tables import split_order
from evaluation.outcome import Decision

MAX_PAIRS = 20
NULLS = {"student": "Student", "teacher": "Teacher", "neighbour": "Nearest training image"}
MAX_FEATURES = 6
MAX_PICTURE_BYTES = 1_000_000


@dataclasses.dataclass(frozen=True)
class Place:
    """One image of a pair, in words."""

    split: str
    who: str


@dataclasses.dataclass(frozen=True)
class PairRow:
    """Two images that stand on two sides and should not."""

    a: Place
    b: Place
    correlation: float | None
    found_by: str


@dataclasses.dataclass(frozen=True)
class LeakPanel:
    """The leak check: what was compared, and what it found."""

    decision: Decision
    compared: str
    uri: str | None
    pairs: tuple[PairRow, ...]
    total: int


@dataclasses.dataclass(frozen=True)
class DriftPanel:
    """One comparison: its answer, figures of the features that moved most, and all numbers."""

    of: DriftComparison
    title: str
    drifted: int
    panels: tuple[Panel, ...]


@dataclasses.dataclass(frozen=True)
class ControlPanel:
    """The label-shuffle control: each AUC found among those that chance gives, and what else."""

    decision: Decision
    panels: tuple[Panel, ...]
    said: tuple[str, ...]


def leakage(evidence: Evidence) -> LeakPanel | None:
    """Lays out the leak check; None where it did not run."""
    found = evidence.leakage
    if found is None:
        return None
    listed = found.pairs or tuple(found.decision.details.get("pairs") or ())
    picture = found.picture
    return LeakPanel(
        found.decision,
        _compared(found.decision.details),
        data_uri(picture, MAX_PICTURE_BYTES) if picture else None,
        tuple(_pair(pair) for pair in listed[:MAX_PAIRS]),
        len(listed),
    )


def _compared(details: Mapping[str, Any]) -> str:
    """What was held against what, in a sentence."""
    splits = details.get("splits") or {}
    sizes = [
        f"{name} ({of.get('people') or 0:,} people, {of.get('images') or 0:,} images)"
        for name in split_order(splits)
        if isinstance(of := splits[name], Mapping)
    ]
    return f"Compared: {', '.join(sizes)}." if sizes else ""


def _pair(pair: Metrics) -> PairRow:
    layers = pair.get("layers") or ()
    return PairRow(
        _place(pair.get("a")),
        _place(pair.get("b")),
        finite(pair.get("correlation")),
        ", ".join(map(str, layers)),
    )


def _place(of: Any) -> Place:
    if not isinstance(of, Mapping):
        return Place("", str(of))
    who = str(of.get("subject") or (of.get("source") or "")[:12] or "unknown")
    position = of.get("slice_index", -1)
    if isinstance(position, int) and position >= 0:
        who += f", slice {position}"
    return Place(str(of.get("split", "")), who)


def drift(evidence: Evidence) -> tuple[DriftPanel, ...]:
    """Lays out each comparison, its most divergent features drawn."""
    comparisons = evidence.drift.comparisons if evidence.drift else ()
    return tuple(
        DriftPanel(
            of,
            f"{of.current} against {of.reference}",
            sum(feature.drifted for feature in of.features),
            tuple(
                _feature_panel(f"dr{position}-{place}", feature)
                for place, feature in enumerate(_telling(of.features))
            ),
        )
        for position, of in enumerate(comparisons)
    )


def _telling(features: Sequence[DriftFeature]) -> list[DriftFeature]:
    """Those that drifted, or else came closest to it."""
    ordered = sorted(
        (feature for feature in features if feature.reference and feature.current),
        key=lambda of: (not of.drifted, of.adjusted_p or 0.0, of.p or 0.0, -(of.divergence or 0.0)),
    )
    drifted = sum(feature.drifted for feature in ordered)
    return ordered[: min(max(drifted, 3), MAX_FEATURES)]


def _feature_panel(key: str, of: DriftFeature) -> Panel:
    name = short(of.name)
    note = f"divergence {_told(of.divergence)}, by chance below {_told(of.threshold)}"
    note += f"; p, all tests, {_told(of.adjusted_p)}"
    svg = figures.shares(key, f"{name} in both groups; {note}", of.bins, of.reference, of.current)
    return Panel(f"{'▲ ' if of.drifted else ''}{name}", note, svg)


def _told(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:.3f}" if number >= 0.001 or number == 0 else f"{number:.1g}"


def control(evidence: Evidence) -> ControlPanel | None:
    """Lays out the label-shuffle control; None where it did not run."""
    decision = evidence.control
    if decision is None:
        return None
    details = decision.details
    found = {"student": details, **{name: details.get(name) for name in NULLS if name in details}}
    panels = (
        _null_panel(f"control-{name}", NULLS[name], of)
        for name, of in found.items()
        if isinstance(of, Mapping)
    )
    banded = {check.name for check in decision.checks if check.low is not None and check.passed}
    return ControlPanel(
        decision,
        tuple(panel for panel in panels if panel is not None),
        tuple(
            f"{check.name}: {check.detail}"
            for check in decision.checks
            if check.detail and check.name not in banded
        ),
    )


def _null_panel(key: str, title: str, of: Mapping[str, Any]) -> Panel | None:
    auc, low, high = (finite(of.get(name)) for name in ("auc", "low", "high"))
    null = of.get("null")
    if auc is None or not isinstance(null, Mapping) or not len(null.get("counts") or ()):
        return None
    note = f"macro AUC {auc:.3f}"
    if low is not None and high is not None:
        note += f"; chance gives {low:.3f} to {high:.3f}"
    described = f"Label-shuffle control, {title}: {note}"
    svg = figures.null(key, described, null["edges"], null["counts"], auc, (low, high))
    return Panel(title, note, svg)
