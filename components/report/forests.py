"""Forest plots: numbers with their confidence intervals on one scale, one row each.

They are drawn by the page itself (HTML and CSS), so that they read well on a phone and aloud.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from components.report.evidence import Dataset
from components.report.judgement import Interval, Judgement, finite, model_name
from components.report.scores import Scores
from components.report.words import measure, worded
from evaluation.outcome import Decision

FLOOR = "macro AUC floor"  # ModelGate's names for its checks
PRIOR = " - constant prior"  # its difference from the student
CHANCE = 0.5
LEAST_SPAN = 0.05


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row to be placed.

    Attributes:
        kind: sets the looks: "student", "teacher" or another.
        bound: what the gate holds the number against.
        void: why there is no number.
        rank: of a class, for its colour.
    """

    name: str
    of: Interval | None
    kind: str = "student"
    bound: float | None = None
    void: str = ""
    rank: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Rung:
    """A row of the plot; `x`, `low`, `width` and `bound` in percent of its width."""

    entry: Entry
    x: float | None
    low: float | None
    width: float | None
    bound: float | None


@dataclasses.dataclass(frozen=True)
class Forest:
    """Rows on one scale from `start` to `end`; `zero` is where no skill, or no difference, is."""

    rungs: tuple[Rung, ...]
    start: float
    end: float
    zero: float | None
    bounds: tuple[float, ...]

    @property
    def intervals(self) -> bool:
        """Whether any row has an interval."""
        return any(rung.width is not None for rung in self.rungs)


def forest(entries: Iterable[Entry], zero: float, ends: tuple[float, float] | None) -> Forest:
    """Places entries.

    Args:
        entries: in the order of the rows.
        zero: no skill, or no difference; always on the scale.
        ends: the scale; None: symmetric about `zero`, as wide as the widest row needs.
    """
    rows = tuple(entries)
    numbers = [
        number
        for row in rows
        if row.of is not None
        for number in (row.of.value, row.of.low, row.of.high, row.bound)
        if number is not None
    ]
    if ends is None:
        reach = max([abs(number - zero) for number in numbers] + [LEAST_SPAN])
        reach = math.ceil(reach * 20 * 1.02) / 20
        start, end = zero - reach, zero + reach
    else:
        start, end = min([ends[0], *(math.floor(number * 10) / 10 for number in numbers)]), ends[1]

    def place(number: float | None) -> float | None:
        return None if number is None else round(100 * (number - start) / (end - start), 2)

    return Forest(
        tuple(_rung(row, place) for row in rows),
        start,
        end,
        place(zero),
        tuple(sorted({row.bound for row in rows if row.bound is not None})),
    )


def _rung(row: Entry, place) -> Rung:
    if row.of is None or row.of.value is None:
        return Rung(row, None, None, None, place(row.bound))
    low, high = place(row.of.low), place(row.of.high)
    width = None if low is None or high is None else round(high - low, 2)
    return Rung(row, place(row.of.value), low, width, place(row.bound))


def models(found: Sequence[Scores], decision: Decision | None) -> Forest | None:
    """Macro AUC of every model and baseline at the headline level; None where none was judged."""
    if not found:
        return None
    checks = decision.checks if decision else ()
    floor = next((check.bound for check in checks if check.name == FLOOR), None)
    entries = [
        Entry(
            row.name,
            None
            if row.values[0] is None
            else (row.intervals and row.intervals[0]) or Interval(row.values[0]),
            row.kind,
            floor if row.kind == "student" else None,
            "not evaluable" if row.values[0] is None else "",
        )
        for row in found[0].rows
    ]
    return forest(entries, CHANCE, (0.4, 1.0))


def differences(judgement: Judgement, margins: dict[str, float]) -> Forest | None:
    """Paired differences of macro AUC, the student's less the other's.

    Args:
        judgement: the gate's numbers. The constant prior is left out: its AUC is 0.5 whoever is
            drawn, so the difference says what the AUC says, on a scale that hides the others.
        margins: the other's name → how much lower the student may be; none: 0 must be exceeded.
    """
    entries = [
        Entry(
            model_name(name.split(" - ")[-1]),
            of,
            "student",
            margins.get(name.split(" - ")[-1]),
        )
        for name, of in judgement.differences.items()
        if not name.endswith(PRIOR)
    ]
    return forest(entries, 0.0, None) if entries else None


def classes(
    dataset: Dataset, found: Sequence[Scores], judgement: Judgement, floor: float | None
) -> Forest | None:
    """The student's AUC of each class against the rest, in order of severity."""
    if not found:
        return None
    measured = judgement.intervals.get("student", {})
    entries = []
    for row in found[0].classes:
        few = judgement.not_evaluable.get(row.name)
        of = measured.get(f"auc/{row.name}") or Interval(row.auc)
        people = f"{row.support} {found[0].units if row.support != 1 else found[0].unit}"
        if few is not None or of.value is None:
            void = f"not evaluable: {people}"
            entries.append(Entry(row.name, None, "class", None, void, row.rank))
        else:
            entries.append(Entry(row.name, of, "class", floor, "", row.rank, people))
    return forest(entries, CHANCE, (0.4, 1.0))


def subgroups(judgement: Judgement) -> dict[str, Forest]:
    """The student's macro AUC in each group of each dimension."""
    return {
        dimension: forest(
            [
                Entry(
                    group.name,
                    group.macro_auc,
                    "class",
                    None,
                    ""
                    if group.macro_auc and group.macro_auc.value is not None
                    else "not evaluable",
                    note=_size(group.people, group.images),
                )
                for group in groups
            ],
            CHANCE,
            (0.4, 1.0),
        )
        for dimension, groups in judgement.subgroups.items()
        if groups
    }


def resampling(judgement: Judgement) -> Forest | None:
    """The student's interval when people are drawn anew, beside the one when slices are."""
    names = {"cluster": "People drawn", "row": "Slices drawn (wrong)"}
    entries = [
        Entry(label, judgement.resampled[key], "student" if key == "cluster" else "other")
        for key, label in names.items()
        if key in judgement.resampled
    ]
    return forest(entries, CHANCE, (0.4, 1.0)) if len(entries) == len(names) else None


def operating_point(judgement: Judgement) -> str:
    """What was measured at the threshold that validation people chose, in a sentence."""
    of = judgement.operating_point
    missing = [key for key in ("threshold", "sensitivity", "specificity") if key not in of]
    if missing:
        return ""
    chosen = f"on {of['validation_people']} validation people" if "validation_people" in of else ""
    wanted = finite(of.get("target_sensitivity"))
    aim = f" to find {wanted:.0%} of them" if wanted is not None else ""
    return (
        f"{worded(of.get('positive') or '')} against the rest, at the threshold "
        f"{measure(of['threshold'])} chosen {chosen}{aim}: sensitivity "
        f"{worded(of['sensitivity'])} and specificity {worded(of['specificity'])} on test people."
    )


def _size(people: int | None, images: int | None) -> str:
    parts = [(people, "person", "people"), (images, "image", "images")]
    return ", ".join(
        f"{number:,} {one if number == 1 else many}" for number, one, many in parts if number
    )
