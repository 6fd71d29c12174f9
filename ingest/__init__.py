"""Images in → TFRecord spans with people, splits and a report. `import_dataset` is the one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.datasets import Dataset


def import_dataset(
    source: str | Path,
    out: str | Path,
    *,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    reproduce_shipped_split: bool = False,
    max_quarantined: float = 0.05,
    channels: int = 1,
    shards: int | None = None,
    beam_options: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
    **opening: Any,
) -> Dataset:
    """Imports images or TFRecords as a span of a dataset, unless they are one already.

    Args:
        source: folder of images or TFRecords, or a TFRecord file.
        out: the dataset's folder.
        val: fraction of people who validate; None takes the default of `SplitSettings`.
        test: fraction of people who test; likewise.
        seed: of the split.
        reproduce_shipped_split: keep the release's own split and stamp the dataset as leaked.
        max_quarantined: largest share of unusable files, 0 to 1.
        channels: 1 for greyscale, 3 for colour.
        shards: files per split; None decides by size.
        beam_options: Beam flags; default in this process.
        progress: called with (what, done, all).
        **opening: of `releases.open_source`: layout, subject_regex, subject_source, classes,
            unlabelled, site, name, deduplicate.

    Returns:
        The dataset, its newest span last.

    Raises:
        CortexflowError: what is wrong, what was received and what to do.
    """
    from ingest.datasets import read_dataset  # noqa: PLC0415
    from ingest.images import ImageLimits  # noqa: PLC0415
    from ingest.releases import open_source  # noqa: PLC0415
    from ingest.spans import ImportLimits, write_span  # noqa: PLC0415
    from ingest.splits import split_settings  # noqa: PLC0415

    write_span(
        open_source(source, **opening),
        Path(out),
        split=split_settings(val, test, seed, reproduce_shipped_split),
        limits=ImportLimits(ImageLimits(channels=3 if channels == 3 else 1), max_quarantined),
        shards=shards,
        beam_options=beam_options,
        progress=progress,
    )
    return read_dataset(out)
