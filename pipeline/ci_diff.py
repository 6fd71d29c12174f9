"""What a change does to compiled pipelines, told by node and field: `python -m pipeline.ci_diff`.

A compiled pipeline is thousands of lines in which one setting stands at several places, partly as
JSON in a string. Here both are taken apart, so that a reviewer reads which node differs in what.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from schema.errors import CortexflowError

PIPELINE = "(pipeline)"  # what belongs to no node
MARK = "<!-- cortexflow: compiled pipelines -->"  # by which a comment is found again
MAX_CHARACTERS = 60_000  # of a comment; GitHub takes 65,536
MAX_VALUE = 120
MAX_ROWS_OPEN = 25  # more are folded
MAX_NAMES = 4  # of nodes in a cell

_ABSENT = object()
_SHORTER = (
    ("container.", ""),
    ("inputs.parameters.", ""),
    ("inputs.artifacts.", "input "),
    ("cachingOptions.enableCache", "cache"),
    ("retryPolicy.", "retry "),
    ("inputDefinitions.", "takes "),
    ("outputDefinitions.", "gives "),
)


class DiffError(CortexflowError):
    """A file that is no compiled pipeline."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One difference. `old` or `new` is None where the field, or the node, is not there.

    Attributes:
        node: id of the node, or `PIPELINE`.
        field: in words and dots; "" for the node as a whole.
        old: as text.
        new: as text.
    """

    node: str
    field: str
    old: str | None
    new: str | None


def explain(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """All differences of two compiled pipelines, by node in the order of their names.

    Args:
        old: PipelineSpec 2.1; with `platforms` beside it where there are platform settings.
        new: likewise.

    Returns:
        Nothing for equal ones. A node that came or went is one change.
    """
    before, after = _nodes(old), _nodes(new)
    changes = []
    for node in sorted({*before, *after}, key=lambda name: (name != PIPELINE, name)):
        if node not in before:
            changes.append(Change(node, "", None, _gist(after[node])))
        elif node not in after:
            changes.append(Change(node, "", _gist(before[node]), None))
        else:
            changes.extend(_changes(node, before[node], after[node]))
    return changes


def _nodes(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Node → all that is said of it anywhere; what is left over under `PIPELINE`."""
    root = spec.get("root", {})
    tasks = root.get("dag", {}).get("tasks", {})
    components = dict(spec.get("components", {}))
    executors = dict(spec.get("deploymentSpec", {}).get("executors", {}))
    platforms = {
        name: dict(told.get("deploymentSpec", {}).get("executors", {}))
        for name, told in spec.get("platforms", {}).items()
    }
    found: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for node, task in tasks.items():
        component = task.get("componentRef", {}).get("name", node)
        body = dict(components.get(component, {}))
        label = body.pop("executorLabel", "")
        used |= {component, label}
        found[node] = {
            **{k: v for k, v in task.items() if k not in ("componentRef", "taskInfo")},
            **body,
            **executors.get(label, {}),
            **{name: given[label] for name, given in platforms.items() if label in given},
        }
    rest: dict[str, Any] = {k: v for k, v in root.items() if k != "dag"}
    rest["dag"] = {k: v for k, v in root.get("dag", {}).items() if k != "tasks"}
    known = ("root", "components", "deploymentSpec", "platforms")
    rest |= {k: v for k, v in spec.items() if k not in known}
    rest["components"] = {k: v for k, v in components.items() if k not in used}
    rest["executors"] = {k: v for k, v in executors.items() if k not in used}
    for name, given in platforms.items():
        if left := {k: v for k, v in given.items() if k not in used}:
            rest[name] = left
    return {PIPELINE: rest, **found}


def _gist(node: Mapping[str, Any]) -> str:
    after = ", ".join(sorted(node.get("dependentTasks", []))) or "nothing"
    image = node.get("container", {}).get("image", "no container")
    return f"{image}, after {after}"


def _changes(node: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    before, after = dict(_flat(old)), dict(_flat(new))
    for path in sorted({*before, *after}):
        one, other = before.get(path, _ABSENT), after.get(path, _ABSENT)
        if one != other or type(one) is not type(other):
            told = _text(one), _text(other)
            if told[0] == told[1]:  # a text in a number's place looks like one
                told = json.dumps(one), json.dumps(other)
            yield Change(node, _named(path), *told)


def _named(path: str) -> str:
    for long, short in _SHORTER:
        if path.startswith(long):
            return short + path.removeprefix(long)
    return path


def _text(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by path. Names in a set come as one leaf each, so that their order says nothing."""
    value = _plain(value)
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and path == "dependentTasks":
        for name in value:
            yield f"after {name}", True
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{number}]")
    elif path:
        yield path, value


def _plain(value: Any) -> Any:
    """A value without the wrapping that says where it comes from, JSON in strings taken apart."""
    if isinstance(value, dict) and len(value) == 1:
        value = _unwrapped(*next(iter(value.items())), value)
    if isinstance(value, str) and value[:1] in ("{", "[") and value != "{{$}}":
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, list) and any(_is_flag(one) for one in value):
        value = _options(value)
    return value


def _unwrapped(key: str, inner: Any, whole: Any) -> Any:
    if key in ("runtimeValue", "constant"):
        return _plain(inner)
    if key == "componentInputParameter":
        return f"runtime parameter {inner}"
    if key == "taskOutputArtifact":
        return f"{inner.get('producerTask')}.{inner.get('outputArtifactKey')}"
    return whole


def _is_flag(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("--")


def _options(words: list[Any]) -> dict[str, Any]:
    """A command's words as flag → value, so that one more flag does not move all others."""
    told: dict[str, Any] = {}
    plain: list[Any] = []
    flag = ""
    for word in words:
        if _is_flag(word):
            flag, equals, value = word.partition("=")
            told[flag] = value if equals else True
            flag = "" if equals else flag
        elif flag:
            told[flag], flag = word, ""
        else:
            plain.append(word)
    return {**told, "words": plain} if plain else told


def render(changes: Mapping[str, list[Change]], notes: Iterable[str] = ()) -> str:
    """Markdown for a comment on a pull request.

    Args:
        changes: by file.
        notes: of files that were added or removed.
    """
    parts = [MARK, "### Compiled pipelines", ""]
    parts += [f"- {note}" for note in notes]
    if not any(changes.values()):
        parts.append("This change leaves the compiled pipelines as they are.")
        return "\n".join(parts) + "\n"
    same: dict[tuple[Change, ...], list[str]] = {}
    for file, differences in sorted(changes.items()):
        same.setdefault(tuple(differences), []).append(file)
    size = sum(map(len, parts))
    for found, files in same.items():
        names = ", ".join(f"`{file}`" for file in files)
        if not found:
            parts += ["", f"{names}: no change."]
            continue
        rows = list(_rows(found))
        head = f"{names}: {_counted(len(found), 'change')} in {_counted(_places(found), 'place')}."
        table = ["| node | field | before | after |", "|---|---|---|---|"]
        size += len(head) + sum(map(len, table))
        shown = 0
        while shown < len(rows) and size + len(rows[shown]) < MAX_CHARACTERS:
            size += len(rows[shown]) + 1
            shown += 1
        table += rows[:shown]
        left = len(rows) - shown
        tail = ["", f"… and {_counted(left, 'row')} more."] if left else []
        if len(rows) > MAX_ROWS_OPEN:
            table = ["<details><summary>All changes</summary>", "", *table, "", "</details>"]
        parts += ["", head, "", *table, *tail]
    return "\n".join(parts) + "\n"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _places(changes: Iterable[Change]) -> int:
    return len({change.node for change in changes})


def _rows(changes: Iterable[Change]) -> Iterator[str]:
    """One row for the same change in several nodes."""
    same: dict[tuple[str, str | None, str | None], list[str]] = {}
    for change in changes:
        same.setdefault((change.field, change.old, change.new), []).append(change.node)
    for (field, old, new), nodes in same.items():
        where = ", ".join(nodes[:MAX_NAMES])
        if len(nodes) > MAX_NAMES:
            where += f" and {len(nodes) - MAX_NAMES} more"
        if field:
            cells = (_code(field), _code(old), _code(new))
        else:
            cells = (f"**node {'added' if old is None else 'removed'}**", _code(old), _code(new))
        yield f"| {where} | {' | '.join(cells)} |"


def _code(text: str | None) -> str:
    """A cell in which nothing is Markdown: no mention, no link, no end of the row."""
    if text is None:
        return "–"
    line = " ".join(text.split())
    if len(line) > MAX_VALUE:
        line = line[: MAX_VALUE - 1] + "…"
    line = line.replace("|", "\\|")
    fence = "`" * (max(map(len, _runs(line)), default=0) + 1)
    pad = " " if line[:1] == "`" or line[-1:] == "`" or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _runs(line: str) -> Iterator[str]:
    run = ""
    for letter in f"{line} ":
        if letter == "`":
            run += letter
        elif run:
            yield run
            run = ""


def read(path: Path) -> dict[str, Any]:
    """A compiled pipeline from a file, platform settings beside it.

    Raises:
        DiffError: it cannot be read, or is no compiled pipeline.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), loader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DiffError(f"{path} cannot be read: {error}.") from error
    merged: dict[str, Any] = {}
    for document in documents:
        if not isinstance(document, dict):
            raise DiffError(f"{path} holds a {type(document).__name__}, no compiled pipeline.")
        merged |= document
    if "pipelineInfo" not in merged:
        raise DiffError(f"{path} is no compiled pipeline: it has no pipelineInfo.")
    return merged


def compare(old: Path, new: Path) -> str:
    """Markdown about two folders of compiled pipelines, file by file of the same name.

    Raises:
        DiffError: a file is no compiled pipeline.
    """
    before = {path.name: path for path in sorted(old.glob("*.yaml"))}
    after = {path.name: path for path in sorted(new.glob("*.yaml"))}
    changes = {
        name: explain(read(before[name]), read(after[name]))
        for name in sorted({*before} & {*after})
    }
    notes = [f"`{name}` is new." for name in sorted({*after} - {*before})]
    notes += [f"`{name}` is gone." for name in sorted({*before} - {*after})]
    return render(changes, notes)


def main(arguments: list[str] | None = None) -> int:
    """Prints the Markdown. Differences are no failure."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.ci_diff",
        description="Tell in Markdown how two folders of compiled pipelines differ.",
        epilog="example: python -m pipeline.ci_diff base/kubeflow/golden build/compiled",
    )
    parser.add_argument("old", type=Path, help="folder of *.yaml")
    parser.add_argument("new", type=Path, help="folder of *.yaml")
    given = parser.parse_args(arguments)
    try:
        print(compare(given.old, given.new), end="")
    except CortexflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
