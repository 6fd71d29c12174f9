"""The dataset of a run as its report shows it: from the imported dataset, or from what was seen."""

import contextlib
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.report import evidence as report
from components.report.collecting import Tables
from evaluation.predictions import SplitTable
from ingest.datasets import Dataset, read_dataset
from schema import places

DOCUMENTS = ("dataset.json", "splits.json")


def described(found: Dataset) -> report.Dataset:
    """What an imported dataset says of itself."""
    imported = found.report()
    by_subject = found.info.level == "subject"
    return report.Dataset(
        name=found.info.name,
        classes=found.info.classes,
        severity=found.info.severity,
        level=found.info.level,
        leaked=found.info.leaked,
        counts={
            split: {
                name: report.Count(tally.images, tally.subjects if by_subject else None)
                for name, tally in classes.items()
            }
            for split, classes in imported.counts.items()
        },
        quarantined=len(imported.quarantined),
        quarantine_reasons=dict(Counter(item.reason for item in imported.quarantined)),
        importer=found.info.importer,
        id_source=found.info.id_source,
    )


def counted(tables: Tables | None, facts: Mapping[str, Any], name: str) -> report.Dataset:
    """What can be said of a dataset that is out of reach.

    Args:
        tables: split → images, where a model was judged.
        facts: classes, severity and leaked, for which the pipeline was compiled.
        name: how to call it.
    """
    classes = tuple(facts["classes"])
    known = [table for table in (tables or {}).values() if len(table.labels)]
    by_slice = any(table.subjects is None for table in known)
    return report.Dataset(
        name=name,
        classes=classes,
        severity=tuple(facts["severity"]) if facts.get("severity") else None,
        level="slice" if by_slice else "subject",
        leaked=bool(facts.get("leaked")),
        counts={split: _counts(table, classes) for split, table in (tables or {}).items()},
        quarantined=None,
    )


def _counts(table: SplitTable, classes: tuple[str, ...]) -> dict[str, report.Count]:
    found = {}
    for label, name in enumerate(classes):
        rows = table.labels == label
        people = None if table.subjects is None else len(np.unique(table.subjects[rows]))
        found[name] = report.Count(int(rows.sum()), people)
    return found


@contextlib.contextmanager
def documents(address: str) -> Iterator[Dataset]:
    """A dataset without its images: its documents alone, copied from an address.

    Raises:
        DatasetError: it is no dataset.
        SplitError: its split is missing, or was changed.
        OSError: the address cannot be read.
    """
    if not places.is_remote(address):
        yield read_dataset(address)
        return
    with tempfile.TemporaryDirectory(prefix="cortexflow-dataset-") as scratch:
        spans = [name for name in places.listed(address) if name.startswith("span-")]
        for name in (*DOCUMENTS, *(f"{span}/report.json" for span in spans)):
            with contextlib.suppress(FileNotFoundError):  # who reads it says what is missing
                places.copy_file(places.below(address, name), str(Path(scratch) / name))
        yield read_dataset(scratch)


def lineage(
    config: Mapping[str, Any], dataset: Dataset | None, weights: str | None
) -> dict[str, str]:
    """Digests of what a run was made from and of what it made.

    Args:
        config: the settings as plain data.
        dataset: the imported dataset.
        weights: SHA-256 of the student's weights.
    """
    settings = json.dumps(config, sort_keys=True).encode()
    found = {"settings (SHA-256)": hashlib.sha256(settings).hexdigest()}
    if dataset is not None:
        found["split by person (SHA-256)"] = dataset.splits.sha256
        for span in dataset.info.spans:
            found[f"images of {span} (fingerprint)"] = dataset.report(span).fingerprint
    if weights is not None:
        found["student's weights (SHA-256)"] = weights
    return found
