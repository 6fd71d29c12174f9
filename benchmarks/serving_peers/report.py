"""Tables of what the servers did, their ratios to the floor and to ours, and the goals."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.serving_peers.session import CONNECTIONS, FLOOR

OURS = "ours, litert"
CALL, MIDDLE = f"{FLOOR}: call, 1 thread", 8
RATE_GOAL = 0.65  # of the floor's calls per second on one thread, at MIDDLE connections
P50_GOAL = (1.5, 1.0)  # times the floor's median, and milliseconds on top, at one connection
MIB_GOAL, READY_GOAL = 150.0, 2.0


class Measurements:
    """All rounds of one size."""

    def __init__(self, document: dict[str, Any]):
        self.rows: Sequence[dict[str, Any]] = document["rows"]
        self.ready: dict[str, list[float]] = document["ready"]
        self.missing: dict[str, str] = document["missing"]

    @property
    def names(self) -> list[str]:
        """Servers and kinds of floor, in the order of the first round."""
        return list(dict.fromkeys(row["server"] for row in self.rows))

    def by_round(self, name: str, connections: int, key: str) -> dict[int, float]:
        """Round → what was measured."""
        return {
            row["round"]: row[key]
            for row in self.rows
            if row["server"] == name and row["connections"] == connections
        }

    def median(self, name: str, connections: int, key: str) -> float:
        """Over all rounds."""
        return statistics.median(self.by_round(name, connections, key).values())

    def ratio(self, one: tuple[str, int, str], other: tuple[str, int, str]) -> float:
        """Median over the rounds that both were in of a ratio within the round.

        So the machine's drift cancels, and a peer that died half-way is compared until then.
        """
        above, below = self.by_round(*one), self.by_round(*other)
        return statistics.median(above[turn] / below[turn] for turn in above.keys() & below.keys())


def text(document: dict[str, Any], *, markdown: bool, goals: bool) -> str:
    """Everything about one size."""
    found = Measurements(document)
    rounds, seconds = document["rounds"], document["seconds"]
    parts = [
        f"Student at {document['size']} pixels, body {document['body']:,} bytes (a PNG of "
        f"128 × 128 in base64 in JSON); medians of {rounds} round(s) of {seconds:g} s; "
        f"{document['cores']} cores.",
        _table(*_floors(found), markdown),
        _table(*_servers(found), markdown),
        _table(*_ratios(found), markdown),
    ]
    parts += [f"Not measured: {name}: {why}" for name, why in found.missing.items()]
    if goals and OURS in found.names:
        lines = [f"{'met' if met else 'NOT MET'}: {goal}" for goal, met in _goals(found)]
        parts.append("\n".join(f"- {line}" if markdown else line for line in lines))
    return "\n\n".join(parts)


def _servers_of(found: Measurements) -> list[str]:
    return [name for name in found.names if not name.startswith(FLOOR)]


def _floors(found: Measurements) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in found.names:
        if name.startswith(FLOOR):
            p50, p99, rate, cpu = (found.median(name, 0, k) for k in ("p50", "p99", "rate", "cpu"))
            rows.append([name, f"{p50:.2f}", f"{p99:.2f}", f"{rate:,.0f}", f"{cpu:.2f}"])
    return ["", "p50, ms", "p99, ms", "per s", "CPU, ms"], rows


def _servers(found: Measurements) -> tuple[list[str], list[list[str]]]:
    headings = ["p50 / p99 ms · per s"]
    headings += [f"{connections} connection(s)" for connections in CONNECTIONS]
    headings += ["CPU, ms", "MiB", "ready, s"]
    rows = []
    for name in _servers_of(found):
        cells = [name]
        for connections in CONNECTIONS:
            p50, p99, rate = (found.median(name, connections, k) for k in ("p50", "p99", "rate"))
            failed = sum(found.by_round(name, connections, "errors").values())
            told = f" ({failed:.0f} failed)" if failed else ""
            cells.append(f"{p50:.2f} / {p99:.1f} · {rate:,.0f}{told}")
        cells.append(f"{found.median(name, MIDDLE, 'cpu'):.2f}")
        cells.append(f"{_mib(found, name):.0f}")
        cells.append(f"{statistics.median(found.ready[name]):.1f}")
        rows.append(cells)
    return headings, rows


def _ratios(found: Measurements) -> tuple[list[str], list[list[str]]]:
    floors = [name for name in found.names if name.startswith(FLOOR)]
    headings = [f"per s at {MIDDLE}, of"]
    headings += [name.removeprefix(f"{FLOOR}: ") for name in floors]
    headings += [f"ours / it, at {connections}" for connections in CONNECTIONS]
    rows = []
    for name in _servers_of(found):
        mine = (name, MIDDLE, "rate")
        cells = [name, *(f"{found.ratio(mine, (floor, 0, 'rate')):.0%}" for floor in floors)]
        for connections in CONNECTIONS:
            if OURS in found.names:
                ratio = found.ratio((OURS, connections, "rate"), (name, connections, "rate"))
                cells.append(f"{ratio:.2f}×")
        rows.append(cells)
    return headings, rows


def _goals(found: Measurements) -> list[tuple[str, bool]]:
    share = found.ratio((OURS, MIDDLE, "rate"), (CALL, 0, "rate"))
    times, more = P50_GOAL
    floor_p50, p50 = found.median(CALL, 0, "p50"), found.median(OURS, 1, "p50")
    mib, ready = _mib(found, OURS), statistics.median(found.ready[OURS])
    bound = times * floor_p50 + more
    goals = [
        (f"{share:.0%} of the floor's rate at {MIDDLE} (≥ {RATE_GOAL:.0%})", share >= RATE_GOAL),
        (
            f"p50 at 1 {p50:.2f} ms (≤ {times} × {floor_p50:.2f} + {more} = {bound:.2f})",
            p50 <= bound,
        ),
        (f"{mib:.0f} MiB (< {MIB_GOAL:.0f})", mib < MIB_GOAL),
        (f"ready in {ready:.2f} s (< {READY_GOAL})", ready < READY_GOAL),
    ]
    for name in _servers_of(found):
        if not name.startswith("ours"):
            ratios = [
                found.ratio((OURS, connections, "rate"), (name, connections, "rate"))
                for connections in CONNECTIONS
            ]
            goals.append((f"ahead of {name} (least {min(ratios):.2f}×)", min(ratios) > 1))
    return goals


def _mib(found: Measurements, name: str) -> float:
    return max(row["mib"] for row in found.rows if row["server"] == name)


def _table(headings: list[str], rows: list[list[str]], markdown: bool) -> str:
    if markdown:
        lines = [headings, ["--", *["--:"] * (len(headings) - 1)], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [headings, *rows]) for i in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [headings, *rows]
    )
