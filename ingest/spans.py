"""Writing a span: inspect, decide, write, rename.

    digests ─▶ the same input already a span? ─▶ inspect (Beam) ─▶ select ─▶ shards (Beam) ─▶ rename

Everything happens in a folder beside the span's final place, named after the input's fingerprint:
an import killed at any moment continues there, and gives the same bytes.
"""

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

from ingest.atomic import write_text
from ingest.beam import run_tasks
from ingest.datasets import DatasetError, ImportReport, read_report, span_names
from ingest.images import ImageLimits
from ingest.publishing import Destination, locked
from ingest.reading import digests
from ingest.selection import Inspected, Selection, select, shard, without_path
from ingest.sources import SourceListing
from ingest.splits import SplitSettings
from ingest.tasks import fingerprint, read_inspected, write_task
from schema.errors import CortexflowError

BATCH = 512
FORMAT = 1  # raised when the same input must give other bytes

Progress = Callable[[str, int, int], None]


class QuarantineError(CortexflowError):
    """Too many files are unusable; the report says which."""


@dataclass(frozen=True)
class ImportLimits:
    """What an import accepts.

    Attributes:
        image: what one image may be.
        max_quarantined: largest share of unusable images, 0 to 1.
    """

    image: ImageLimits = field(default_factory=ImageLimits)
    max_quarantined: float = 0.05


@dataclass(frozen=True)
class _Workshop:
    """Where and how the heavy work is done."""

    work: Path
    limits: ImageLimits
    beam_options: Sequence[str]
    progress: Progress | None

    def run(self, what: str, tasks: Sequence[Path], targets: Sequence[Path]) -> None:
        progress = self.progress
        counted = (lambda done, total: progress(what, done, total)) if progress else None
        run_tasks(tasks, targets, self.beam_options, counted)


def write_span(
    listing: SourceListing,
    out: Path,
    *,
    split: SplitSettings | None = None,
    limits: ImportLimits | None = None,
    shards: int | None = None,
    beam_options: Sequence[str] = (),
    progress: Progress | None = None,
) -> ImportReport:
    """Imports a listing into a dataset as its next span.

    Idempotent: input that is a span already is found by its fingerprint, and nothing is written.
    Images that an earlier span holds are set aside, so a grown source gives a span of what is new.

    Args:
        listing: from `releases.open_source`.
        out: the dataset's folder; made when absent.
        split: how people are divided.
        limits: what is accepted.
        shards: files per split; None takes one per 1,024 images or 64 MiB.
        beam_options: Beam flags; the default runs in this process.
        progress: called with (what, done, all).

    Returns:
        The span's report.

    Raises:
        QuarantineError: too many files are unusable; nothing is imported, the report is kept.
        DatasetError: the span does not fit the dataset, holds nothing new, or would be the second
            of people known by file order or likeness alone.
        SplitError: the dataset was split with other settings.
    """
    split, limits = split or SplitSettings(), limits or ImportLimits()
    out = Path(out).expanduser().absolute()
    if Path(listing.source) in (out, *out.parents):
        raise DatasetError(
            f"The dataset's folder {out} lies within its source {listing.source}, so that the "
            "next import would read it. Give a folder elsewhere."
        )
    out.mkdir(parents=True, exist_ok=True)
    destination = Destination(out, listing, split, limits.image.channels)
    with locked(out):
        identity = _identity(listing, limits.image)
        work = out / f".import-{identity[:16]}"
        destination.check_fit()
        for name in span_names(out):
            report = read_report(out / name)
            if report.fingerprint == identity:
                destination.publish(name)
                shutil.rmtree(work, ignore_errors=True)
                return report
        destination.check_growth()
        workshop = _Workshop(work, limits.image, beam_options, progress)
        inspected = _inspect(listing, workshop)
        chosen = select(listing, inspected, split, destination.earlier())
        name = f"span-{len(span_names(out)) + 1}"
        report = _report(listing, inspected, chosen, name, identity)
        try:
            _check_usable(report, out, limits.max_quarantined)
        except CortexflowError:
            shutil.rmtree(work)
            raise
        _write_shards(chosen, workshop, shards, split.seed)
        destination.place(report, chosen.assignment, work)
        return report


def _identity(listing: SourceListing, limits: ImageLimits) -> str:
    head = [FORMAT, listing.classes, listing.level, listing.layout, asdict(limits)]
    rows = (
        json.dumps([digest, asdict(without_path(image))], sort_keys=True)
        for digest, image in zip(digests(listing.images), listing.images, strict=True)
    )
    return fingerprint([json.dumps(head, sort_keys=True), *rows])


def _inspect(listing: SourceListing, workshop: _Workshop) -> list[Inspected]:
    tasks: list[Path] = []
    targets: list[Path] = []
    for _, group in groupby(listing.images, key=lambda i: i.path if i.record is not None else ""):
        members = list(group)
        # A TFRecord file is read front to back by one worker; files are shared out in batches.
        step = BATCH if members[0].record is None else len(members)
        for start in range(0, len(members), step):
            batch = [Inspected(image) for image in members[start : start + step]]
            number = f"{len(tasks):05d}"
            targets.append(workshop.work / "inspected" / f"{number}.jsonl.gz")
            task = workshop.work / "tasks" / f"inspect-{number}.json"
            tasks.append(write_task(task, targets[-1], batch, workshop.limits, kind="inspect"))
    workshop.run("inspecting", tasks, targets)
    return [row for target in targets for row in read_inspected(target)]


def _report(
    listing: SourceListing,
    inspected: Sequence[Inspected],
    chosen: Selection,
    name: str,
    identity: str,
) -> ImportReport:
    used = [member for members in chosen.splits.values() for member in members]
    return ImportReport(
        span=name,
        fingerprint=identity,
        layout=listing.layout,
        source=listing.source,
        evidence=listing.evidence,
        received=len(inspected),
        counts=chosen.tally(listing.classes),
        quarantined=tuple(chosen.quarantined),
        set_aside=tuple(chosen.set_aside),
        ignored=listing.ignored,
        flags=dict(Counter(flag for member in used for flag in member.flags)),
        warnings=tuple(chosen.warnings),
    )


def _check_usable(report: ImportReport, out: Path, most: float) -> None:
    kept = out / "quarantine" / f"refused-{report.fingerprint[:16]}.json"
    share = len(report.quarantined) / max(report.received, 1)
    if share > most:
        report.write(kept)
        reasons = Counter(finding.reason for finding in report.quarantined).most_common(3)
        raise QuarantineError(
            f"{len(report.quarantined)} of {report.received} files ({share:.1%}) are unusable, "
            f"more than {most:.1%}: {', '.join(f'{n}× {reason}' for reason, n in reasons)}. See "
            f"{kept}; mend the files or raise --max-quarantined."
        )
    totals: Counter[str] = Counter()
    for classes in report.counts.values():
        totals.update({name: tally.images for name, tally in classes.items()})
    if not any(totals.values()):
        raise DatasetError(
            f"Nothing new: all {report.received} images are in earlier spans of {out} or set "
            "aside. To import them with other settings, give another folder."
        )
    empty = sorted(name for name, total in totals.items() if not total)
    if empty and report.span == "span-1":
        report.write(kept)
        raise DatasetError(
            f"Class {', '.join(empty)} has no usable image (usable: {dict(totals)}). See {kept}."
        )


def _write_shards(chosen: Selection, workshop: _Workshop, shards: int | None, seed: int) -> None:
    span = workshop.work / "span"
    pieces = {
        f"{split}/data-{index:05d}-of-{len(found):05d}.tfrecord.gz": piece
        for split, members in chosen.splits.items()
        for found in [shard(members, shards, seed)]
        for index, piece in enumerate(found)
    }
    rows = [
        json.dumps(_manifest_row(member, name), sort_keys=True)
        for name, piece in pieces.items()
        for member in piece
    ]
    plan = fingerprint(rows)
    note = workshop.work / "plan.sha256"
    if not note.is_file() or note.read_text() != plan:
        shutil.rmtree(span, ignore_errors=True)  # shards of a killed import with another plan
        write_text(note, plan)
    tasks: list[Path] = []
    for name, piece in pieces.items():
        task = workshop.work / "tasks" / f"shard-{len(tasks):05d}.json"
        tasks.append(write_task(task, span / name, piece, workshop.limits, kind="shard"))
    workshop.run("writing", tasks, [span / name for name in pieces])
    for half in span.rglob(".data-*"):
        half.unlink()
    _write_manifest(span / "manifest.jsonl.gz", sorted(rows))


def _write_manifest(path: Path, rows: Sequence[str]) -> None:
    with (
        open(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as out,
    ):
        out.write("".join(f"{row}\n" for row in rows).encode())


def _manifest_row(member: Inspected, file: str) -> dict[str, object]:
    row = asdict(without_path(member.image))
    row.update(
        file=file,
        source_sha256=member.source_sha256,
        pixel_sha256=member.pixel_sha256,
        flags=list(member.flags),
    )
    del row["path"], row["record"]
    return row
