"""What tells two versions apart, by what their manifests say."""

from collections.abc import Iterator, Mapping
from typing import Any

from registry.interface import Difference, Version


def between(a: Version, b: Version) -> Difference:
    """Compares the files, metrics and lineage of two versions, B against A."""
    before = {file.path: file.sha256 for file in a.files}
    after = {file.path: file.sha256 for file in b.files}
    return Difference(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(sorted(p for p in before.keys() & after.keys() if before[p] != after[p])),
        metrics=_changes(a.metrics, b.metrics),
        lineage=_changes(a.lineage, b.lineage),
    )


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted name → (value in A, value in B), of those that differ; None where one has none."""
    before, after = dict(_flat(a)), dict(_flat(b))
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
