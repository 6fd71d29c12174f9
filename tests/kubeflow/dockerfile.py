"""A Dockerfile's steps, and what .dockerignore lets through, without an engine."""

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "kubeflow" / "Dockerfile"


@dataclass
class Stage:
    """One `FROM`: its name, what it stands on, and its steps in order."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Arguments of each step of a kind."""
        return [text for kind, text in self.steps if kind == instruction]


def read(text: str) -> tuple[dict[str, str], dict[str, Stage]]:
    """Global arguments with their defaults, and the stages by name."""
    joined = re.sub(r"\\\n", " ", "\n".join(_uncommented(text)))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for line in joined.splitlines():
        kind, _, rest = line.strip().partition(" ")
        rest = re.sub(r"\s+", " ", rest).strip()
        if kind == "FROM":
            base, _, name = re.sub(r"\s+AS\s+", " AS ", rest).partition(" AS ")
            stages[name] = Stage(name, base)
        elif not stages:
            name, _, default = rest.partition("=")
            arguments[name] = default.strip('"')
        else:
            [*_, stage] = stages.values()
            stage.steps.append((kind, rest))
    return arguments, stages


def _uncommented(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def lets_through(path: str, ignore: str) -> bool:
    """Whether .dockerignore lets a file reach the builder: the last pattern that fits decides.

    Patterns fit a path or a folder above it; `**` fits any folders, `*` none of them.
    """
    reaches = True
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    for line in ignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        back = pattern.startswith("!")
        form = _form(pattern.removeprefix("!"))
        if any(form.fullmatch(each) for each in above):
            reaches = back
    return reaches


def _form(pattern: str) -> re.Pattern:
    pieces = []
    for part in re.split(r"(\*\*/)", pattern):
        if part == "**/":
            pieces.append("(?:.*/)?")
            continue
        translated = fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z")
        pieces.append(translated.replace(".*", "[^/]*"))
    return re.compile("".join(pieces))
