"""A benchmark's arms over several seeds: paired differences, as a table and as a drawing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CONFIDENCE = 0.95

Pair = tuple[str, str]


def paired(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Mean difference over seeds and its interval by Student's t: float64[n] each."""
    from scipy import stats

    differences = first - second
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return {"mean": mean, "low": float("nan"), "high": float("nan"), "n": count}
    error = float(stats.sem(differences)) * stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return {"mean": mean, "low": mean - error, "high": mean + error, "n": count}


def summary(
    results: list[dict[str, Any]], arms: Sequence[str], pairs: Sequence[Pair]
) -> dict[str, Any]:
    """Per-seed values, means and paired differences of one fraction."""
    values = {arm: np.array([result["auc"][arm] for result in results]) for arm in arms}
    return {
        "fraction": results[0]["fraction"],
        "seeds": [result["seed"] for result in results],
        "people": results[0]["people"],
        "auc": {arm: each.tolist() for arm, each in values.items()},
        "mean": {arm: float(each.mean()) for arm, each in values.items()},
        "differences": {f"{a} - {b}": paired(values[a], values[b]) for a, b in pairs},
    }


def table(each: dict[str, Any]) -> str:
    """One fraction's numbers as text."""
    people = each["people"]
    lines = [
        f"{each['fraction']:.0%} of the labels: {people['labelled']} of {people['train']} training "
        f"people, {people['validating']} validate, {people['test']} test",
        f"{'macro AUC':13}" + "".join(f"{f'seed {s}':>9}" for s in each["seeds"]) + "     mean",
    ]
    for arm in each["mean"]:
        row = (*each["auc"][arm], each["mean"][arm])
        lines.append(f"{arm:13}" + "".join(f"{value:9.3f}" for value in row))
    for name, found in each["differences"].items():
        lines.append(
            f"{name:22}{found['mean']:+.3f}, 95 % [{found['low']:+.3f}, {found['high']:+.3f}] "
            f"(paired t, {found['n']} seeds)"
        )
    return "\n".join(lines)


def compared(
    ours: list[dict[str, Any]], others: list[dict[str, Any]], arms: Sequence[str], name: str
) -> str:
    """Paired differences of each arm between two plans on the same seeds and fraction, as text."""
    lines = [f"{ours[0]['fraction']:.0%} of the labels, minus {name}"]
    for arm in arms:
        mine, theirs = (np.array([each["auc"][arm] for each in side]) for side in (ours, others))
        found = paired(mine, theirs)
        lines.append(
            f"{arm:13}{found['mean']:+.3f}, 95 % [{found['low']:+.3f}, {found['high']:+.3f}]"
        )
    return "\n".join(lines)


def draw(summaries: list[dict[str, Any]], path: Path) -> None:
    """Dots per seed joined across the arms, and the means, one panel per fraction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(summaries), 3.0), layout="constrained")
    panels = figure.subplots(1, len(summaries), sharey=True, squeeze=False)[0]
    for axes, each in zip(panels, summaries, strict=True):
        arms = list(each["mean"])
        values = np.array([each["auc"][arm] for arm in arms])
        places = np.arange(len(arms))
        axes.plot(places, values, color="0.75", linewidth=0.8, marker="o", markersize=3)
        axes.plot(places, values.mean(axis=1), "_", color="C0", markersize=18, markeredgewidth=2.5)
        axes.set_title(f"{each['fraction']:.0%} of the labels", fontsize=9)
        axes.set_xticks(places, arms, fontsize=8)
        axes.set_xlim(-0.5, len(arms) - 0.5)
        axes.grid(axis="y", linewidth=0.5, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("macro AUC, test people")
    figure.savefig(path)
