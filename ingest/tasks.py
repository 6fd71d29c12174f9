"""What a Beam worker does: inspect a batch of images, or write one shard.

A task is a JSON file and its result another, renamed into place when whole. So a pipeline only
carries file names, a killed import continues where it stopped, no runner shuffles images, and
memory is that of one image whatever the size of the data. On a cluster, source and dataset lie on
a file system that all workers mount.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingest.atomic import sync_folder, write_text
from ingest.containers import RefusedImageError
from ingest.images import ImageLimits, NormalisedImage, Quarantined, read_image
from ingest.reading import read_sources
from ingest.records import Feature, encode_example, write_records
from ingest.selection import Inspected
from ingest.sources import SourceImage
from schema.errors import CortexflowError
from schema.features import (
    DEPTH,
    HEIGHT,
    IMAGE,
    LABEL,
    SITE,
    SLICE_INDEX,
    SOURCE_SHA256,
    SUBJECT_ID,
    WIDTH,
)


class SourceChangedError(CortexflowError):
    """A source file that is no longer what was inspected."""


def write_task(
    path: Path, target: Path, images: Sequence[Inspected], limits: ImageLimits, *, kind: str
) -> Path:
    """Writes a task of `kind` `inspect` or `shard` whose result is to lie at `target`."""
    document = {
        "kind": kind,
        "target": str(target),
        "limits": asdict(limits),
        "images": [asdict(image) for image in images],
    }
    write_text(path, json.dumps(document, sort_keys=True))
    return path


def run_task(path: str) -> str:
    """Does one task, unless its result is there already; returns where the result is."""
    task = json.loads(Path(path).read_bytes())
    target = Path(task["target"])
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        {"inspect": _inspect, "shard": _write_shard}[task["kind"]](task, draft)
        draft.replace(target)
        sync_folder(target.parent)
    return str(target)


def parse_inspected(row: dict[str, Any]) -> Inspected:
    """An `Inspected` from its JSON."""
    return Inspected(**{**row, "image": SourceImage(**row["image"]), "flags": tuple(row["flags"])})


def read_inspected(path: Path) -> Iterator[Inspected]:
    """Yields the results of an `inspect` task."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from (parse_inspected(json.loads(line)) for line in lines)


def _outcomes(
    task: dict[str, Any],
) -> Iterator[tuple[Inspected, NormalisedImage | Quarantined]]:
    limits = ImageLimits(**task["limits"])
    members = [parse_inspected(row) for row in task["images"]]
    by_name = {member.image.name: member for member in members}
    for image, outcome in read_sources([member.image for member in members], limits.max_bytes):
        yield (
            by_name[image.name],
            Quarantined(image.name, outcome.reason, outcome.detail)
            if isinstance(outcome, RefusedImageError)
            else read_image(outcome, image.name, limits),
        )


def _inspect(task: dict[str, Any], draft: Path) -> None:
    with gzip.open(draft, "wt", encoding="utf-8", compresslevel=1) as out:
        for member, result in _outcomes(task):
            if isinstance(result, Quarantined):
                row = Inspected(member.image, reason=result.reason, detail=result.detail)
            else:
                row = Inspected(
                    member.image,
                    result.source_sha256,
                    result.pixel_sha256,
                    len(result.source) if result.plain else result.pixels.nbytes // 2,
                    result.flags,
                )
            out.write(json.dumps(asdict(row), sort_keys=True) + "\n")


def _write_shard(task: dict[str, Any], draft: Path) -> None:
    write_records(draft, (_record(*pair) for pair in _outcomes(task)))


def _record(member: Inspected, result: NormalisedImage | Quarantined) -> bytes:
    if isinstance(result, Quarantined) or result.pixel_sha256 != member.pixel_sha256:
        raise SourceChangedError(
            f"{member.image.name} changed while it was imported. Import again when the source is "
            "still."
        )
    return encode_example(features_of(member.image, result))


def features_of(image: SourceImage, result: NormalisedImage) -> dict[str, Feature]:
    """The features of one example (`schema/features.py`); unknown ones are absent."""
    features: dict[str, Feature] = {
        IMAGE: result.data,
        LABEL: image.label,
        HEIGHT: result.height,
        WIDTH: result.width,
        DEPTH: result.depth,
        SOURCE_SHA256: result.source_sha256.encode(),
    }
    if image.subject_id is not None:
        features[SUBJECT_ID] = image.subject_id.encode()
    if image.slice_index is not None:
        features[SLICE_INDEX] = image.slice_index
    if image.site is not None:
        features[SITE] = image.site.encode()
    return features


def fingerprint(rows: Sequence[str]) -> str:
    """SHA-256 over lines, whatever their order, hex."""
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
