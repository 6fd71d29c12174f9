"""The worst offending pairs side by side, for a person to see at a glance what leaked."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.leakage_pairs import Pair, Place, SplitImages, apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 8  # pairs in a picture
COLUMNS = 2  # of pairs
IMAGE = 1.3  # inches of an image's side
CELL = (3 * IMAGE + 0.5, IMAGE + 0.62)  # inches of a pair with its captions
TOP, BOTTOM = 0.62, 0.3  # inches above and below all pairs
AMPLIFIED = 4  # differences are shown so many times as strong
LONGEST = 22  # characters of a subject's id
FOUND_BY = {"ids": "same subject", "pixels": "equal pixels", "correlation": "look-alikes"}
INK, MUTED, ALARM = "#1d2733", "#66717f", "#b3261e"


def draw(pairs: Sequence[Pair], splits: Mapping[str, SplitImages], total: int) -> bytes:
    """Draws up to eight pairs, of as many different people as there are, the most alike first.

    Args:
        pairs: as `check` tells them; at least one.
        splits: the images that were checked.
        total: how many pairs there are in all, for the title.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = apart(pairs, MOST)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width, height = columns * CELL[0], rows * CELL[1] + TOP + BOTTOM
    figure = Figure((width, height), dpi=144, facecolor="white")
    canvas = FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, size: float, colour: str, **style: Any) -> None:
        """Text at inches from the upper left corner; a name with dollar signs is a name."""
        place = x / width, 1 - y / height
        figure.text(*place, text, fontsize=size, color=colour, parse_math=False, **style)

    title = f"{len(shown)} of {total} pairs of images on both sides of the split"
    write(
        0.15, 0.3, title if total > 1 else "A pair of images on both sides", 12, INK, weight="bold"
    )
    for index, pair in enumerate(shown):
        left, top = index % columns * CELL[0] + 0.15, index // columns * CELL[1] + TOP
        found = ", ".join(FOUND_BY[layer] for layer in pair.layers)
        likeness = "blank" if pair.correlation is None else f"r = {pair.correlation:.3f}"
        write(left, top, likeness, 9.5, ALARM, weight="bold")
        write(left + 0.75, top, found, 9, MUTED)
        a, b = (splits[place.split].thumbnails[place.row] for place in (pair.a, pair.b))
        difference = np.abs(a.astype(np.int16) - b) * AMPLIFIED
        captions = (*map(_caption, (pair.a, pair.b)), f"difference ×{AMPLIFIED}")
        for position, (image, caption) in enumerate(zip((a, b, difference), captions, strict=True)):
            x = left + position * (IMAGE + 0.06)
            y = top + 0.07
            box = (x / width, 1 - (y + IMAGE) / height, IMAGE / width, IMAGE / height)
            _show(figure.add_axes(box), image)
            write(x, y + IMAGE + 0.04, caption, 7.5, INK, va="top", linespacing=1.25)
    write(0.15, height - 0.1, "Research use only, not for diagnosis.", 7.5, MUTED)
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": None})
    return out.getvalue()


def _show(axes: "Axes", image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    axes.set_axis_off()


def _caption(place: Place) -> str:
    who = place.subject or (f"file {place.source[:8]}" if place.source else f"image {place.row}")
    if len(who) > LONGEST:
        who = f"{who[: LONGEST // 2]}…{who[-LONGEST // 2 + 1 :]}"
    index = f" · slice {place.slice_index}" if place.slice_index >= 0 else ""
    return f"{who}\n{place.split}{index}"
