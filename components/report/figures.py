"""The figures of the report: each draws given numbers and computes none."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from components.report import style
from components.report.evidence import Histogram

SQUARE = (2.3, 2.2)
LARGE = (3.05, 2.7)
WIDE = (2.9, 1.75)
UNIT_TICKS = (0, 0.5, 1)


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: x and y of equal length, and how it looks (`width` in points)."""

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str = style.ACCENT
    width: float = 1.8
    dash: str = "-"


def roc(name: str, description: str, lines: Sequence[Line]) -> Markup:
    """True positive rate over false positive rate, with the diagonal of no skill."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, dashes=(1, 2.5))
        _curves(axes, lines)
        _unit_square(axes, "False positive rate", "True positive rate")

    return style.panel(name, description, draw, LARGE)


def precision_recall(
    name: str, description: str, lines: Sequence[Line], prevalence: float | None
) -> Markup:
    """Precision over recall; a dotted line at the prevalence, which a guess reaches."""

    def draw(axes: Axes) -> None:
        if prevalence is not None:
            axes.axhline(prevalence, color=style.MUTED, linewidth=0.8, dashes=(1, 2.5))
        _curves(axes, lines, drawstyle="steps-pre")
        _unit_square(axes, "Recall", "Precision")

    return style.panel(name, description, draw, LARGE)


def reliability(
    name: str, description: str, lines: Sequence[Line], weights: Sequence[np.ndarray]
) -> Markup:
    """Accuracy over confidence, one point per bin; on the diagonal, confidence is honest.

    `weights`: of each line, float[B], the share of cases in each bin: the area of its point, so
    that a bin of one case does not look like a bin of fifty.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, dashes=(1, 2.5))
        for line, shares in zip(lines, weights, strict=True):
            axes.plot(line.x, line.y, line.dash, color=line.colour, linewidth=line.width / 2)
            area = 45 * line.width * shares + 4
            axes.scatter(line.x, line.y, area, color=line.colour, linewidths=0, zorder=3)
        _unit_square(axes, "Confidence", "Accuracy")

    return style.panel(name, description, draw, SQUARE)


def confidence(
    name: str, description: str, edges: np.ndarray, counts: Sequence[float], unit: str
) -> Markup:
    """How many answers were given with which confidence."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=style.ACCENT, alpha=0.75, linewidth=0)
        axes.set(xlim=(0, 1), xlabel="Confidence", ylabel=unit, xticks=UNIT_TICKS)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    return style.panel(name, description, draw, SQUARE)


def training(
    name: str, description: str, series: Mapping[str, Line], *, unit_range: bool = False
) -> Markup:
    """One quantity over the epochs, for example the loss in training and in validation."""

    def draw(axes: Axes) -> None:
        for line in series.values():
            sparse = len(line.x) == 1 or line.x[-1] - line.x[0] >= len(line.x)
            axes.plot(
                line.x,
                line.y,
                line.dash,
                color=line.colour,
                linewidth=line.width,
                marker="o" if sparse else None,
                markersize=4,
            )
        axes.set(xlabel="Epoch", xlim=(min(1, axes.get_xlim()[0]), None))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if unit_range:
            low = min((min(line.y) for line in series.values() if len(line.y)), default=0.0)
            axes.set(ylim=(min(0.4, low - 0.05), 1.0))
        axes.grid(axis="x", visible=False)

    return style.panel(name, description, draw, WIDE)


def descriptor(
    name: str, description: str, reference: Histogram | None, current: Histogram | None
) -> Markup:
    """Two distributions of one image descriptor: filled, the reference; a line, the other."""

    def draw(axes: Axes) -> None:
        if reference is not None:
            axes.stairs(*_density(reference), fill=True, color=style.MUTED, alpha=0.35, linewidth=0)
        if current is not None:
            axes.stairs(*_density(current), color=style.ACCENT, linewidth=1.5, baseline=None)
        axes.set(yticks=[], ylim=(0, None))
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(visible=False)

    return style.panel(name, description, draw, (2.2, 1.05))


def shares(
    name: str,
    description: str,
    bins: Sequence[float | str | None],
    reference: Sequence[float],
    current: Sequence[float],
) -> Markup:
    """Two distributions over the same bins, of equal width whatever they hold: shares of people.

    Args:
        name, description: as for every panel.
        bins: names of the bins; or numbers, the edges between them (one fewer than bins of
            finite numbers).
        reference, current: shares, float[B]; filled, and a line.
    """

    def draw(axes: Axes) -> None:
        edges = np.arange(len(reference) + 1)
        axes.stairs(reference, edges, fill=True, color=style.MUTED, alpha=0.35, linewidth=0)
        axes.stairs(current, edges, color=style.ACCENT, linewidth=1.5, baseline=None)
        numeric = bool(bins) and all(isinstance(each, int | float) for each in bins)
        if numeric:
            chosen = np.unique(np.linspace(0, len(bins) - 1, 3).round().astype(int))
            axes.set_xticks(chosen + 1, [f"{bins[at]:.3g}" for at in chosen])
        else:
            names = [_clipped(str(each) or "(none)") for each in bins]
            axes.set_xticks(edges[: len(names)] + 0.5, names)
        axes.set(yticks=[], ylim=(0, None), xlim=(0, len(reference)))
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)

    return style.panel(name, description, draw, (2.4, 1.15))


def _clipped(text: str, most: int = 9) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def null(
    name: str,
    description: str,
    edges: Sequence[float],
    counts: Sequence[float],
    found: float,
    band: tuple[float | None, float | None],
) -> Markup:
    """What chance gives (filled), its band (dotted), and what was found (a line)."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=style.MUTED, alpha=0.35, linewidth=0)
        for end in band:
            if end is not None:
                axes.axvline(end, color=style.MUTED, linewidth=1.0, dashes=(1, 2.5))
        axes.axvline(found, color=style.ACCENT, linewidth=2.2)
        reach = [*edges, found, *(end for end in band if end is not None)]
        margin = 0.04 * (max(reach) - min(reach))
        axes.set(
            yticks=[], ylim=(0, None), xlabel="Macro AUC",
            xlim=(min(reach) - margin, max(reach) + margin),
        )  # fmt: skip
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False)

    return style.panel(name, description, draw, WIDE)


def _density(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Share of values per unit, so that bins of unequal width and samples of unequal size compare.

    A bin without width (all values equal) is drawn with the width of a hair.
    """
    counts, edges = np.asarray(histogram.counts, float), np.asarray(histogram.edges, float)
    hair = 1e-3 * max(np.ptp(edges), abs(edges).max() * 1e-3, 1e-9)
    widths = np.maximum(np.diff(edges), hair)
    edges = np.concatenate([edges[:1], edges[0] + np.cumsum(widths)])
    return counts / max(counts.sum(), 1.0) / widths, edges


def _curves(axes: Axes, lines: Sequence[Line], drawstyle: str = "default") -> None:
    for line in lines:
        axes.plot(
            line.x,
            line.y,
            line.dash,
            color=line.colour,
            linewidth=line.width,
            drawstyle=drawstyle,
        )


def _unit_square(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.04),
        xticks=UNIT_TICKS,
        yticks=UNIT_TICKS,
        xlabel=x_label,
        ylabel=y_label,
    )
