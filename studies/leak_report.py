"""What a leak study leaves behind: a page, its numbers, and a picture that needs no explanation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ingest.atomic import write_json, write_text
from studies import pictures
from studies.leak import METHODS, SPLITS, LeakStudy
from studies.pictures import INK, MUTED
from studies.slices import Slices

REPORT, NUMBERS, PICTURE = "report.md", "leak.json", "leak"
DISCLAIMER = "Research use only, not for diagnosis."

LEAKED, HONEST = "#c2410c", "#1d6fa5"
TOLD = {
    "random": "Slices at random\n(as published)",
    "shipped": "First slices train,\nlast test (as shipped)",
    "person": "People apart\n(honest)",
}


def write(study: LeakStudy, slices: Slices, out: Path, command: str) -> None:
    """Writes `report.md`, `leak.json`, `leak.png` and `leak.svg`, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    pictures.write(draw(study, slices), out, PICTURE)
    write_json(out / NUMBERS, {"command": command, **study.document()})
    write_text(out / REPORT, page(study, command))


def rows(study: LeakStudy) -> list[tuple[str, ...]]:
    """The table of the page and of the terminal: one row per split and method, as text."""
    found: list[tuple[str, ...]] = []
    for score in study.scores:
        found.append(
            (
                SPLITS[score.split],
                METHODS[score.method],
                "drawn" if score.shuffled else "true",
                _number(score.accuracy),
                _number(score.slice_auc),
                _number(score.person_auc),
                "" if score.same_person is None else f"{score.same_person:.1%}",
            )
        )
    return found


HEADINGS = ("split", "method", "labels", "accuracy", "AUC slices", "AUC people", "same one")
WORDS = 3  # columns of text


def verdicts(study: LeakStudy, reasons: int | None = None) -> list[str]:
    """What the leak check says of each split, a line each, with so many of its reasons or all."""
    return [
        ": ".join(part for part in (SPLITS[split], found.outcome, "; ".join(told)) if part)
        for split, found in study.verdicts.items()
        for told in [found.reasons[:reasons]]
    ]


def sentence(study: LeakStudy) -> str:
    """The study in two sentences."""
    leaked, drawn = study.score("random"), study.score("random", shuffled=True)
    honest = study.score("person")
    prior = study.score("person", "prior").accuracy
    return (
        f"Slices dealt out at random: {leaked.accuracy:.1%} of slices right, and "
        f"{drawn.accuracy:.1%} when every person's label is drawn at random. New people: "
        f"{honest.accuracy:.1%} (always the commonest class: {prior:.1%}), macro AUC "
        f"{honest.slice_auc:.2f}, where .50 is chance."
    )


def page(study: LeakStudy, command: str) -> str:
    """`report.md`."""
    counts = ", ".join(f"{n} {name}" for name, n in zip(study.classes, study.counts, strict=True))
    lines = [
        f"# Where 99 % goes: {study.name}",
        "",
        f"**{sentence(study)}**",
        "",
        f"![Accuracy under each split]({PICTURE}.png)",
        "",
        f"{study.people} people ({counts}), {study.slices} slices. Nothing differs between the "
        f"rows but who is on which side. {study.folds} folds, out of fold, seed {study.seed}; "
        "AUC is one against the rest, averaged over the classes of five people or more; of people "
        "it is of the mean over a person's slices. *Drawn*: the labels were dealt out anew among "
        "the people, so that there is nothing to learn but who is who. *Same one*: how often "
        "the nearest training image is one of the same person.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * WORDS + "---:|" * (len(HEADINGS) - WORDS),
        *("| " + " | ".join(row) + " |" for row in rows(study)),
        "",
        "## What the leak check says",
        "",
        *(f"- {line}" for line in verdicts(study)),
        "",
        f"`{command}`",
        "",
        DISCLAIMER,
    ]
    return "\n".join(lines) + "\n"


def draw(study: LeakStudy, slices: Slices) -> dict[str, bytes]:
    """The picture: bars of accuracy, and below what the nearest neighbour found.

    Returns:
        `png` and `svg`.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    splits = [split for split in SPLITS if split in study.verdicts]
    with mpl.rc_context(pictures.RC):
        figure = Figure(figsize=(7.6, 4.9), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        parts: Any = figure.subfigures(2, 1, height_ratios=(1.55, 1))
        upper, lower = parts
        _bars(upper.subplots(), study, splits)
        _pairs(lower, study, slices, splits)
        return pictures.files(figure)


def _bars(axes: Any, study: LeakStudy, splits: Sequence[str]) -> None:
    places = np.arange(len(splits))
    for offset, shuffled in ((-0.2, False), (0.2, True)):
        values = [study.score(split, shuffled=shuffled).accuracy for split in splits]
        colours = [HONEST if split == "person" else LEAKED for split in splits]
        bars = axes.bar(
            places + offset,
            values,
            0.36,
            color="white" if shuffled else colours,
            edgecolor=colours,
            hatch="////" if shuffled else None,
            linewidth=1,
        )
        labels = axes.bar_label(bars, [f"{value:.1%}" for value in values], padding=2, fontsize=10)
        for label in labels:  # readable across the line of the baseline
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    prior = study.score("person", "prior").accuracy
    axes.axhline(prior, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(
        len(splits) - 0.56,
        prior + 0.02,
        f"always saying the\ncommonest class:\n{prior:.0%}",
        fontsize=8,
        color=INK,
        ha="left",
        va="bottom",
    )
    axes.set_xticks(places, [TOLD[split] for split in splits], fontsize=9.5)
    axes.set_xlim(-0.5, len(splits) - 0.05)
    axes.set_ylim(0, 1.14)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.set_ylabel("slices named right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        "Same images, same pixel nearest neighbour: only the split differs",
        loc="left",
        fontsize=11,
        fontweight="bold",
        color=INK,
    )
    from matplotlib.patches import Patch

    axes.legend(
        handles=[
            Patch(facecolor=MUTED, edgecolor=MUTED, label="true labels"),
            Patch(facecolor="white", edgecolor=MUTED, hatch="////", label="labels drawn at random"),
        ],
        frameon=False,
        fontsize=8.5,
        loc="upper right",
    )


def _pairs(part: Any, study: LeakStudy, slices: Slices, splits: Sequence[str]) -> None:
    """Under each split, a test slice beside the training slice most like it."""
    from schema.descriptors import decode

    grid = part.subplots(1, 2 * len(splits))
    shown = {example.split: example for example in study.examples}
    for column, split in enumerate(splits):
        example = shown[split]
        same = slices.subjects[example.test] == slices.subjects[example.train]
        honest = HONEST if split == "person" else LEAKED
        said = "the same person" if same else "somebody else"
        for axes, row, title in zip(
            grid[2 * column : 2 * column + 2],
            (example.test, example.train),
            ("test slice", f"nearest in training:\n{said}"),
            strict=True,
        ):
            axes.imshow(decode(slices.encoded[row]), cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(title, fontsize=8, color=INK if row == example.test else honest)
            for spine in axes.spines.values():
                spine.set_color(MUTED if row == example.test else honest)
                spine.set_linewidth(1 if row == example.test else 2)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
