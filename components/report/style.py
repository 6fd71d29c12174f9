"""The one matplotlib style of the report: small panels whose colours follow the page's theme.

Every colour is drawn as a placeholder and then replaced by a CSS variable, so that one SVG serves
light, dark and print. Text stays text in the page's own font.
"""

import io
import re
from collections.abc import Callable

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#fab001"
MUTED = "#fab002"
GRID = "#fab003"
PAPER = "#fab004"
ACCENT = "#fab005"
PLACEHOLDERS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    ACCENT: "var(--accent)",
}
CLASS_COLOURS = 10  # --class-0 … --class-9 in style.css; more classes than that share colours

RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "path.simplify_threshold": 0.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "cortexflow",
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is a name
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def class_colour(rank: int) -> str:
    """The placeholder of a class's colour; `rank` is its place in the order of severity."""
    return f"#ca550{rank % CLASS_COLOURS}"


def panel(
    name: str,
    description: str,
    draw: Callable[[Axes], None],
    size: tuple[float, float] = (2.6, 2.0),
) -> Markup:
    """Draws one panel as inline SVG.

    Args:
        name: unique within the page; prefixes the ids inside the SVG.
        description: what a reader who cannot see the panel is told.
        draw: draws on the axes; may use the colours of this module and of `class_colour`.
        size: inches, which set the proportions and the size of text relative to them.

    Returns:
        An `<svg>` element that scales to its container.
    """
    with mpl.rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
        canvas = FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        # Not `savefig`, which draws everything once more before it draws it.
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return Markup(_inline(buffer.getvalue(), name, description))  # noqa: S704 (matplotlib escapes)


def _inline(svg: str, name: str, description: str) -> str:
    """Turns a stand-alone SVG file into an element of a page that holds many of them."""
    body = svg[svg.index("<svg") :]
    head, body = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head).group()
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\s*<style type="text/css">.*?</style>', "", body, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', body))
    body = re.sub(
        r' id="([^"]+)"',
        lambda match: f' id="{name}-{match[1]}"' if match[1] in referenced else "",
        body,
    )
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*; ", "", body)
    body = re.sub(r' transform="rotate\(-0[^"]*"|<g/>', "", body)
    body = re.sub(r"<[^>]+>", _rounded, body)
    body = re.sub(r"#ca550(\d)", r"var(--class-\1)", body)
    for placeholder, variable in PLACEHOLDERS.items():
        body = body.replace(placeholder, variable)
    body = re.sub(r">\s+<", "><", body)
    return f'<svg {box} role="img" aria-label="{escape(description)}">{body}'


def _rounded(tag: re.Match) -> str:
    """A tag with its coordinates to two digits; what stands between tags is text to be read."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])
