"""The public releases of the four-class Alzheimer set: telling them apart, and their file order.

Layouts, names and counts are those of the releases. All are the same 200 people.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ingest.correlation import read_vectors
from ingest.folders import Tree, canonical_classes, find_root, subfolders
from ingest.reading import digests, read_file
from ingest.sources import SourceError, SourceImage, SourceListing
from ingest.subjects import Arrangement
from schema.features import ALZHEIMER_CLASSES

# Mild, Moderate, Non, VeryMild: the order of ALZHEIMER_CLASSES.
RELEASE_COUNTS = dict(zip(ALZHEIMER_CLASSES, (896, 64, 3200, 2240), strict=True))
AUGMENTED_COUNTS = dict(zip(ALZHEIMER_CLASSES, (8960, 6464, 9600, 8960), strict=True))

_SACHIN = re.compile(r"(?:non|verymild|mild|moderate)(?:_(\d+))?", re.IGNORECASE)
_TOURIST_TRAIN = re.compile(r"(?:non|verymild|mild|moderate)dem[a-z]*?(\d+)", re.IGNORECASE)
_TOURIST_TEST = re.compile(r"(\d+)(?: \((\d+)\))?")
_MOST = 0.95  # of the names must follow a release's scheme


def _share(names: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(bool(pattern.fullmatch(name)) for name in names) / max(len(names), 1)


def recognise(tree: Tree) -> str | None:
    """Names the release that a tree is, by its names: `tourist55`, `sachinkumar413`, `reupload`.

    Returns:
        The release, or None when it is none of them.
    """
    names = {folder.name for folder in tree.folders}
    if not set(canonical_classes(names).values()) <= set(ALZHEIMER_CLASSES):
        return None
    if _share(tree.stems(), _SACHIN) >= _MOST:
        return "reupload" if tree.splits else "sachinkumar413"
    tourist = (
        tree.splits == {"train", "test"}
        and _share(tree.stems("train"), _TOURIST_TRAIN) >= _MOST
        and _share(tree.stems("test"), _TOURIST_TEST) >= _MOST
    )
    return "tourist55" if tourist else None


def compare_counts(counts: dict[str, int]) -> str:
    """One sentence on whether the counts are the release's."""
    shown = " / ".join(f"{name} {count}" for name, count in counts.items())
    if counts == RELEASE_COUNTS:
        return f"Counts are those of the full release: {shown}."
    return f"Counts differ from the full release (896 / 64 / 3200 / 2240): {shown}."


def refuse_augmented(path: Path) -> None:
    """Refuses an augmented derivative, with the evidence.

    Its augmented images are copies of the originals, mostly under random names, so neither people
    nor copies can be kept on one side of a split.

    Raises:
        SourceError: `path` is one.
    """
    root = find_root(path)
    folders = {folder.name.casefold(): folder for folder in subfolders(root)}
    augmented = next((f for name, f in folders.items() if name.startswith("augmented")), None)
    original = next((f for name, f in folders.items() if name.startswith("original")), None)
    counts = _class_counts(augmented or root)
    if augmented is None and counts != AUGMENTED_COUNTS:
        return
    evidence = [f"{(augmented or root).name} holds {sum(counts.values())} images: {counts}"]
    if counts == AUGMENTED_COUNTS:
        evidence.append("these are the counts of the augmented derivative 9600/8960/8960/6464")
    if original is not None:
        evidence += _copies(augmented or root, original)
    raise SourceError(
        "This is an augmented derivative: its images are altered copies of a few people's slices, "
        "so a model tested on it is tested on what it was trained on. Evidence: "
        + "; ".join(evidence)
        + ". Import the original release instead"
        + (f", with --subjects clusters: {original}." if original else " (6,400 images).")
    )


def _class_counts(folder: Path) -> dict[str, int]:
    places = subfolders(folder)
    names = canonical_classes({place.name for place in places})
    return dict(sorted((names[p.name], sum(1 for _ in p.iterdir())) for p in places))


def _copies(augmented: Path, original: Path, sample: int = 64) -> list[str]:
    """Counts augmented images that are originals, by bytes and by correlation, plain or mirrored.

    A sample, spread evenly, is compared with all originals; two people's slices correlate by .887
    on average, and hardly ever above .96.
    """
    sources, copies = _images_below(original), _images_below(augmented)
    if not sources or not copies:
        return []
    bytes_of_sources = set(digests(sources))
    same = sum(digest in bytes_of_sources for digest in digests(copies))
    picked = copies[:: -(-len(copies) // sample)]
    targets, _ = read_vectors(sources, lambda image: read_file(image.path))
    vectors, _ = read_vectors(picked, lambda image: read_file(image.path))
    mirrored = vectors.reshape(len(vectors), 64, 64)[:, :, ::-1].reshape(vectors.shape)
    best = np.maximum(vectors @ targets.T, mirrored @ targets.T).max(1)
    return [
        f"{same} of {len(copies)} files are byte for byte files of {original.name}",
        f"of {len(picked)} sampled, {int((best >= 0.9).sum())} correlate ≥ 0.9 with an original "
        f"as they are or mirrored (median {np.median(best):.3f})",
        f"{len(copies) / len(sources):.1f} augmented images per original",
    ]


def _images_below(folder: Path) -> list[SourceImage]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [SourceImage(str(file), file.name, -1) for file in files]


def order_sachin(listing: SourceListing) -> SourceListing | None:
    """Sorts sachinkumar413's images by number (`non.jpg` is 1); None if a number is missing."""
    matches = [_SACHIN.fullmatch(Path(image.path).stem) for image in listing.images]
    keys = [
        (image.label, int(match[1] or 1) if match else 0)
        for image, match in zip(listing.images, matches, strict=True)
    ]
    counts = enumerate(listing.counts().values())
    if sorted(keys) != [(label, n) for label, count in counts for n in range(1, count + 1)]:
        return None
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return replace(listing, images=tuple(listing.images[row] for row in order))


def tourist_arrangements(listing: SourceListing) -> tuple[Arrangement, ...]:
    """The slice-major orders that tourist55's names allow.

    Training files are numbered along the order. Test files say `SLICE (PERSON)`, where the bare
    `SLICE.jpg` is either the last person (natural sorting puts `26 (2)` before `26.jpg`, and the
    shipped cut agrees) or the first.
    """
    found = []
    for bare_last in (True, False):
        arrangement = _tourist_arrangement(listing, bare_last)
        if arrangement is not None:
            found.append(arrangement)
    return tuple(found)


def _tourist_arrangement(listing: SourceListing, bare_last: bool) -> Arrangement | None:
    tests = [
        _TOURIST_TEST.fullmatch(Path(image.path).stem)
        for image in listing.images
        if image.shipped_split == "test"
    ]
    slices = max((int(match[1]) for match in tests if match), default=0)
    classes = []
    for label, count in enumerate(listing.counts().values()):
        people = count // slices if slices else 0
        if not people or people * slices != count:
            return None
        rows = np.full(count, -1, np.int64)
        for row, image in enumerate(listing.images):
            if image.label != label:
                continue
            position = _tourist_position(image, people, bare_last)
            if position is None or not 0 <= position < count or rows[position] != -1:
                return None
            rows[position] = row
        classes.append(rows)
    where = "last" if bare_last else "first"
    return Arrangement(
        f"train numbers, then test names SLICE (PERSON), the bare SLICE {where}",
        tuple(classes),
        (slices,),
    )


def _tourist_position(image: SourceImage, people: int, bare_last: bool) -> int | None:
    stem = Path(image.path).stem
    if image.shipped_split == "train":
        match = _TOURIST_TRAIN.fullmatch(stem)
        return int(match[1]) if match else None
    match = _TOURIST_TEST.fullmatch(stem)
    if not match:
        return None
    person = int(match[2] or 1) - 1
    return (int(match[1]) - 1) * people + ((person - 1) % people if bare_last else person)
