"""Sample predictions: which test images a report shows, and what stands on each card."""

import base64
import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from components.report.evidence import Evidence, Sample

IMAGE_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
MAX_IMAGE_BYTES = 96_000  # sixteen of them leave the page below 3 MB
MAX_BARS = 6


def choose_samples(labels: np.ndarray, probabilities: np.ndarray, count: int = 16) -> list[int]:
    """Picks test images that show a model fairly: each class in turn, right ones and wrong ones.

    Of each class the list takes, alternately, the most confident mistake and the right answer of
    median confidence. The choice is a function of the numbers alone.

    Args:
        labels: int[N].
        probabilities: float[N, C] of the model to be shown.
        count: how many at most.

    Returns:
        Row indices, in ascending order of label, wrong ones first.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    queues = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        wrong = of_class[predicted[of_class] != label]
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
        right = of_class[predicted[of_class] == label]
        distance = np.abs(confidence[right] - np.median(confidence[right])) if len(right) else right
        right = right[np.argsort(distance, kind="stable")]
        paired = min(len(wrong), len(right))
        alternating = np.column_stack([wrong[:paired], right[:paired]]).ravel()
        queues.append([*alternating, *wrong[paired:], *right[paired:]])
    longest = max(map(len, queues), default=0)
    turns = (queue[turn] for turn in range(longest) for queue in queues if turn < len(queue))
    chosen = [int(row) for row, _ in zip(turns, range(count), strict=False)]
    return sorted(chosen, key=lambda row: (labels[row], predicted[row] == labels[row], row))


@dataclasses.dataclass(frozen=True)
class Named:
    """A class by name and colour."""

    name: str
    rank: int


@dataclasses.dataclass(frozen=True)
class Bar:
    """One class's probabilities for one sample."""

    name: str
    short: str
    rank: int
    student: float
    teacher: float | None


@dataclasses.dataclass(frozen=True)
class Card:
    """One sample prediction; `uri` None: the image is neither PNG nor JPEG, or too large."""

    uri: str | None
    truth: Named
    student: Named
    teacher: Named | None
    right: bool
    bars: tuple[Bar, ...]
    who: str


def cards(evidence: Evidence) -> tuple[Card, ...]:
    """Lays out the sample predictions; none where the student gave no probabilities to show."""
    if evidence.predictions is None or not np.isfinite(evidence.predictions.student).all():
        return ()
    return tuple(_card(evidence, sample) for sample in evidence.samples)


def _card(evidence: Evidence, sample: Sample) -> Card:
    dataset, predictions, row = evidence.dataset, evidence.predictions, sample.row
    named = {label: Named(dataset.classes[label], r) for r, label in enumerate(dataset.order)}
    short = short_names(dataset.classes)
    student = predictions.student[row]
    teacher = None if predictions.teacher is None else predictions.teacher[row]
    shown = sorted(named, key=lambda label: named[label].rank)
    if len(shown) > MAX_BARS:
        likely = sorted(shown, key=lambda label: -student[label])[:MAX_BARS]
        shown = [label for label in shown if label in likely]
    who = []
    if predictions.subjects is not None:
        who.append(f"{predictions.subjects[row]}")
    if predictions.slice_index is not None and predictions.slice_index[row] >= 0:
        who.append(f"slice {predictions.slice_index[row]}")
    truth = int(predictions.labels[row])
    return Card(
        uri=data_uri(sample.image),
        truth=named[truth],
        student=named[int(student.argmax())],
        teacher=None if teacher is None else named[int(teacher.argmax())],
        right=int(student.argmax()) == truth,
        bars=tuple(
            Bar(
                named[label].name,
                short[label],
                named[label].rank,
                float(student[label]),
                None if teacher is None else float(teacher[label]),
            )
            for label in shown
        ),
        who=", ".join(who),
    )


def short_names(names: Sequence[str]) -> tuple[str, ...]:
    """Leaves out the last word where all names end with it: MildDemented, … become Mild, …"""
    words = [re.split(r"(?<=[a-z])(?=[A-Z])|[ _-]", name) for name in names]
    if len({parts[-1] for parts in words}) > 1 or min(map(len, words)) < 2:
        return tuple(names)
    return tuple("".join(parts[:-1]) for parts in words)


def data_uri(image: bytes, most: int = MAX_IMAGE_BYTES) -> str | None:
    """An image as a page holds it; None where it is neither PNG nor JPEG, or above `most` bytes."""
    kind = next((kind for magic, kind in IMAGE_KINDS.items() if image.startswith(magic)), None)
    if kind is None or len(image) > most:
        return None
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"
