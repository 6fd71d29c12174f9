"""Existing TFRecords with the predecessor's features → a listing.

`image`, `label`, `height`, `width` and `depth` are enough; `subject_id`, `slice_index` and `site`
are used where they are present, so that spans of ours can be imported again, unlabelled ones too.
"""

from pathlib import Path

from ingest.folders import PICTURES, SPLIT_NAMES, severity_of
from ingest.records import decode_example, read_records
from ingest.sources import SourceError, SourceImage, SourceListing
from schema.features import (
    ALZHEIMER_CLASSES,
    IMAGE,
    LABEL,
    SITE,
    SLICE_INDEX,
    SUBJECT_ID,
    UNLABELLED,
)


def find_record_files(path: Path) -> list[Path]:
    """TFRecord files at a path (by name: `*.tfrecord*`), sorted; empty when there are none."""
    if path.is_file():
        return [path] if ".tfrecord" in path.name else []
    return sorted(file for file in path.rglob("*.tfrecord*") if file.is_file())


def find_pictures(path: Path) -> list[str]:
    """Names of the images (by suffix) in a folder that are in no TFRecord, sorted."""
    if path.is_file():
        return []
    return sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.suffix.casefold() in PICTURES and not file.name.startswith(".")
    )


def list_records(
    path: Path, files: list[Path], classes: tuple[str, ...] | None, name: str
) -> SourceListing:
    """Reads labels and ids of all records; shipped splits are those of the file names.

    Label -1 is a record without label. Where every labelled record has a subject id a split is made
    by person; else shipped train and test are kept when each record's file name says its split.

    Args:
        path: the source.
        files: its TFRecord files.
        classes: class names in label order; None takes the four of the Alzheimer's set, whose
            alphabetical order is that of the predecessor's labels.
        name: of the dataset.

    Raises:
        SourceError: a record has no image or label, or a label without a class; or none is
            labelled.
        RecordError: a file is damaged.
    """
    names = classes or ALZHEIMER_CLASSES
    if list(names) != sorted(names):
        raise SourceError(f"Classes of records are in alphabetical order (received {names}).")
    images = [image for file in files for image in _images_of(path, file, names)]
    labelled = [image for image in images if image.label != UNLABELLED]
    if not labelled:
        raise SourceError(
            f"The TFRecord files of {path} hold no record with a label ({len(files)} files, "
            f"{len(images)} records)."
        )
    known = all(image.subject_id for image in labelled)
    shipped = {image.shipped_split for image in labelled}
    keep = not known and {"train", "test"} <= shipped and None not in shipped
    return SourceListing(
        name=name,
        layout="tfrecords",
        source=str(path),
        classes=tuple(names),
        severity=severity_of(tuple(names)),
        level="subject" if known else "slice",
        id_source="records" if known else None,
        images=tuple(images),
        evidence=(
            f"{len(files)} TFRecord files hold {len(images)} records, {len(labelled)} with a "
            f"label; labels 0 to {len(names) - 1} are {', '.join(names)}.",
            _people_and_split(known, keep, "val" in shipped),
        ),
        keep_shipped_split=keep,
    )


def _people_and_split(known: bool, keep: bool, has_val: bool) -> str:
    if known:
        return "Every labelled record has a subject id: a split is made by person."
    people = "The records have no subject ids: slice-level, which cannot be blessed."
    if not keep:
        return f"{people} The file names give no train and test, so a split is made."
    if has_val:
        return f"{people} The shipped train, val and test are kept."
    return f"{people} The shipped train and test are kept; validation is carved out of train."


def _images_of(root: Path, file: Path, classes: tuple[str, ...]) -> list[SourceImage]:
    relative = file.name if root.is_file() else file.relative_to(root).as_posix()
    places = [*file.relative_to(root).parts[:-1], file.name.split(".")[0]] if root != file else []
    split = next(
        (SPLIT_NAMES[p.casefold()] for p in reversed(places) if p.casefold() in SPLIT_NAMES), None
    )
    images = []
    for index, record in enumerate(read_records(file)):
        features = decode_example(record)
        label = features.get(LABEL, [])
        if not features.get(IMAGE) or len(label) != 1 or not isinstance(label[0], int):
            raise SourceError(
                f"Record {index} of {file} has no image or no single integer label (received "
                f"features: {', '.join(sorted(features)) or 'none'})."
            )
        if label[0] != UNLABELLED and not 0 <= label[0] < len(classes):
            raise SourceError(
                f"Record {index} of {file} has label {label[0]}, but there are {len(classes)} "
                f"classes ({', '.join(classes)}). Give each class name by --class, in label order."
            )
        images.append(
            SourceImage(
                path=str(file),
                name=f"{relative}#{index}",
                label=label[0],
                subject_id=_text(features.get(SUBJECT_ID, [])),
                slice_index=_number(features.get(SLICE_INDEX, [])),
                site=_text(features.get(SITE, [])),
                shipped_split=split,
                record=index,
            )
        )
    return images


def _text(values: list) -> str | None:  # type: ignore[type-arg]
    return values[0].decode("utf-8", "replace") or None if values else None


def _number(values: list) -> int | None:  # type: ignore[type-arg]
    return int(values[0]) if values else None
