"""Examples and spans as the columns that drift is looked for in (evaluation/columns.py). No TFX."""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from components.records import TEXTS, stream_columns
from evaluation.columns import Columns, joined
from ingest.datasets import Dataset
from schema import descriptors, features
from schema.errors import CortexflowError

KEYS = tuple(features.DESCRIPTOR_PREFIX + name for name in descriptors.NAMES)


def read_split(
    pattern: str | Sequence[str],
    split: str,
    span: str = "",
    *,
    described: bool,
    progress: Callable[[int], None] | None = None,
) -> Columns:
    """Reads the TFRecords of one split.

    Args:
        pattern: of the files, or the files; local or remote.
        split: its name.
        span: its name, "" where unknown.
        described: whether the examples carry `descriptor/*`, as ImageExampleGen's do; else each
            image is decoded and described here, by the same code.
        progress: called with the number of images of each batch.

    Raises:
        CortexflowError: no file matches, or one is damaged, or an image cannot be decoded.
    """
    wanted = (*TEXTS, features.LABEL, *(KEYS if described else (features.IMAGE,)))
    parts = []
    for batch in stream_columns(pattern, wanted):
        labels = batch[features.LABEL]
        parts.append(
            Columns(
                subjects=batch[features.SUBJECT_ID],
                labels=labels,
                sites=batch[features.SITE],
                sha256=batch[features.SOURCE_SHA256],
                splits=np.full(len(labels), split),
                spans=np.full(len(labels), span),
                described=dict(zip(descriptors.NAMES, (batch[key] for key in KEYS), strict=True))
                if described
                else _describe(batch[features.IMAGE], pattern),
            )
        )
        if progress is not None:
            progress(len(labels))
    return joined(parts)


def read_dataset(
    dataset: Dataset,
    wanted: Iterable[tuple[str, str]],
    progress: Callable[[int], None] | None = None,
) -> Columns:
    """Reads and describes parts of an imported dataset, each a (span, split); empty ones too."""
    return joined(
        [
            read_split(list(map(str, files)), split, span, described=False, progress=progress)
            for span, split in wanted
            if (files := dataset.files(split, span))
        ]
    )


def span_number(span: str) -> int:
    """3 of `span-3`: spans are ordered by number, not by name."""
    found = re.fullmatch(r"span-(\d+)", span)
    if found is None:
        raise CortexflowError(f"A span is called span-1, span-2, … (received {span!r}).")
    return int(found.group(1))


def _describe(encoded: np.ndarray, pattern: str | Sequence[str]) -> dict[str, np.ndarray]:
    try:
        return descriptors.describe([descriptors.decode(image) for image in encoded])
    except OSError as error:
        raise CortexflowError(
            f"An image of {pattern} cannot be decoded: {error}. Import the data anew."
        ) from error
