"""A dataset on disk, as docs/architecture.md lays it out: reading it, and its documents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ingest.atomic import write_json
from ingest.sources import IdSource
from ingest.splits import SplitsFile, read_splits
from schema.errors import CortexflowError
from schema.features import SPLITS, UNLABELLED_SPLIT


class DatasetError(CortexflowError):
    """A folder that is no dataset, or a span that does not fit its dataset."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetInfo(_Document):
    """`dataset.json`. `spans` are in order of import; `leaked` marks a shipped, leaking split.

    `id_source` says what named the people; None when slice-level, or not recorded.
    """

    name: str
    classes: tuple[str, ...]
    severity: tuple[str, ...] | None
    level: Literal["subject", "slice"]
    channels: Literal[1, 3]
    importer: str
    source: str
    leaked: bool
    spans: tuple[str, ...]
    id_source: IdSource | None = None


class Finding(_Document):
    """A file that is not in the span: its name in the source, the reason code, and details."""

    path: str
    reason: str
    detail: str


class Tally(_Document):
    """How many images, and of how many people (0 when unknown)."""

    images: int
    subjects: int


class ImportReport(_Document):
    """`span-N/report.json`: what became of every file of a source.

    Attributes:
        span: its name.
        fingerprint: digest of the input: equal input, equal span.
        layout: the importer.
        source: where it came from.
        evidence: how the source was understood.
        received: number of images offered.
        counts: split → class → tally.
        quarantined: unusable files; their share is limited.
        set_aside: sound images left out on purpose (copies, held-out people).
        ignored: files that are no images by their kind.
        flags: what was done to images → how many.
        warnings: what limits the use of the data.
    """

    span: str
    fingerprint: str
    layout: str
    source: str
    evidence: tuple[str, ...]
    received: int
    counts: dict[str, dict[str, Tally]]
    quarantined: tuple[Finding, ...] = ()
    set_aside: tuple[Finding, ...] = ()
    ignored: tuple[str, ...] = ()
    flags: dict[str, int] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Writes the report as JSON."""
        write_json(path, self.model_dump())


@dataclass(frozen=True)
class Dataset:
    """A dataset that was imported.

    Attributes:
        path: its folder.
        info: `dataset.json`.
        splits: `splits.json`.
    """

    path: Path
    info: DatasetInfo
    splits: SplitsFile

    @property
    def latest_span(self) -> str:
        """Name of the newest span, e.g. `span-2`."""
        return self.info.spans[-1]

    def files(self, split: str, span: str | None = None) -> tuple[Path, ...]:
        """TFRecord files of a split, in one span or in all, sorted."""
        spans = self.info.spans if span is None else (span,)
        return tuple(
            file for name in spans for file in sorted((self.path / name / split).glob("data-*.gz"))
        )

    def patterns(self, span: str | None = None) -> dict[str, str]:
        """Split → file pattern, relative to the dataset, of one span (default: the newest)."""
        chosen = span or self.latest_span
        return {
            split: f"{chosen}/{split}/data-*.tfrecord.gz"
            for split in (*SPLITS, UNLABELLED_SPLIT)
            if self.files(split, chosen)
        }

    def report(self, span: str | None = None) -> ImportReport:
        """The report of a span (default: the newest)."""
        return read_report(self.path / (span or self.latest_span))


def read_report(span: Path) -> ImportReport:
    """Reads a span's report.

    Raises:
        DatasetError: it is missing or malformed.
    """
    try:
        return ImportReport.model_validate_json((span / "report.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{span} has no valid report.json: {error}. Import it anew.") from error


def read_dataset(path: str | Path) -> Dataset:
    """Opens a dataset.

    Raises:
        DatasetError: no valid `dataset.json`, or a span it names is missing.
        SplitError: `splits.json` is missing or was changed.
    """
    folder = Path(path).expanduser().absolute()
    try:
        info = DatasetInfo.model_validate_json((folder / "dataset.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{folder} is no imported dataset: {error}. Import images by `cortexflow ingest images "
            f"SOURCE {folder}`."
        ) from error
    missing = [span for span in info.spans if not (folder / span / "report.json").is_file()]
    if missing or not info.spans:
        raise DatasetError(
            f"{folder} lacks {', '.join(missing) or 'any span'}. Restore it or import anew."
        )
    return Dataset(folder, info, read_splits(folder / "splits.json"))


def span_names(path: Path) -> list[str]:
    """Names of the spans that lie in a dataset's folder, in order."""
    found = [
        entry.name
        for entry in path.glob("span-*")
        if entry.name[5:].isdigit() and (entry / "report.json").is_file()
    ]
    return sorted(found, key=lambda name: int(name[5:]))
