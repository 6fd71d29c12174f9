"""From inspected images to what goes where: pure decisions, no files.

Order of business: quarantine what is unusable, set aside what must not be used, assign people to
splits, assign images to shards.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

from ingest.datasets import Finding, Tally
from ingest.sources import SourceImage, SourceListing
from ingest.splits import Split, SplitSettings, assign
from schema.features import SPLITS, UNLABELLED, UNLABELLED_SPLIT

SHARD_IMAGES = 1024
SHARD_BYTES = 64 * 1024 * 1024
LATE_LABEL = "label_came_later"
NO_SUBJECT = "no_subject_id"


@dataclass(frozen=True)
class Inspected:
    """One image after its inspection; `reason` is set when it is unusable.

    `size` is about that of the encoded image that will be written, bytes.
    """

    image: SourceImage
    source_sha256: str = ""
    pixel_sha256: str = ""
    size: int = 0
    flags: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""

    def finding(self, reason: str = "", detail: str = "") -> Finding:
        """This image as a line of the report."""
        return Finding(
            path=self.image.name, reason=reason or self.reason, detail=detail or self.detail
        )


class EarlierImage(NamedTuple):
    """An image of an earlier span: its pixels' hash, label (-1: none), person and split."""

    pixel_sha256: str
    label: int
    subject_id: str | None
    split: str


@dataclass(frozen=True)
class Earlier:
    """What earlier spans fix.

    Attributes:
        assignment: person → split; they keep it.
        images: all images of earlier spans.
    """

    assignment: Mapping[str, Split] = field(default_factory=dict)
    images: tuple[EarlierImage, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What a span will hold.

    Attributes:
        splits: split → images, in the order of the listing.
        assignment: person → split, earlier spans' included. Who is known by unlabelled images
            alone is in train for good, because pretraining has seen them.
        quarantined: unusable images.
        set_aside: sound images that must not be used.
        warnings: what limits the use of the data.
    """

    splits: dict[str, list[Inspected]]
    assignment: dict[str, Split]
    quarantined: list[Finding] = field(default_factory=list)
    set_aside: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def tally(self, classes: Sequence[str]) -> dict[str, dict[str, Tally]]:
        """Images and people per split and class, zeros included."""
        return {
            split: _tally(members, [UNLABELLED_SPLIT] if split == UNLABELLED_SPLIT else classes)
            for split, members in self.splits.items()
        }


def _tally(members: Sequence[Inspected], classes: Sequence[str]) -> dict[str, Tally]:
    images: Counter[str] = Counter()
    people: dict[str, set[str]] = defaultdict(set)
    for member in members:
        name = classes[max(member.image.label, 0)]
        images[name] += 1
        if member.image.subject_id:
            people[name].add(member.image.subject_id)
    return {name: Tally(images=images[name], subjects=len(people[name])) for name in classes}


def select(
    listing: SourceListing,
    inspected: Sequence[Inspected],
    settings: SplitSettings,
    earlier: Earlier,
) -> Selection:
    """Decides which images are used, and in which split.

    Args:
        listing: the source.
        inspected: all its images, inspected, in the listing's order.
        settings: of the split.
        earlier: spans that are there: people keep their split, images are not used again, and
            the fractions are of the people of all spans.

    Returns:
        The selection. Images of equal pixels are used once, unless the shipped split is to be
        reproduced as it is; under contradicting labels none is, because nobody knows which is
        right. An image that an earlier span holds without a label stays without it.
    """
    quarantined, usable = _quarantine(listing, inspected)
    set_aside: list[Finding] = []
    if not settings.reproduce_shipped:
        known = {image.pixel_sha256: image.label for image in earlier.images}
        usable, set_aside = _drop_copies(usable, known, quarantined)
    labelled = [member for member in usable if member.image.label != UNLABELLED]
    extra = [member for member in usable if member.image.label == UNLABELLED]
    by_split, assignment = _divide(listing, labelled, settings, earlier)
    kept = []
    for member in extra:
        split = assignment.get(member.image.subject_id or "")
        if split in ("val", "test"):
            set_aside.append(
                member.finding("held_out_subject", f"Its person is in {split}: pretraining leaks.")
            )
        elif listing.level == "subject" and not member.image.subject_id:
            set_aside.append(
                member.finding(NO_SUBJECT, "Its person may be in val or test: pretraining leaks.")
            )
        else:
            kept.append(member)
    if listing.level == "subject" and not settings.reproduce_shipped:
        named = [member.image.subject_id for member in kept]
        assignment.update({subject: "train" for subject in named if subject})
    if kept:
        by_split[UNLABELLED_SPLIT] = kept
    selection = Selection(by_split, assignment, quarantined, set_aside)
    selection.warnings.extend(_warnings(listing, selection))
    return selection


def _quarantine(
    listing: SourceListing, inspected: Sequence[Inspected]
) -> tuple[list[Finding], list[Inspected]]:
    quarantined, usable = [], []
    for member in inspected:
        nameless = (
            listing.level == "subject"
            and member.image.label != UNLABELLED
            and not member.image.subject_id
        )
        if member.reason:
            quarantined.append(member.finding())
        elif nameless:
            quarantined.append(member.finding(NO_SUBJECT, "Its name gives no subject id."))
        else:
            usable.append(member)
    return quarantined, usable


def _drop_copies(
    usable: Sequence[Inspected], known: Mapping[str, int], quarantined: list[Finding]
) -> tuple[list[Inspected], list[Finding]]:
    """Keeps one image of equal pixels: labelled before unlabelled, shipped test before the rest."""
    groups: dict[str, list[Inspected]] = defaultdict(list)
    for member in usable:
        groups[member.pixel_sha256].append(member)
    kept: set[str] = set()
    set_aside: list[Finding] = []
    for digest, group in groups.items():
        labels = {member.image.label for member in group} - {UNLABELLED}
        if digest in known:
            labels |= {known[digest]} - {UNLABELLED}
        if len(labels) > 1:
            quarantined.extend(
                member.finding("conflicting_labels", f"Equal pixels have labels {sorted(labels)}.")
                for member in group
            )
            continue
        first, *copies = sorted(
            group,
            key=lambda m: (m.image.label == UNLABELLED, m.image.shipped_split != "test"),
        )
        if labels and known.get(digest) == UNLABELLED:
            set_aside.append(first.finding(LATE_LABEL, "An earlier span has it without a label."))
            origin = first.image.name
        elif digest in known:
            copies, origin = [first, *copies], "an image of an earlier span"
        else:
            origin = first.image.name
            kept.add(first.image.name)
        set_aside.extend(
            copy.finding("duplicate", f"Equal pixels to {origin}{_stranger(first, copy)}.")
            for copy in copies
        )
    return [member for member in usable if member.image.name in kept], set_aside


def _stranger(first: Inspected, copy: Inspected) -> str:
    mine, other = first.image.subject_id, copy.image.subject_id
    return f", who is another subject ({mine}, {other})" if mine and other and mine != other else ""


def _divide(
    listing: SourceListing,
    labelled: Sequence[Inspected],
    settings: SplitSettings,
    earlier: Earlier,
) -> tuple[dict[str, list[Inspected]], dict[str, Split]]:
    by_split: dict[str, list[Inspected]] = {split: [] for split in SPLITS}
    shipped = settings.reproduce_shipped or listing.keep_shipped_split
    units = {
        member.image.name: _unit(listing, member.image.subject_id, member.pixel_sha256)
        for member in labelled
    }
    fixed: dict[str, str] = {}
    if shipped:
        has_val = any(member.image.shipped_split == "val" for member in labelled)
        fixed = {
            member.image.name: member.image.shipped_split
            for member in labelled
            if member.image.shipped_split and (has_val or member.image.shipped_split != "train")
        }
    free = [member for member in labelled if member.image.name not in fixed]
    fractions = settings.fractions
    if shipped:
        fractions = {name: part for name, part in fractions.items() if name != "test"}
    votes = [(units[member.image.name], member.image.label) for member in free]
    settled: dict[str, Split] = {}
    for image in earlier.images:
        if image.label != UNLABELLED and image.split in fractions:
            unit = _unit(listing, image.subject_id, image.pixel_sha256)
            settled[unit] = cast(Split, image.split)
            votes.append((unit, image.label))
    drawn = assign(_strata(votes), fractions, settings.seed, {**settled, **earlier.assignment})
    for member in labelled:
        name = member.image.name
        by_split[fixed.get(name) or drawn[units[name]]].append(member)
    people = drawn if listing.level == "subject" and not shipped else dict(earlier.assignment)
    return by_split, people


def _unit(listing: SourceListing, subject_id: str | None, pixel_sha256: str) -> str:
    subject = subject_id if listing.level == "subject" else None
    return subject or f"pixels:{pixel_sha256}"


def _strata(votes: Sequence[tuple[str, int]]) -> dict[str, int]:
    """(unit, label) of each image → unit → its most frequent label; the lowest of equals."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for unit, label in votes:
        counts[unit][label] += 1
    return {unit: min(v, key=lambda label: (-v[label], label)) for unit, v in counts.items()}


def _warnings(listing: SourceListing, selection: Selection) -> list[str]:
    warnings = []
    for split, classes in selection.tally(listing.classes).items():
        if split == UNLABELLED_SPLIT:
            continue
        absent = [name for name, tally in classes.items() if not tally.images]
        if absent:
            warnings.append(f"{split} has no image of {', '.join(absent)}.")
    if listing.level == "slice":
        warnings.append("Slice-level: people may be on both sides of the split.")
    strangers = sum("another subject" in finding.detail for finding in selection.set_aside)
    if strangers:
        warnings.append(f"{strangers} exact copies are filed under different subjects.")
    nameless = sum(finding.reason == NO_SUBJECT for finding in selection.set_aside)
    if nameless:
        warnings.append(
            f"{nameless} unlabelled images have no subject id and are not used, because their "
            "people may be held out. Give --subject-regex, or name them like the labelled images."
        )
    late = sum(finding.reason == LATE_LABEL for finding in selection.set_aside)
    if late:
        warnings.append(
            f"{late} images got a label after an earlier span took them without one; the label is "
            "not used. To use it, import the whole source into a fresh dataset."
        )
    return warnings


def shard(members: Sequence[Inspected], count: int | None, seed: int) -> list[list[Inspected]]:
    """Divides a split's images over files, by hash: same images, same files, whatever the workers.

    Args:
        members: images of one split.
        count: number of files; None takes one per 1,024 images or 64 MiB.
        seed: of the shuffle.

    Returns:
        One list per file, shuffled; records of TFRecord files in their order, so that a worker
        reads the file front to back.
    """
    size = sum(member.size for member in members)
    wanted = count or max(-(-len(members) // SHARD_IMAGES), -(-size // SHARD_BYTES))
    number = max(1, min(wanted, len(members)))
    shuffled = sorted(members, key=lambda member: _shuffle_key(member, seed))
    return [
        sorted(shuffled[index::number], key=_record_key)  # stable: files stay shuffled
        for index in range(number)
    ]


def _shuffle_key(member: Inspected, seed: int) -> bytes:
    text = f"{seed}\0{member.source_sha256}\0{member.image.name}"
    return hashlib.sha256(text.encode()).digest()


def _record_key(member: Inspected) -> tuple[str, int]:
    image = member.image
    return ("", 0) if image.record is None else (image.path, image.record)


def without_path(image: SourceImage) -> SourceImage:
    """The image without its place on this machine: what identifies the input."""
    return replace(image, path="")
