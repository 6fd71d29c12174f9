"""What an importer finds in a source: images with their labels, people and order. No pixels yet."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from schema.errors import CortexflowError
from schema.features import UNLABELLED

Level = Literal["subject", "slice"]
IdSource = Literal["names", "records", "order", "clusters"]
POSITIONAL: tuple[IdSource, ...] = ("order", "clusters")  # numbered anew by each import


class SourceError(CortexflowError):
    """A source that cannot be imported as asked: what is wrong, what was found, what to do."""


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    Attributes:
        path: the file, absolute.
        name: its name in reports: path relative to the source, `/`-separated; for a record
            `file#index`.
        label: index into the listing's classes, or -1 when unlabelled.
        subject_id: who it is of; None when unknown.
        slice_index: position in the subject's stack, from 0; None when unknown.
        site: scanner or site; None when unknown.
        shipped_split: `train`, `val` or `test` of the release; None when it has none.
        record: index of the record, when `path` is a TFRecord file.
    """

    path: str
    name: str
    label: int
    subject_id: str | None = None
    slice_index: int | None = None
    site: str | None = None
    shipped_split: str | None = None
    record: int | None = None


@dataclass(frozen=True)
class SourceListing:
    """All images of a source, and how they were understood.

    Attributes:
        name: of the dataset.
        layout: which importer read it.
        source: the path given.
        classes: names, alphabetical; a label is an index into them.
        severity: the same names from healthy to ill, or None when they have no such order.
        level: `subject` when people are known, else `slice`.
        images: sorted by name.
        evidence: the proof of what was concluded, one sentence each, for people.
        ignored: names of files that are no images by their kind (tables, notes).
        keep_shipped_split: whether the release's own train and test are kept.
        id_source: where the subject ids are from; None when slice-level.
        subject_pattern: what named the people, when names did; its first group is the id.
    """

    name: str
    layout: str
    source: str
    classes: tuple[str, ...]
    severity: tuple[str, ...] | None
    level: Level
    images: tuple[SourceImage, ...]
    evidence: tuple[str, ...] = ()
    ignored: tuple[str, ...] = field(default=(), repr=False)
    keep_shipped_split: bool = False
    id_source: IdSource | None = None
    subject_pattern: str | None = None

    def counts(self) -> dict[str, int]:
        """Images per class name, zeros included; unlabelled images are not counted."""
        found = Counter(image.label for image in self.images)
        return {name: found[label] for label, name in enumerate(self.classes)}

    def by_class(self) -> Iterator[tuple[str, list[SourceImage]]]:
        """Yields each class's name and images, in order."""
        for label, name in enumerate(self.classes):
            yield name, [image for image in self.images if image.label == label]

    def labelled(self) -> list[SourceImage]:
        """The images that have a label, in order."""
        return [image for image in self.images if image.label != UNLABELLED]

    def with_evidence(self, *sentences: str) -> "SourceListing":
        """The same listing with more evidence."""
        return replace(self, evidence=self.evidence + sentences)
