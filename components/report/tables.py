"""The tables of the page that hold no scores: counts, nodes, flat metrics."""

import dataclasses
import math
from collections.abc import Iterable

from components.report.evidence import Count, Dataset, Metrics, Node
from schema.features import SPLITS


@dataclasses.dataclass(frozen=True)
class CountRow:
    """One split's counts, in the order of `Counts.names`."""

    split: str
    cells: tuple[Count, ...]
    total: Count


@dataclasses.dataclass(frozen=True)
class Counts:
    """Images and people per split and class; classes in order of severity, others last."""

    names: tuple[str, ...]
    rows: tuple[CountRow, ...]
    people: bool


def counts(dataset: Dataset) -> Counts | None:
    """Lays the counts out as a table; None where there are none."""
    if not dataset.counts:
        return None
    known = [dataset.classes[label] for label in dataset.order]
    others = sorted({name for split in dataset.counts.values() for name in split} - set(known))
    names = (*known, *others)
    rows = []
    for split in split_order(dataset.counts):
        unknown = any(count.subjects is None for count in dataset.counts[split].values())
        nobody = Count(0, None if unknown else 0)
        cells = tuple(dataset.counts[split].get(name, nobody) for name in names)
        people = None if unknown else sum(cell.subjects or 0 for cell in cells)
        rows.append(CountRow(split, cells, Count(sum(cell.images for cell in cells), people)))
    return Counts(names, tuple(rows), any(row.total.subjects is not None for row in rows))


@dataclasses.dataclass(frozen=True)
class Lane:
    """One node on the time line; `start` and `width` in percent of all that ran."""

    id: str
    state: str
    seconds: float | None
    start: float = 0.0
    width: float = 0.0


def lanes(nodes: Iterable[Node]) -> tuple[Lane, ...]:
    """Places the nodes one after the other, by the seconds each took."""
    nodes = tuple(nodes)
    total = sum(node.seconds or 0.0 for node in nodes)
    placed, passed = [], 0.0
    for node in nodes:
        seconds = node.seconds or 0.0
        scale = 100.0 / total if total > 0 else 0.0
        placed.append(
            Lane(
                node.id,
                node.state,
                node.seconds,
                round(passed * scale, 2),
                round(seconds * scale, 2),
            )
        )
        passed += seconds
    return tuple(placed)


def flat(metrics: Metrics, prefix: str = "") -> list[tuple[str, object]]:
    """Nested metrics as (path, value), in order of path."""
    rows = []
    for name, item in sorted(metrics.items(), key=lambda pair: str(pair[0])):
        path = f"{prefix}{name}"
        rows += flat(item, f"{path} / ") if isinstance(item, dict) else [(path, item)]
    return rows


def duration(seconds: float | None) -> str:
    """Seconds in words: 0.4 s, 12 s, 3 min 5 s, 2 h 1 min; a dash where unknown."""
    if not is_number(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def split_order(splits: Iterable[str]) -> list[str]:
    """train, val, test, then all others by name."""
    return sorted(splits, key=lambda s: (SPLITS.index(s) if s in SPLITS else len(SPLITS), s))
