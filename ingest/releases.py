"""Opening a source: which release it is, what it holds, who is in it, and the proof.

`open_source` is the one way in. It reads names, and pixels only where people must be recovered
from them; it writes nothing.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ingest import alzheimer, subjects
from ingest.folders import Tree, canonical_classes, natural_key, scan, severity_of
from ingest.reading import digests
from ingest.recordfiles import find_pictures, find_record_files, list_records
from ingest.sources import SourceError, SourceImage, SourceListing
from schema.features import UNLABELLED

Layout = Literal["auto", "folders", "tourist55", "sachinkumar413", "tumour", "tfrecords"]
SubjectSource = Literal["auto", "names", "order", "clusters", "none"]

LAYOUTS: tuple[Layout, ...] = (
    "auto",
    "folders",
    "tourist55",
    "sachinkumar413",
    "tumour",
    "tfrecords",
)
SUBJECT_SOURCES: tuple[SubjectSource, ...] = ("auto", "names", "order", "clusters", "none")

TUMOUR_CLASSES = {"glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"}


def open_source(
    path: str | Path,
    layout: Layout = "auto",
    *,
    subject_regex: str | None = None,
    subject_source: SubjectSource = "auto",
    classes: Sequence[str] | None = None,
    unlabelled: str | Path | None = None,
    site: str | None = None,
    name: str | None = None,
    deduplicate: bool = False,
) -> SourceListing:
    """Understands a folder of images, a public release or existing TFRecords.

    Args:
        path: a folder of class folders, of train and test folders of them, or of TFRecord files;
            or one TFRecord file. Wrapper folders are descended through.
        layout: how it is laid out; `auto` decides by names and counts and says why.
        subject_regex: its first group, searched in each path below the source, is the subject id;
            beside TFRecords it names the unlabelled images alone.
        subject_source: where subject ids come from: `names` (needs names that tell), `order` of
            the files, `clusters` of look-alike slices, `none` (slice-level); `auto` takes what the
            layout offers and never guesses for an unknown one.
        classes: the class folders to read, or of records the names in label order.
        unlabelled: a folder of further images without labels; the pattern that named the people
            of the others names theirs. Without an id they are of use to slice-level data alone.
        site: scanner or site of all images.
        name: of the dataset; default the folder's name.
        deduplicate: accept a re-upload whose train and test are the same, each image once.

    Raises:
        SourceError: what is wrong, what was found and what to do.
        RecordError: a TFRecord file is damaged.
    """
    source = Path(path).expanduser().absolute()
    if not source.exists():
        raise SourceError(f"There is nothing at {source}. Give a folder of images or of TFRecords.")
    _check_choice("layout", layout, LAYOUTS)
    _check_choice("subject_source", subject_source, SUBJECT_SOURCES)
    chosen = tuple(classes) if classes else None
    slug = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", source.name).strip("-.") or "dataset"

    files = find_record_files(source) if layout in ("auto", "tfrecords") else []
    if files:
        pictures = find_pictures(source)
        if pictures and layout == "auto":
            raise SourceError(
                f"{source} holds images and TFRecords: {len(pictures)} (first: {pictures[0]}) and "
                f"{len(files)} (first: {files[0]}). Choose by --layout folders (or the release's) "
                "or `cortexflow ingest tfrecords`, or move one kind elsewhere."
            )
        _refuse_for_records(
            {
                "--subject-regex": subject_regex is not None and unlabelled is None,
                "--subjects": subject_source != "auto",
                "--deduplicate": deduplicate,
            }
        )
        listing = replace(list_records(source, files, chosen, slug), ignored=tuple(pictures))
    elif source.is_file() or layout == "tfrecords":
        raise SourceError(f"{source} is no folder of images and holds no *.tfrecord* file.")
    else:
        listing = _open_folders(source, layout, chosen, slug, deduplicate)
        listing = _with_subjects(listing, subject_regex, subject_source)
    if unlabelled is not None:
        listing = _add_unlabelled(listing, Path(unlabelled), subject_regex)
    if site is not None:
        images = tuple(replace(image, site=image.site or site) for image in listing.images)
        listing = replace(listing, images=images)
    return listing


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SourceError(f"Unknown {what} {value!r}. Choose one of: {', '.join(choices)}.")


def _refuse_for_records(given: Mapping[str, bool]) -> None:
    options = [option for option, there in given.items() if there]
    if options:
        raise SourceError(
            f"{' and '.join(options)} cannot be used with TFRecords: their people are those of the "
            "feature subject_id, each record is taken once. Leave it out."
        )


def _open_folders(
    source: Path, layout: Layout, classes: tuple[str, ...] | None, name: str, deduplicate: bool
) -> SourceListing:
    alzheimer.refuse_augmented(source)
    tree = scan(source, classes)
    found = _recognise(tree)
    # A re-upload is sachinkumar413 twice; asked for by that name it is still recognised.
    twice = found == "reupload" and layout in ("auto", "sachinkumar413")
    listing = _list_folders(tree, found if twice or layout == "auto" else layout, name, source)
    if listing.layout in ("tourist55", "sachinkumar413", "reupload"):
        listing = listing.with_evidence(alzheimer.compare_counts(listing.counts()))
    if not tree.splits:
        return listing
    return _judge_shipped_split(listing, deduplicate)


def _recognise(tree: Tree) -> str:
    if {folder.name for folder in tree.folders} == TUMOUR_CLASSES and tree.splits:
        return "tumour"
    return alzheimer.recognise(tree) or "folders"


def _list_folders(tree: Tree, layout: str, name: str, source: Path) -> SourceListing:
    canonical = canonical_classes({folder.name for folder in tree.folders})
    classes = tuple(sorted(canonical.values()))
    images = [
        SourceImage(
            path=str(file),
            name=file.relative_to(tree.root).as_posix(),
            label=classes.index(canonical[folder.name]),
            shipped_split=folder.split,
        )
        for folder in tree.folders
        for file in folder.files
    ]
    images.sort(key=lambda image: natural_key(image.name))
    renamed = {old: new for old, new in canonical.items() if old != new}
    evidence = [f"Layout {layout}: {len(images)} files in {len(classes)} classes."]
    if renamed:
        evidence.append("Folders " + ", ".join(f"{a} = {b}" for a, b in sorted(renamed.items())))
    return SourceListing(
        name=name,
        layout=layout,
        source=str(source),
        classes=classes,
        severity=severity_of(classes),
        level="slice",
        images=tuple(images),
        evidence=tuple(evidence),
        ignored=tree.ignored,
    )


def _judge_shipped_split(listing: SourceListing, deduplicate: bool) -> SourceListing:
    """Reports exact copies across the shipped split; refuses one whose test is its training."""
    rows: dict[str, list[SourceImage]] = {}
    for image, digest in zip(listing.images, digests(listing.images), strict=True):
        rows.setdefault(digest, []).append(image)
    tests = Counter(image.shipped_split for image in listing.images)["test"]
    crossing = sum(
        sum(image.shipped_split == "test" for image in found)
        for found in rows.values()
        if any(image.shipped_split == "train" for image in found)
    )
    crossed = f"{crossing} of {tests} shipped test files are byte for byte in training"
    if not tests or crossing < tests:
        copies = len(listing.images) - len(rows)
        return listing.with_evidence(
            f"{crossed}; {copies} of {len(listing.images)} files are exact copies of another."
        )
    if not deduplicate:
        raise SourceError(
            f"The shipped test set is the training set: {crossed} (equal SHA-256). Any score on it "
            "is recall. Import with --deduplicate to take each image once and to split by person."
        )
    images = tuple(found[0] for found in rows.values())
    layout = "sachinkumar413" if listing.layout == "reupload" else listing.layout
    return replace(
        listing,
        layout=layout,
        images=tuple(replace(image, shipped_split=None) for image in images),
    ).with_evidence(f"{crossed}: a re-upload, each image taken once as {layout}.")


def _with_subjects(
    listing: SourceListing, regex: str | None, source: SubjectSource
) -> SourceListing:
    """Finds people as asked; `auto` prefers names, then the release's order, then likeness."""
    released = listing.layout in ("tourist55", "sachinkumar413")
    if regex and source not in ("auto", "names"):
        raise SourceError(
            f"--subject-regex takes people from names, --subjects {source} does not (received "
            f"'{regex}'). Give one of them."
        )
    if source == "none":
        return listing.with_evidence("Slice-level as asked: it cannot be blessed.")
    if regex or source == "names":
        pattern = regex or subjects.known_pattern(listing)
        if pattern is None:
            raise SourceError(
                "The names follow no known scheme (first: "
                f"{listing.images[0].name}). Give --subject-regex, its first group the subject id."
            )
        return subjects.from_names(listing, pattern)
    if source == "auto" and not released:
        pattern = subjects.known_pattern(listing)
        if pattern:
            return subjects.from_names(listing, pattern)
        return listing.with_evidence(
            "The names tell no people: slice-level, which cannot be blessed. Give --subject-regex, "
            "or --subjects clusters when slices are registered stacks."
        )
    vectors = None
    if source in ("auto", "order"):
        ordered = _ordered(listing)
        if ordered is not None:
            vectors = subjects.vectors_of(ordered[0])
            found = subjects.from_order(*ordered, vectors)
            if found is not None:
                return found
            listing = ordered[0]
        if source == "order":
            raise SourceError(
                "The file order gives no people: no reading of it puts look-alike slices together. "
                "Give --subject-regex or --subjects clusters."
            )
        listing = listing.with_evidence("The file order does not fit the release's arithmetic.")
    return subjects.from_clusters(
        listing, subjects.vectors_of(listing) if vectors is None else vectors
    )


def _ordered(
    listing: SourceListing,
) -> tuple[SourceListing, tuple[subjects.Arrangement, ...]] | None:
    if listing.layout == "tourist55":
        return listing, alzheimer.tourist_arrangements(listing)
    if listing.layout == "sachinkumar413":
        numbered = alzheimer.order_sachin(listing)
        return (numbered, subjects.released_order(numbered)) if numbered else None
    return listing, subjects.released_order(listing)


def _add_unlabelled(listing: SourceListing, folder: Path, regex: str | None) -> SourceListing:
    if not folder.is_dir():
        raise SourceError(f"--unlabelled is no folder: {folder}.")
    files = sorted(
        (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")),
        key=lambda file: natural_key(file.relative_to(folder).as_posix()),
    )
    if not files:
        raise SourceError(f"--unlabelled holds no files: {folder}.")
    extra = [
        SourceImage(
            path=str(file.absolute()), name=file.relative_to(folder).as_posix(), label=UNLABELLED
        )
        for file in files
    ]
    pattern = regex or listing.subject_pattern
    if pattern:
        compiled = subjects.compile_pattern(pattern)
        extra = [subjects.named(image, compiled) for image in extra]
    known = sum(image.subject_id is not None for image in extra)
    extra = [replace(image, name=f"unlabelled/{image.name}") for image in extra]
    sentence = f"{len(extra)} images without labels from {folder.name}/"
    if listing.level == "subject":
        sentence += f", {known} of them with a subject id; the others are not used"
    return replace(listing, images=listing.images + tuple(extra)).with_evidence(f"{sentence}.")
