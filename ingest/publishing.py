"""Making a finished span part of its dataset, in an order that a kill cannot spoil."""

import fcntl
import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingest.atomic import sync_folder, write_json
from ingest.datasets import (
    DatasetError,
    DatasetInfo,
    ImportReport,
    read_dataset,
    read_report,
    span_names,
)
from ingest.selection import Earlier, EarlierImage
from ingest.sources import POSITIONAL, SourceListing
from ingest.splits import Split, SplitError, SplitSettings, SplitsFile, read_splits


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds a dataset for one import; the system frees it when the process dies.

    Raises:
        DatasetError: another import holds it.
    """
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DatasetError(
                f"Another import is writing to {out}. Wait for it, or give another folder."
            ) from error
        yield


@dataclass(frozen=True)
class Destination:
    """A dataset's folder and what a listing would make of it.

    Attributes:
        out: the dataset's folder.
        listing: what is imported.
        split: how people are divided.
        channels: 1 or 3.
    """

    out: Path
    listing: SourceListing
    split: SplitSettings
    channels: int

    def check_fit(self) -> None:
        """Compares the listing with the dataset that is there, if any.

        Raises:
            DatasetError: other classes, level, channels or kind of split.
            SplitError: other fractions or seed, or a damaged `splits.json`.
        """
        if not (self.out / "dataset.json").is_file():
            return
        dataset = read_dataset(self.out)
        info, splits = dataset.info, dataset.splits
        listing, leaked = self.listing, self.split.reproduce_shipped
        mine = (listing.classes, listing.level, self.channels, leaked)
        theirs = (info.classes, info.level, info.channels, info.leaked)
        if mine != theirs:
            raise DatasetError(
                f"The source does not fit the dataset in {self.out}: (classes, level, channels, "
                f"leaked) is {mine} here and {theirs} there. Give another folder."
            )
        asked = SplitsFile.of(self.split, {})
        if (splits.seed, splits.fractions) != (asked.seed, asked.fractions):
            raise SplitError(
                f"{self.out} was split with seed {splits.seed} and {splits.fractions}; asked for "
                f"are seed {asked.seed} and {asked.fractions}. People keep their split: use the "
                "same settings or another folder."
            )

    def check_growth(self) -> None:
        """Refuses a further span of people who have numbers instead of names.

        Ids from file order or likeness are numbered anew by each import: the same id would be
        somebody else, and people would change split.

        Raises:
            DatasetError: ids of the listing, or of the dataset that is there, are such.
        """
        if not span_names(self.out):
            return
        sources = {self.listing.id_source}
        if (self.out / "dataset.json").is_file():
            sources.add(read_dataset(self.out).info.id_source)
        positional = [source for source in POSITIONAL if source in sources]
        if positional:
            raise DatasetError(
                f"{self.out} cannot grow: subject ids from {' and '.join(positional)} are numbered "
                "anew by each import, so that people would change split. Import the whole source "
                "into a fresh dataset; one whose names tell people (--subject-regex) can grow."
            )

    def earlier(self) -> Earlier:
        """What earlier spans fix: who is in which split, and what their images are."""
        existing: dict[str, Split] = {}
        if (self.out / "splits.json").is_file():
            existing = read_splits(self.out / "splits.json").assignment
        images = []
        for name in span_names(self.out):
            with gzip.open(self.out / name / "manifest.jsonl.gz", "rt", encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    split = row["file"].split("/")[0]
                    images.append(
                        EarlierImage(row["pixel_sha256"], row["label"], row["subject_id"], split)
                    )
        return Earlier(existing, tuple(images))

    def place(self, report: ImportReport, assignment: dict[str, Split], work: Path) -> None:
        """Moves `work/span` into the dataset.

        Splits first, then the span, then `dataset.json`: after a kill in between, the same import
        finds what is missing and adds it.
        """
        report.write(work / "span" / "report.json")
        SplitsFile.of(self.split, assignment).write(self.out / "splits.json")
        (work / "span").replace(self.out / report.span)
        sync_folder(self.out)
        self.publish(report.span)
        shutil.rmtree(work)

    def publish(self, name: str) -> None:
        """Names a span in `dataset.json` and lists what it left out, where that is not yet done."""
        report = read_report(self.out / name)
        left_out = {
            "quarantined": [finding.model_dump() for finding in report.quarantined],
            "set_aside": [finding.model_dump() for finding in report.set_aside],
        }
        paths = self.out / "quarantine" / f"{name}.json"
        if any(left_out.values()) and not paths.is_file():
            write_json(paths, left_out)
        document = self.out / "dataset.json"
        spans = tuple(span_names(self.out))
        if document.is_file():
            info = DatasetInfo.model_validate_json(document.read_bytes())
            if info.spans == spans:
                return
            info = info.model_copy(update={"spans": spans})
        else:
            info = self._info(spans)
        write_json(document, info.model_dump())

    def _info(self, spans: tuple[str, ...]) -> DatasetInfo:
        listing = self.listing
        return DatasetInfo(
            name=listing.name,
            classes=listing.classes,
            severity=listing.severity,
            level=listing.level,
            channels=1 if self.channels == 1 else 3,
            importer=listing.layout,
            source=listing.source,
            leaked=self.split.reproduce_shipped,
            spans=spans,
            id_source=listing.id_source,
        )
