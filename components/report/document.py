"""A plain document: sections of text, lists and tables, to be written as Markdown or HTML."""

import dataclasses
import re
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `strong`: one that must not be missed."""

    text: str
    strong: bool = False
    kind: str = "text"


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]
    kind: str = "bullets"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; its first column names the rows. `folded`: it hides behind its caption."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    folded: bool = False
    kind: str = "table"


Block = Text | Bullets | Table


@dataclasses.dataclass(frozen=True)
class Section:
    """A numbered section; `anchor` is its id in HTML."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Document:
    """The whole; `stamps` are warnings (word, text) in large letters."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    stamps: tuple[tuple[str, str], ...] = ()


def bullets(items: Iterable[str | None]) -> Bullets:
    """A list of what there is."""
    return Bullets(tuple(item for item in items if item))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", *, folded=False
) -> Table:
    """A table of text."""
    return Table(tuple(columns), tuple(tuple(row) for row in rows), caption, folded)


def markdown(document: Document) -> str:
    """Writes CommonMark with tables; names from data stay text whatever they hold."""
    parts = [f"# {_plain(document.title)}", f"**{_plain(document.lead)}**"]
    parts += [f"> # {_plain(word)}\n>\n> {_plain(text)}" for word, text in document.stamps]
    for number, section in enumerate(document.sections, start=1):
        parts.append(f"## {number}. {_plain(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Text):
        text = _plain(block.text)
        return f"**{text}**" if block.strong else text
    if isinstance(block, Bullets):
        return "\n".join(f"- {_plain(item)}" for item in block.items)
    rows = [block.columns, ("---",) * len(block.columns)]
    lines = [_row(rows[0]), "|" + "|".join(rows[1]) + "|", *map(_row, block.rows)]
    text = "\n".join(lines)
    if block.folded:
        return f"<details><summary>{_plain(block.caption)}</summary>\n\n{text}\n\n</details>"
    return f"{_plain(block.caption)}\n\n{text}" if block.caption else text


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text on one line, what Markdown or HTML would read as markup escaped."""
    line = " ".join(str(text).split())
    # As entities, which every renderer knows; a backslash before < is CommonMark's alone.
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)
    # A line that would begin a heading, a list or a rule is text too.
    return re.sub(r"^([#+=-]|\d+[.)])(?=\s|$)", r"\\\1", line)
