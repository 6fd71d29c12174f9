"""What must be known of a dataset before a pipeline over it can be built."""

import dataclasses
import hashlib
import json
from pathlib import Path

from ingest.datasets import Dataset, read_dataset
from schema.errors import CortexflowError
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY, SPLITS, UNLABELLED_SPLIT


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts of a dataset that decide the form of a pipeline; those of the phantom, if not given.

    Attributes:
        classes: class names by label.
        severity: class names from least to most severe, or None.
        splits: splits that have images, `train`, `val` and `test` among them.
        leaked: the split is known to share subjects.
    """

    classes: tuple[str, ...] = ALZHEIMER_CLASSES
    severity: tuple[str, ...] | None = ALZHEIMER_SEVERITY
    splits: tuple[str, ...] = SPLITS
    leaked: bool = False

    def to_json(self) -> str:
        """JSON with sorted keys: equal facts, equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def read_facts(dataset: Path, *, latest: bool = False) -> Facts:
    """Reads the facts of an imported dataset, of its newest span alone if `latest`.

    Raises:
        CortexflowError: it is no dataset, or a split that every pipeline needs is empty.
    """
    found = read_dataset(dataset)
    span = found.latest_span if latest else None
    splits = tuple(s for s in (*SPLITS, UNLABELLED_SPLIT) if found.files(s, span))
    empty = [split for split in SPLITS if split not in splits]
    if empty:
        raise CortexflowError(
            f"Nobody is in the split(s) {', '.join(empty)} of {dataset}: a model is trained, "
            "chosen and judged on different people. Import more people, or set data.spans=all."
        )
    return Facts(found.info.classes, found.info.severity, splits, found.info.leaked)


def fingerprint(dataset: Dataset) -> str:
    """Hash of names, sizes and times of all records: what a cache must know of the data.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(dataset.path.glob("span-*/*/data-*")):
        stat = path.stat()
        told = f"{path.relative_to(dataset.path)} {stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(told.encode())
    return digest.hexdigest()[:16]
