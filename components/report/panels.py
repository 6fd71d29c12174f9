"""The figures of the page with their captions: descriptors, training curves."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from components.report import figures, style
from components.report.evidence import Calibration, Descriptor, Evidence, Histogram, Metrics
from components.report.figures import Line
from components.report.tables import duration, is_number, split_order
from schema.features import DESCRIPTOR_PREFIX, SPLITS

MAX_DESCRIPTORS = 40
STAGES = {"pretrain": "Pretraining", "teacher": "Teacher", "student": "Student"}
PROBES = {"probe_linear_auc": "linear", "probe_knn_auc": "nearest neighbours"}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One small figure with its caption; `rank` colours the dot, `void` says why there is none."""

    title: str
    note: str
    svg: Markup | None
    rank: int | None = None
    void: str = ""


@dataclasses.dataclass(frozen=True)
class DescriptorRow:
    """One line of the descriptors' table."""

    name: str
    split: str
    of: Descriptor


@dataclasses.dataclass(frozen=True)
class Descriptors:
    """Small multiples of the image descriptors and the numbers behind them."""

    panels: tuple[Panel, ...]
    rows: tuple[DescriptorRow, ...]
    reference: str = ""
    current: str = ""


def descriptors(evidence: Evidence, over: str | None = None) -> Descriptors:
    """Draws each descriptor's distribution in train, and in another split over it.

    Args:
        evidence: with statistics, or without.
        over: the other split; None: test, or whichever there is.
    """
    splits = split_order(evidence.statistics)
    if not splits:
        return Descriptors((), ())
    others = [split for split in reversed(splits) if split != splits[0] and split in SPLITS]
    reference, current = splits[0], over or (others or splits[1:] or [""])[0]
    names = sorted({name for split in splits for name in evidence.statistics[split]})
    panels = tuple(
        _descriptor_panel(
            f"d{position}" if over is None else f"{over}{position}",
            name,
            evidence.statistics[reference].get(name),
            evidence.statistics.get(current, {}).get(name),
        )
        for position, name in enumerate(names[:MAX_DESCRIPTORS])
    )
    rows = tuple(
        DescriptorRow(short(name), split, evidence.statistics[split][name])
        for name in names
        for split in splits
        if name in evidence.statistics[split]
    )
    return Descriptors(panels, rows, reference, current)


def _descriptor_panel(
    key: str, name: str, reference: Descriptor | None, current: Descriptor | None
) -> Panel:
    title = short(name)
    note = " → ".join(
        f"{of.mean:.3g}" + (f" ± {of.std:.2g}" if of.std is not None else "")
        for of in (reference, current)
        if of is not None and of.mean is not None
    )
    histograms = [_drawable(of) for of in (reference, current)]
    if not any(histograms):
        return Panel(title, note, None, void="no histogram")
    return Panel(title, note, figures.descriptor(key, f"Histogram of {title}: {note}", *histograms))


def _drawable(of: Descriptor | None) -> Histogram | None:
    if of is None or of.histogram is None:
        return None
    numbers = (*of.histogram.edges, *of.histogram.counts)
    return of.histogram if len(numbers) > 1 and np.isfinite(numbers).all() else None


@dataclasses.dataclass(frozen=True)
class Stage:
    """The curves of one training stage."""

    title: str
    note: str
    panels: tuple[Panel, ...]


def stages(evidence: Evidence) -> tuple[Stage, ...]:
    """Draws loss, AUC or accuracy, probes and learning rate of each stage that was trained."""
    known = [*STAGES, *sorted(set(evidence.histories) - set(STAGES))]
    return tuple(
        _stage(
            STAGES.get(name, name),
            evidence.histories[name],
            evidence.calibrations.get(name),
            f"t{position}",
        )
        for position, name in enumerate(known)
        if evidence.histories.get(name)
    )


def _stage(
    title: str, epochs: Sequence[Metrics], calibration: Calibration | None, key: str
) -> Stage:
    names = sorted({name for epoch in epochs for name in epoch})
    rates = [name for name in names if name in ("lr", "learning_rate")]
    losses = [name for name in names if name.removeprefix("val_") == "loss"]
    probes = [name for name in PROBES if name in names]
    aucs = [name for name in names if "auc" in name and "micro" not in name and name not in PROBES]
    aucs = [name for name in aucs if name.removeprefix("val_") == _base(aucs)]
    accuracies = [name for name in names if "accuracy" in name]
    accuracies = [name for name in accuracies if name.removeprefix("val_") == _base(accuracies)]
    groups = [
        ("Loss", losses),
        (f"{_words(_base(aucs))}", aucs),
        (f"{_words(_base(accuracies))}", accuracies if not aucs else []),
        ("Probe AUC", probes),
        ("Learning rate", rates),
    ]
    panels = tuple(
        panel
        for position, (name, keys) in enumerate(groups)
        if keys
        and (panel := _training_panel(f"{key}{position}", f"{title}: {name}", name, keys, epochs))
    )
    seconds = [epoch["seconds"] for epoch in epochs if is_number(epoch.get("seconds"))]
    note = f"{len(epochs)} epoch{'s' if len(epochs) != 1 else ''}"
    note += f", {duration(sum(seconds))}" if seconds else ""
    warned = [str(epoch["epoch"]) for epoch in epochs if "warning" in epoch and "epoch" in epoch]
    note += f"; images hardly told apart after epoch {', '.join(warned)}" if warned else ""
    if calibration is not None:
        of = calibration.temperature
        why = "not calibrated: too few validation people, or no temperature helps"
        note += f"; temperature\u00a0{of:.3g}" if of != 1 else f"; {why}"
    return Stage(title, note, panels)


def _training_panel(
    key: str, description: str, title: str, names: Sequence[str], epochs: Sequence[Metrics]
) -> Panel | None:
    series = {}
    for name in names:
        points = [
            (epoch.get("epoch", position + 1), epoch[name])
            for position, epoch in enumerate(epochs)
            if is_number(epoch.get(name))
        ]
        if points:
            main = name.startswith(("val_", "probe_linear_")) or len(names) == 1
            series[name] = Line(
                [x for x, _ in points],
                [y for _, y in points],
                style.ACCENT if main else style.MUTED,
                2.0 if main else 1.1,
            )
    if not series:
        return None
    last = ", ".join(
        f"{_source(name)} ends at {line.y[-1]:.3g}"
        for name, line in series.items()
        if title != "Learning rate"
    )
    note = last or f"peak {max(next(iter(series.values())).y):.3g}"
    unit_range = "AUC" in title or "accuracy" in title.lower()
    return Panel(
        title,
        note,
        figures.training(
            key, f"{description} over the epochs; {note}", series, unit_range=unit_range
        ),
    )


def _source(name: str) -> str:
    return PROBES.get(name) or ("validation" if name.startswith("val_") else "training")


def short(name: str) -> str:
    """A descriptor's name in words."""
    return name.removeprefix(DESCRIPTOR_PREFIX).replace("_", " ")


def _base(names: Sequence[str]) -> str:
    """The metric that a stage is followed by: the first one measured in validation, if any."""
    validated = [name for name in names if name.startswith("val_")]
    return (validated or list(names) or [""])[0].removeprefix("val_")


def _words(name: str) -> str:
    return name.replace("_", " ").replace("auc", "AUC").capitalize().replace("auc", "AUC")
