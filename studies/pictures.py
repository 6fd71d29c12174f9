"""Figures as files: each whole or absent, the PNG small enough for a page."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RC: dict[Any, Any] = {"font.size": 9, "text.parse_math": False, "svg.hashsalt": "cortexflow"}
COLOURS = 64  # of the PNG's palette: a quarter of the bytes, and nobody sees it
DPI = 120
INK, MUTED = "#1f2933", "#66727f"


def files(figure: "Figure") -> dict[str, bytes]:
    """A drawn figure as `png` and `svg`, the same bytes each time."""
    from PIL import Image

    drawn, canvas, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(canvas, format="png", dpi=DPI)
    with Image.open(canvas) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(packed, "PNG", optimize=True)
    return {"png": packed.getvalue(), "svg": drawn.getvalue()}


def write(pictures: dict[str, bytes], out: Path, name: str) -> None:
    """Writes each beside its place and renames it: `OUT/NAME.png`, `OUT/NAME.svg`."""
    for suffix, content in pictures.items():
        path = out / f"{name}.{suffix}"
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(content)
        draft.replace(path)
