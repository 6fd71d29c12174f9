"""What a cross-validation leaves behind: numbers with intervals, a page and a picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.intervals import Interval, Target, bootstrap
from evaluation.weighted import People as Resampled
from ingest.atomic import write_json, write_text
from studies import pictures
from studies.crossval import People, Plan
from studies.fold import BASELINES, METHODS
from studies.pictures import INK, MUTED
from studies.within_folds import WithinFolds, of_each_fold, pooled

REPORT, NUMBERS, PICTURE = "report.md", "cv.json", "cv"
DISCLAIMER = "Research use only, not for diagnosis."
HEADLINE = "student"
RIVALS = ("csf", "regression")  # what a network must beat to have learnt anything
RESAMPLES, CONFIDENCE = 2000, 0.95

OURS, THEIRS = "#1d6fa5", "#8a94a0"

Floats = NDArray[np.float64]


def summary(plan: Plan, people: People, results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Every method's AUC over people, with intervals, and its differences to the rivals.

    Args:
        plan: of the study.
        people: all of them.
        results: the finished folds, as `crossval.collected` gives them.

    Returns:
        As JSON holds it: `methods` → `auc` (value, low, high; `studies.within_folds`), `pooled`,
        `folds`; `differences` → rival → value, low, high, paired by person.
    """
    scores, folds, seconds = _table(people, list(results))
    truth = people.truth
    statistics = {m: WithinFolds.of(table, folds, truth) for m, table in scores.items()}
    targets = {method: Target(((1.0, each),)) for method, each in statistics.items()}
    pairs = {
        (method, rival): targets[method] - targets[rival]
        for method in METHODS
        for rival in RIVALS
        if method not in BASELINES
    }
    found = bootstrap(
        {**targets, **{f"{a} - {b}": target for (a, b), target in pairs.items()}},
        Resampled.of(truth),
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
    )
    return {
        "plan": plan.document()["plan"],
        "people": len(truth),
        "with_the_class": int(truth.sum()),
        "repeats": len(folds),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "seconds": seconds,
        "methods": {
            method: {
                "auc": _finite(found[method]),
                "pooled": pooled(table, truth),
                "folds": [_or_none(area) for area in of_each_fold(table, folds, truth)],
            }
            for method, table in scores.items()
        },
        "differences": {
            method: {rival: _finite(found[f"{method} - {rival}"]) for rival in RIVALS}
            for method in METHODS
            if method not in BASELINES
        },
    }


def _table(
    people: People, results: Sequence[dict[str, Any]]
) -> tuple[dict[str, Floats], NDArray[np.int64], float]:
    """Scores float64[R, P] by method, the fold of each person int64[R, P], and seconds in all."""
    seeds = sorted({result["seed"] for result in results})
    shape = (len(seeds), len(people.ids))
    folds = np.full(shape, -1)
    scores = {method: np.full(shape, np.nan) for method in METHODS}
    for result in results:
        row = seeds.index(result["seed"])
        columns = np.searchsorted(people.ids, result["people"])
        folds[row, columns] = result["fold"]
        for method, values in result["scores"].items():
            scores[method][row, columns] = values
    return scores, folds, sum(result["seconds"] for result in results)


HEADINGS = ("method", "AUC", "95 % interval", "pooled", "– total CSF", "– PCA + LR")
WORDS = 1  # columns of text


def rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of the page and of the terminal, as text."""
    return [
        (
            METHODS[method],
            f"{each['auc']['value']:.3f}",
            _ends(each["auc"]),
            f"{each['pooled']:.3f}",
            *(_difference(found["differences"].get(method, {}).get(rival)) for rival in RIVALS),
        )
        for method, each in found["methods"].items()
    ]


def sentence(found: dict[str, Any]) -> str:
    """What was reached, in one sentence."""
    told = {m: found["methods"][m]["auc"] for m in (HEADLINE, *RIVALS)}
    return (
        f"{' + '.join(found['plan']['positive'])} against the rest, {found['people']} people: the "
        f"student reaches AUC {told[HEADLINE]['value']:.3f} [{_ends(told[HEADLINE])}] on people "
        f"it never saw; total CSF {told['csf']['value']:.3f} [{_ends(told['csf'])}], PCA + LR "
        f"{told['regression']['value']:.3f} [{_ends(told['regression'])}]."
    )


def write(found: dict[str, Any], out: Path, command: str) -> None:
    """Writes `report.md`, `cv.json`, `cv.png` and `cv.svg`, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    pictures.write(draw(found), out, PICTURE)
    write_json(out / NUMBERS, {"command": command, **found})
    write_text(out / REPORT, page(found, command))


def page(found: dict[str, Any], command: str) -> str:
    """`report.md`."""
    plan = found["plan"]
    repeats = f", {found['repeats']} times" if found["repeats"] > 1 else ""
    lines = [
        "# Cross-validation by person",
        "",
        f"**{sentence(found)}**",
        "",
        f"![AUC of every method]({PICTURE}.png)",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * WORDS + "---:|" * (len(HEADINGS) - WORDS),
        *("| " + " | ".join(row) + " |" for row in rows(found)),
        "",
        f"{found['people']} people, {found['with_the_class']} of them with "
        f"{', '.join(plan['positive'])}; {plan['folds']} folds by person{repeats}, stratified by "
        f"class; networks see {plan['size']} pixels. In each fold pretraining, teacher and student "
        "learn from the training people alone, a fifth of whom validate instead; methods without "
        "a network learn from both. A person's score is the mean probability of its slices.",
        "",
        "**AUC** compares two people only where one fold's model scored both: it is the mean of "
        "the folds' AUCs, and the headline, since scores of different models are not on one scale. "
        "*Pooled* compares all. The intervals resample people within their class "
        f"({found['resamples']} times; differences are paired). They speak of new people for these "
        "trainings; what other splits and seeds would change comes on top.",
        "",
        f"`{command}`, {found['seconds'] / 60:.0f} minutes of folds.",
        "",
        DISCLAIMER,
    ]
    return "\n".join(lines) + "\n"


def draw(found: dict[str, Any]) -> dict[str, bytes]:
    """The picture: AUC of every method with its interval and folds, and the paired differences.

    Returns:
        `png` and `svg`.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(pictures.RC):
        figure = Figure(figsize=(8.4, 3.4), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
        _forest(left, found)
        _differences(right, found)
        return pictures.files(figure)


def _forest(axes: Any, found: dict[str, Any]) -> None:
    for place, (method, each) in enumerate(found["methods"].items()):
        colour = THEIRS if method in BASELINES else OURS
        auc = each["auc"]
        folds = [area for area in each["folds"] if area is not None]
        axes.plot(folds, [place] * len(folds), "|", color=colour, alpha=0.45, markersize=7)
        if auc["low"] is not None:
            axes.plot([auc["low"], auc["high"]], [place, place], color=colour, linewidth=2.2)
        axes.plot(auc["value"], place, "o", color=colour, markersize=6)
        axes.text(1.015, place, f"{auc['value']:.3f}", va="center", color=INK,
                  transform=axes.get_yaxis_transform(), fontsize=8.5)  # fmt: skip
    axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(found["methods"])), [METHODS[m] for m in found["methods"]])
    axes.set_ylim(len(found["methods"]) - 0.4, -0.6)
    axes.set_xlim(right=1.0)
    axes.set_xlabel("AUC on people never seen (95 % interval; a tick per fold)")
    axes.spines[["top", "right"]].set_visible(False)


def _differences(axes: Any, found: dict[str, Any]) -> None:
    for place, method in enumerate(found["methods"]):
        for rival, shift, marker in (("csf", -0.15, "o"), ("regression", 0.15, "s")):
            gap = found["differences"].get(method, {}).get(rival)
            if gap is None or gap["low"] is None:
                continue
            axes.plot([gap["low"], gap["high"]], [place + shift] * 2, color=OURS, linewidth=1.4)
            axes.plot(gap["value"], place + shift, marker, color=OURS, markersize=4.5,
                      markerfacecolor=OURS if marker == "o" else "white")  # fmt: skip
    axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel("difference to ● total CSF, □ PCA + LR")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _ends(interval: dict[str, float | None]) -> str:
    if interval["low"] is None:
        return "–"
    return f"{interval['low']:.3f}, {interval['high']:.3f}"


def _difference(interval: dict[str, float | None] | None) -> str:
    return "" if interval is None else f"{interval['value']:+.3f} [{_signed(interval)}]"


def _signed(interval: dict[str, float | None]) -> str:
    if interval["low"] is None:
        return "–"
    return f"{interval['low']:+.3f}, {interval['high']:+.3f}"


def _finite(interval: Interval) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in interval._asdict().items()}


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
