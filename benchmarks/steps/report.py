"""Tables of what was measured, and which goals it meets."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.steps.timing import MODELS, Case

Results = Sequence[tuple[Case, dict[str, Any]]]

SPEED_GOAL = 1.3  # times the quicker peer
LIMIT_GOAL = 0.7  # of the float32 limit
FIRST_STEP_GOAL = 20  # seconds
LINEAR_GOAL = 20  # times
PEERS = ("reference", "lightly")


class Measurements:
    """All rounds of all cases."""

    def __init__(self, results: Results):
        self._results = [(case, found) for case, found in results if "failed" not in found]

    def values(self, case: Case, key: str) -> list[float]:
        """What a case measured under a key, over all rounds; empty where it did not."""
        found: list[float] = []
        for other, result in self._results:
            if other[:4] == case[:4] and key in result:
                value = result[key]
                found += value if isinstance(value, list) else [value]
        return found

    def rates(self, case: Case, key: str) -> list[float]:
        """Images per second, from seconds per batch."""
        return [MODELS[case.model].batch / seconds for seconds in self.values(case, key)]

    def rate(self, case: Case, key: str) -> float | None:
        """The median of `rates`."""
        rates = self.rates(case, key)
        return statistics.median(rates) if rates else None

    def gemm(self, precision: str) -> float:
        """The best rate of matrix products of all rounds, in operations per second."""
        return max(self.values(Case("machine", "gemm", precision=precision), "rate"), default=0.0)

    def limit(self, model: str, what: str) -> float:
        """Images per second if all of a step were float32 matrix products; 0 if unknown."""
        work = self.values(Case("machine", "work", model), what)
        return self.gemm("float32") / work[0] if work else 0.0

    def cases(self, *whats: str) -> list[Case]:
        """The cases measured, each once, in the order of the first round."""
        found = [case for case, _ in self._results if case.what in whats]
        return list(dict.fromkeys(found))


def in_short(case: Case, result: dict[str, Any]) -> str:
    """One result in a few words."""
    if "failed" in result:
        return f"failed: {result['failed']}"
    if case.what == "gemm":
        return f"{result['rate'] / 1e9:.0f} GFLOP/s"
    if case.what == "work":
        return ", ".join(f"{name} {count / 1e9:.2f} GFLOP/image" for name, count in result.items())
    if case.what == "linear":
        return f"{_speedup(result['kept'], result['computed']):.0f}×"
    return f"{MODELS[case.model].batch / statistics.median(result['whole']):.1f} images/s"


def text(results: Results, *, markdown: bool, goals: bool) -> str:
    """All tables and, if asked for, a line for each goal."""
    found = Measurements(results)
    rates = [f"{found.gemm(name) / 1e9:.0f} GFLOP/s {name}" for name in ("float32", "bfloat16")]
    parts = [f"Matrix products: {', '.join(rates)}"]
    for headings, rows in (_steps(found), _input(found), _linear(found)):
        if rows:
            parts.append(_table(headings, rows, markdown=markdown))
    if goals:
        lines = [f"{'met' if met else 'NOT MET'}: {goal}" for goal, met in _goals(found)]
        parts.append("\n".join(f"- {line}" for line in lines) if markdown else "\n".join(lines))
    return "\n\n".join(parts)


def _steps(found: Measurements) -> tuple[list[str], list[list[str]]]:
    headings = ["step", "whose", "images/s", "on ready views", "of fp32 limit", "MiB", "first, s"]
    rows = []
    for case in found.cases("pretrain", "finetune"):
        limit = found.limit(case.model, case.what)
        share = (found.rate(case, "update") or 0) / limit if limit else None
        rows.append(
            [
                f"{case.what} {case.model}",
                f"{case.who} {case.precision}",
                _spread(found.rates(case, "whole")),
                _spread(found.rates(case, "update")),
                "" if share is None else f"{share:.0%}",
                f"{max(found.values(case, 'memory')):.0f}",
                f"{statistics.median(found.values(case, 'first')):.1f}",
            ]
        )
    return headings, rows


def _input(found: Measurements) -> tuple[list[str], list[list[str]]]:
    rows = [
        [f"{case.what} {case.model}", case.who, _spread(found.rates(case, "whole"))]
        for case in found.cases("views", "read")
    ]
    return ["input", "whose", "images/s"], rows


def _linear(found: Measurements) -> tuple[list[str], list[list[str]]]:
    rows = []
    for case in found.cases("linear"):
        kept, computed = found.values(case, "kept"), found.values(case, "computed")
        seconds = [f"{statistics.median(each):.3f}" for each in (kept, computed)]
        rows.append([f"linear {case.model}", *seconds, f"{_speedup(kept, computed):.0f}×"])
    return ["epoch", "features kept, s", "computed anew, s", "quicker"], rows


def _goals(found: Measurements) -> Iterable[tuple[str, bool]]:
    ours = [case for case in found.cases("pretrain", "finetune") if case.who == "ours"]
    for case in ours:
        yield from _goals_of(found, case)
    for case in found.cases("linear"):
        times = _speedup(found.values(case, "kept"), found.values(case, "computed"))
        told = f"linear {case.model}: an epoch {times:.0f}× quicker ({LINEAR_GOAL}×)"
        yield told, times >= LINEAR_GOAL


def _goals_of(found: Measurements, case: Case) -> Iterable[tuple[str, bool]]:
    name = f"{case.what} {case.model} {case.precision}"
    peers = [other for other in found.cases(case.what) if other.who in PEERS]
    peers = [other for other in peers if other.model == case.model]
    for who in dict.fromkeys(peer.who for peer in peers):
        theirs = [peer for peer in peers if peer.who == who]
        for key, told in (("whole", "step with its input"), ("update", "step on ready views")):
            best = max(found.rate(peer, key) or 0 for peer in theirs)
            times = (found.rate(case, key) or 0) / best
            goal = f"{name}: {told} {times:.2f}× {who}'s best ({SPEED_GOAL}×)"
            yield goal, times >= SPEED_GOAL
        least = min(max(found.values(peer, "memory")) for peer in theirs)
        memory = max(found.values(case, "memory"))
        yield f"{name}: {memory:.0f} MiB, {who} {least:.0f} MiB (no higher)", memory <= least
    if limit := found.limit(case.model, case.what):
        share = (found.rate(case, "update") or 0) / limit
        yield f"{name}: {share:.0%} of the float32 limit ({LIMIT_GOAL:.0%})", share >= LIMIT_GOAL
    first = statistics.median(found.values(case, "first"))
    yield f"{name}: first step in {first:.1f} s ({FIRST_STEP_GOAL} s)", first <= FIRST_STEP_GOAL
    if case.what == "pretrain":
        views = found.rate(case._replace(who="ours", what="views", precision="float32"), "whole")
        update = found.rate(case, "update")
        if views and update:
            told = f"{name}: views are made {views / update:.1f}× as fast as they are trained on"
            yield f"{told} (more than 1×)", views > update


def _speedup(kept: Sequence[float], computed: Sequence[float]) -> float:
    return statistics.median(computed) / statistics.median(kept)


def _spread(values: Sequence[float]) -> str:
    """Median, and the best in brackets."""
    digits = 0 if min(values) >= 100 else 1
    return f"{statistics.median(values):,.{digits}f} ({max(values):,.{digits}f})"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    if markdown:
        rule = ["--" if position < 2 else "--:" for position in range(len(headings))]
        return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if position < 2 else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (headings, *rows)
    ]
    return "\n".join(lines)
