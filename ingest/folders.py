"""Folders on disk → which images lie under which class and shipped split."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ingest.sources import SourceError
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xml", ".xls", ".xlsx", ".db", ".yaml", ".yml")
_NOTES = (".txt", ".md", ".rst", ".html", ".pdf", ".ini", ".log", ".py", ".ipynb")
SIDECARS = frozenset(_TABLES + _NOTES)
PICTURES = frozenset((".jpg", ".jpeg", ".png"))

_STAGES = {
    "non": "NonDemented",
    "verymild": "VeryMildDemented",
    "mild": "MildDemented",
    "moderate": "ModerateDemented",
}


@dataclass(frozen=True)
class ClassFolder:
    """One class folder: `files` are sorted in natural order (2 before 10), everything below it."""

    name: str
    split: str | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Tree:
    """A source folder understood as class folders, perhaps within shipped splits."""

    root: Path
    folders: tuple[ClassFolder, ...]
    ignored: tuple[str, ...]

    @property
    def splits(self) -> set[str]:
        """The shipped splits, empty when there are none."""
        return {folder.split for folder in self.folders if folder.split}

    def stems(self, split: str | None = None) -> list[str]:
        """File names without suffix, of one split or of all."""
        return [
            file.stem
            for folder in self.folders
            for file in folder.files
            if split is None or folder.split == split
        ]


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Sort key under which `a2` comes before `a10`."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", text.casefold())
        if part
    ]


def subfolders(path: Path) -> list[Path]:
    """Folders in a folder, hidden ones and archive leftovers left out, in natural order."""
    return sorted(
        (
            entry
            for entry in path.iterdir()
            if entry.is_dir()
            and not entry.is_symlink()
            and not entry.name.startswith((".", "__MACOSX"))
        ),
        key=lambda entry: natural_key(entry.name),
    )


def find_root(path: Path) -> Path:
    """Descends through wrapper folders (`Dataset/`) to the one that holds classes or splits."""
    while True:
        inner = subfolders(path)
        if len(inner) != 1 or not subfolders(inner[0]) or _pictures_in(path):
            return path
        path = inner[0]


def scan(path: Path, classes: tuple[str, ...] | None = None) -> Tree:
    """Finds class folders, directly or within train/test folders.

    Args:
        path: the source folder.
        classes: names of the class folders to read; None for all.

    Raises:
        SourceError: no class folders, an empty class, pictures outside any class.
    """
    root = find_root(path)
    children = subfolders(root)
    loose = _pictures_in(root)
    if not children:
        found = f"{len(loose)} images and no folders" if loose else "nothing"
        raise SourceError(
            f"No class folders in {root} (found {found}). Put each class's images in a folder "
            "named after the class, or give images without labels by --unlabelled."
        )
    if loose:
        raise SourceError(
            f"{len(loose)} images lie beside the class folders of {root} (first: {loose[0]}), so "
            "their class is unknown. Move them into a class folder or elsewhere."
        )
    ignored: list[str] = []
    shipped = all(child.name.casefold() in SPLIT_NAMES for child in children)
    places = (
        [(SPLIT_NAMES[c.name.casefold()], inner) for c in children for inner in subfolders(c)]
        if shipped
        else [(None, child) for child in children]
    )
    folders = tuple(
        ClassFolder(place.name, split, _files(place, root, ignored))
        for split, place in places
        if classes is None or place.name in classes
    )
    _check_classes(root, folders, classes)
    return Tree(root, folders, tuple(sorted(ignored)))


def _pictures_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.suffix.casefold() in PICTURES)


def _files(place: Path, root: Path, ignored: list[str]) -> tuple[Path, ...]:
    found = []
    for folder, inner, names in os.walk(place):
        inner.sort()
        for name in names:
            file = Path(folder, name)
            hidden = name.startswith(".") or name.casefold() == "thumbs.db"
            if hidden or file.suffix.casefold() in SIDECARS:
                ignored.append(file.relative_to(root).as_posix())
            else:
                found.append(file)
    return tuple(sorted(found, key=lambda file: natural_key(file.relative_to(root).as_posix())))


def _check_classes(
    root: Path, folders: tuple[ClassFolder, ...], classes: tuple[str, ...] | None
) -> None:
    totals: dict[str, int] = dict.fromkeys(classes or (), 0)
    for folder in folders:
        totals[folder.name] = totals.get(folder.name, 0) + len(folder.files)
    empty = sorted(name for name, total in totals.items() if not total)
    if not totals:
        raise SourceError(f"No class folders in {root}: its train and test folders hold no folder.")
    if empty:
        raise SourceError(
            f"Class {', '.join(empty)} holds 0 files in {root} (received: {totals}). Add its "
            "images, or remove the folder or name so that it is no class."
        )
    if len(totals) < 2:
        raise SourceError(
            f"Only one class in {root}: {', '.join(totals)}. A classifier needs two or more; "
            "give images without labels by --unlabelled."
        )


def canonical_classes(names: set[str]) -> dict[str, str]:
    """Folder name → class name: `Very_Mild_Demented`, `very mild dementia` → `VeryMildDemented`.

    Names stay as they are unless every one is a stage of dementia.

    Raises:
        SourceError: two folders mean the same class.
    """
    stages = {name: _stage(name) for name in names}
    if any(stage is None for stage in stages.values()):
        return {name: name for name in names}
    if len(set(stages.values())) < len(names):
        raise SourceError(
            f"Two class folders mean the same class (received: {', '.join(sorted(names))}). Merge "
            "or rename them."
        )
    return {name: stage for name, stage in stages.items() if stage}


def _stage(name: str) -> str | None:
    letters = re.sub(r"[^a-z]", "", name.casefold())
    match = re.fullmatch(r"(non|verymild|mild|moderate)(demented|dementia|dem)", letters)
    return _STAGES[match[1]] if match else None


def severity_of(classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The classes from healthy to ill when they are stages of dementia, else None."""
    if not set(classes) <= set(ALZHEIMER_CLASSES):
        return None
    return tuple(name for name in ALZHEIMER_SEVERITY if name in classes)
