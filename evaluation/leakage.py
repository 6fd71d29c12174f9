"""Does one person stand on both sides of a split? Asked in three ways, each able to refuse alone.

(a) subject ids, (b) digests of decoded pixels, (c) normalised cross-correlation of small copies of
the images: neighbouring slices of one brain are more alike than slices of two brains are.

What trains is the splits `train` and `unlabelled`: pretraining, fine-tuning and distillation read
nothing else, so every stage is covered. Each of the two is held against every other split, and
those against one another; what `train` and `unlabelled` share is learnt twice, which leaks nothing.

Likeness notices a person under two names where slices lie close: of the public set's neighbouring
slices all are above the threshold, of the phantom's nine in ten (32 slices, 64 pixels), and none
where only every fourth slice is there. The check measures this on the data at hand and says it. It
sees no mirrored, turned or cropped copies.

The check fails closed. A layer that is off, or images of nobody known, leave the evidence
insufficient; an image that cannot be read, or that stands in one split under two labels, refuses
the data. Copies under one label within a split are reported.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluation import leakage_search
from evaluation.config import LeakageSettings
from evaluation.leakage_pairs import Hits, Pair, SplitImages, apart, correlations, merged, place
from evaluation.leakage_search import Progress, unit_vectors
from evaluation.outcome import Check, Decision, Outcome, concluded
from schema.features import SPLITS, UNLABELLED_SPLIT

TRAINING_SIDE = (SPLITS[0], UNLABELLED_SPLIT)
ORDER = (*TRAINING_SIDE, *SPLITS[1:])

# Atlas-registered slices of a public set, 9.6 million pairs of images of different people: none
# reaches .96 at 128 pixels, and all neighbouring slices of one person do. Fewer pixels blur more
# anatomy away, so at 64 two brains come closer.
THRESHOLDS = {64: 0.98, 128: 0.96}

KEPT = 1000  # pairs of each layer and two splits that are kept, the most alike
LISTED = 50  # pairs in a decision, and people whose most alike slices are looked up
NAMED = 3  # offenders in a sentence
SAMPLED = 200  # people on whom it is measured whether one under two names would be noticed

IDS, PIXELS, CORRELATION = LAYERS = ("ids", "pixels", "correlation")


class Leaks(NamedTuple):
    """What the check found.

    Attributes:
        decision: its answer. `details`: `splits` (images, people, images of nobody known, copies,
            unreadable images of each), `training_side`, `layers` (which were on), `image_size` and
            `threshold` of the correlation, `noticed` (the share of images that have a look-alike
            of their own person: how surely one under two names would be noticed; None without ids),
            `compared` (pairs of images correlated), `found` (layer → number of pairs of images; of
            ids, for every two splits, of people), and the first 50 of `pairs`.
        pairs: the most alike first, at most 1,000 of each layer and two splits.
    """

    decision: Decision
    pairs: tuple[Pair, ...]

    @property
    def total(self) -> int:
        """How many pairs there are at least: those of the layer that found most."""
        return max(len(self.pairs), *self.decision.details["found"].values())


def check(
    splits: Mapping[str, SplitImages],
    settings: LeakageSettings,
    progress: Progress | None = None,
) -> Leaks:
    """Looks for people and images that stand on both sides of a split.

    Args:
        splits: split name → its images, with thumbnails of `settings.image_size` pixels.
        settings: which layers, at what resolution and from what correlation on.
        progress: called with pairs of images correlated and pairs in all.

    Returns:
        The decision, and the pairs behind it. Images that are stored with fewer than 128 pixels are
        correlated at 64, unless `min_correlation` is given: blown up, two brains come closer than
        the threshold of 128 allows.

    Raises:
        ValueError: thumbnails of another size than the settings'.
    """
    splits = {name: splits[name] for name in _in_order(splits)}
    splits, size = _at_resolution(splits, settings)
    threshold = settings.min_correlation or THRESHOLDS[size]
    sides = list(_opposed(splits))
    checks = [_readable(splits), _comparable(sides)]
    hits: list[Hits] = []
    power = _noticed(splits, threshold)
    ask: dict[str, Callable[[], tuple[list[Hits], Check]]] = {
        IDS: lambda: _shared_people(splits, sides),
        PIXELS: lambda: _equal_pixels(splits, sides),
        CORRELATION: lambda: _alike(splits, sides, threshold, size, power, progress),
    }
    for layer in LAYERS:
        if not getattr(settings, layer):
            checks.append(_off(layer))
            continue
        found, answer = ask[layer]()
        hits += found
        checks.append(answer)
    if settings.pixels:
        checks.append(_contradictions(splits))
    pairs = merged(hits, splits)
    details = {
        "splits": {name: _counts(images) for name, images in splits.items()},
        "training_side": [name for name in TRAINING_SIDE if name in splits],
        "layers": {layer: bool(getattr(settings, layer)) for layer in LAYERS},
        "image_size": size,
        "threshold": threshold,
        "noticed": power,
        "compared": sum(len(splits[a]) * len(splits[b]) for a, b in sides),
        "found": {
            layer: sum(found.number for found in hits if found.layer == layer) for layer in LAYERS
        },
        "pairs": to_json(pairs[:LISTED]),
    }
    return Leaks(concluded(checks, details=details), pairs)


def _in_order(names: Iterable[str]) -> list[str]:
    """The training side first, then validation, test and whatever else."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else 9, name))


def _opposed(splits: Mapping[str, SplitImages]) -> Iterator[tuple[str, str]]:
    """Every two splits that nobody may be in both of, where both hold images."""
    for a, b in itertools.combinations(splits, 2):
        if not (a in TRAINING_SIDE and b in TRAINING_SIDE) and len(splits[a]) and len(splits[b]):
            yield a, b


def _at_resolution(
    splits: dict[str, SplitImages], settings: LeakageSettings
) -> tuple[dict[str, SplitImages], int]:
    size = settings.image_size
    received = {images.thumbnails.shape[1] for images in splits.values()} - {size}
    if received:
        raise ValueError(
            f"Thumbnails must have {size} pixels a side, as the settings say. Received: "
            f"{sorted(received)}."
        )
    large = all((images.sides >= size).all() for images in splits.values())
    if size == 64 or large or settings.min_correlation is not None:
        return splits, size
    halves = {
        name: dataclasses.replace(images, thumbnails=leakage_search.halved(images.thumbnails))
        for name, images in splits.items()
    }
    return halves, size // 2


def _counts(images: SplitImages) -> dict[str, int]:
    return {
        "images": len(images),
        "people": len(images.people),
        "nameless": int((~images.named).sum()),
        "copies": leakage_search.copies(images.digests),
        "unreadable": len(images.unreadable),
    }


def _readable(splits: Mapping[str, SplitImages]) -> Check:
    broken = [f"{name}: {fault}" for name, each in splits.items() for fault in each.unreadable]
    what = _counted(len(broken), "image", "images")
    detail = f"{what} could not be read, and so not be compared: {_some(broken)}"
    return _verdict("every image can be read", len(broken), detail)


def _comparable(sides: Sequence[tuple[str, str]]) -> Check:
    name = "both sides hold images"
    if any(a in TRAINING_SIDE for a, _ in sides):
        return Check(name, Outcome.PASSED)
    detail = "there are no images on both sides of a split, so nothing was compared"
    return Check(name, Outcome.INSUFFICIENT, detail=detail)


def _off(layer: str) -> Check:
    detail = f"the {layer} layer is off (leakage.{layer}=false), so its leaks were not looked for"
    return Check(QUESTIONS[layer], Outcome.INSUFFICIENT, detail=detail)


QUESTIONS = {
    IDS: "no person on both sides",
    PIXELS: "no image on both sides",
    CORRELATION: "no look-alikes on both sides",
}


def _verdict(name: str, count: int, complaint: str, note: str = "") -> Check:
    outcome = Outcome.REFUSED if count else Outcome.PASSED
    return Check(name, outcome, count, 0, detail=complaint if count else note)


def _shared_people(
    splits: Mapping[str, SplitImages], sides: Sequence[tuple[str, str]]
) -> tuple[list[Hits], Check]:
    """Layer (a): ids that two sides share; of each person the two slices most alike."""
    hits: list[Hits] = []
    everybody: set[str] = set()
    for a, b in sides:
        shared = np.intersect1d(splits[a].people, splits[b].people)
        everybody.update(shared.tolist())
        rows = [_closest(splits[a], splits[b], person) for person in shared[:LISTED]]
        i, j = np.array(rows, np.int64).reshape(-1, 2).T
        hits.append(Hits(IDS, a, b, len(shared), i, j, correlations(splits[a], splits[b], i, j)))
    told = [f"{person} ({_tally(person, splits)})" for person in sorted(everybody)[:NAMED]]
    who = _counted(len(everybody), "person stands", "people stand")
    detail = f"{who} on both sides: {_some(told, len(everybody))}"
    answer = _verdict(QUESTIONS[IDS], len(everybody), detail)
    images = sum(map(len, splits.values()))
    nameless = sum(int((~each.named).sum()) for each in splits.values())
    if answer.passed and nameless:
        whose = "no image has a" if nameless == images else f"{nameless} of {images} images have no"
        detail = f"{whose} subject id, so slices of one person may stand on both sides"
        answer = dataclasses.replace(answer, outcome=Outcome.INSUFFICIENT, detail=detail)
    return hits, answer


def _closest(a: SplitImages, b: SplitImages, person: str) -> tuple[int, int]:
    """The rows of one person's two slices that are most alike."""
    assert a.subjects is not None
    assert b.subjects is not None
    rows, columns = np.flatnonzero(a.subjects == person), np.flatnonzero(b.subjects == person)
    product = unit_vectors(a.thumbnails[rows]) @ unit_vectors(b.thumbnails[columns]).T
    i, j = np.unravel_index(product.argmax(), product.shape)
    return int(rows[i]), int(columns[j])


def _tally(person: str, splits: Mapping[str, SplitImages]) -> str:
    counts = {
        name: int((images.subjects == person).sum())
        for name, images in splits.items()
        if images.subjects is not None
    }
    return ", ".join(f"{count} in {name}" for name, count in counts.items() if count)


def _equal_pixels(
    splits: Mapping[str, SplitImages], sides: Sequence[tuple[str, str]]
) -> tuple[list[Hits], Check]:
    """Layer (b): images that are equal pixel for pixel, blank ones too."""
    hits = []
    for a, b in sides:
        count, i, j = leakage_search.equal_entries(splits[a].digests, splits[b].digests)
        i, j = i[:KEPT], j[:KEPT]
        correlation = correlations(splits[a], splits[b], i, j)
        hits.append(Hits(PIXELS, a, b, count, i, j, correlation))
    count = sum(found.number for found in hits)
    what = _counted(count, "pair of images is", "pairs of images are")
    detail = f"{what} equal pixel for pixel: {_examples(hits, splits, count)}"
    inside = {name: leakage_search.copies(images.digests) for name, images in splits.items()}
    note = ", ".join(f"{copied} in {name}" for name, copied in inside.items() if copied)
    note = f"exact copies within a split, which leak nothing: {note}" if note else ""
    return hits, _verdict(QUESTIONS[PIXELS], count, detail, note)


def _alike(
    splits: Mapping[str, SplitImages],
    sides: Sequence[tuple[str, str]],
    threshold: float,
    size: int,
    power: float | None,
    progress: Progress | None,
) -> tuple[list[Hits], Check]:
    """Layer (c): images that correlate as only slices of one person do."""
    total = sum(len(splits[a]) * len(splits[b]) for a, b in sides)
    hits, before, highest = [], 0, -1.0
    flagged = {name: np.zeros(len(images), bool) for name, images in splits.items()}
    for a, b in sides:

        def advance(done: int, _: int, before: int = before) -> None:
            if progress:
                progress(before + done, total)

        found = leakage_search.look_alikes(
            splits[a].thumbnails, splits[b].thumbnails, threshold, KEPT, advance
        )
        before += len(splits[a]) * len(splits[b])
        highest = max(highest, found.highest)
        flagged[b] |= found.flagged
        hits.append(Hits(CORRELATION, a, b, found.number, found.i, found.j, found.correlation))
    count = sum(found.number for found in hits)
    name, where = QUESTIONS[CORRELATION], f"at {size} pixels"
    if not total:
        return hits, Check(name, Outcome.PASSED, bound=threshold)
    if not count:
        note = f"of {total:,} pairs of images {where} the most alike correlate at {highest:.3f}"
        return hits, Check(name, Outcome.PASSED, highest, threshold, detail=note + _power(power))
    doubles = ", ".join(f"{each.sum()} of {name}" for name, each in flagged.items() if each.any())
    detail = (
        f"{_counted(count, 'pair of images correlates', 'pairs of images correlate')} at "
        f"{threshold:g} or more {where}, as slices of one person do (images concerned: {doubles}): "
        f"{_examples(hits, splits, count)}. If these are different people after all, raise "
        "leakage.min_correlation"
    )
    return hits, Check(name, Outcome.REFUSED, highest, threshold, detail=detail)


def _noticed(splits: Mapping[str, SplitImages], threshold: float) -> float | None:
    """Measured on the first split that has people: they stand for all."""
    for images in splits.values():
        if images.subjects is not None and len(images.people):
            return leakage_search.own_look_alikes(
                images.thumbnails, images.subjects, threshold, SAMPLED
            )
    return None


def _power(noticed: float | None) -> str:
    if noticed is None:
        return ""
    told = f"; {noticed:.0%} of the images have a look-alike among those of their own person"
    return told + ("" if noticed >= 0.5 else ": somebody under two names would hardly be noticed")


def _contradictions(splits: Mapping[str, SplitImages]) -> Check:
    """One image under two labels in one split: one of the labels is wrong, and which is unknown."""
    places = [
        str(place(name, images, int(row)))
        for name, images in splits.items()
        for row in leakage_search.contradictions(images.digests, images.labels)
    ]
    what = _counted(len(places), "image stands", "images stand")
    detail = f"{what} in one split under two labels: {_some(places)}"
    return _verdict("one label per image", len(places), detail)


def _examples(hits: Sequence[Hits], splits: Mapping[str, SplitImages], count: int) -> str:
    return _some([str(pair) for pair in apart(merged(hits, splits), NAMED)], count)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _some(told: Sequence[str], count: int | None = None) -> str:
    more = (len(told) if count is None else count) - len(told[:NAMED])
    return ", ".join(told[:NAMED]) + (f" and {more} more" if more else "")


def to_json(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Pairs as JSON holds them: `pairs.json`, and a decision's `pairs`."""
    return [dataclasses.asdict(pair) for pair in pairs]
