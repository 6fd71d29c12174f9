"""Fits an input gate on training people, and measures what it does to people held out.

The limits come from cross-fitting: each person's images are scored by a gate that was fitted
without that person, so that people not seen before are refused as seldom as was asked for. A limit
is an upper confidence bound of the wanted quantile by a bootstrap over people, since a person's
slices resemble one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schema.descriptors import measure
from trainer.config import InputGateSettings
from trainer.input_gate import (
    SIDE,
    TURNED,
    TURNS,
    Images,
    InputGate,
    InputGateError,
    table,
    thumbnails,
)
from trainer.input_gate_families import FAMILIES, Slice, unlike

# Of a descriptor, in its own unit: slices that were masked and centred by an atlas hardly vary in
# centroid or extent, and a gate that knew this to the last digit would refuse the next atlas.
DEVIATION_FLOOR = 0.01
TOLD = 0.5  # share of turned training images that a discriminant must catch to be kept
CONFIDENCE = 0.9  # that unseen people are refused no more often than asked for
RESAMPLES = 200
MEASURED_IMAGES = 200  # the most held-out images that are spoilt in every way


@dataclass(frozen=True)
class _Known:
    """Descriptors float64[N, D], thumbnails float64[N, SIDE²] and person int64[N] of images."""

    values: Images
    small: Images
    person: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> "_Known":
        return _Known(self.values[chosen], self.small[chosen], self.person[chosen])


def fit(
    descriptors: Mapping[str, NDArray[np.floating]],
    grids: NDArray[np.floating],
    subjects: Sequence[str] | NDArray[Any],
    settings: InputGateSettings | None = None,
) -> InputGate:
    """Fits a gate.

    Args:
        descriptors: name → float[N] of training images.
        grids: float[N, GRID, GRID] of the same images (`schema.descriptors.measure`).
        subjects: who each image is of.
        settings: of the gate; default where None.

    Returns:
        The gate; its report holds what cross-fitting found: `people`, `images`,
        `false_rejection` (`target`, `cross_fitted`) and `turns` (name → share of turned images
        caught; a name is absent where turned images look like the others).

    Raises:
        InputGateError: there are too few people, or a descriptor is missing.
    """
    settings = settings or InputGateSettings()
    person = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)[1]
    known = _Known(table(descriptors), thumbnails(grids), person)
    people = int(person.max(initial=-1)) + 1
    if people < settings.min_people:
        raise InputGateError(
            f"An input gate needs {settings.min_people} training people or more (received "
            f"{people}): of fewer it would learn the people, not the kind of image."
        )
    fold = np.random.default_rng(0).permutation(people)[person] % settings.folds
    held_out, turned = _cross_fit(known, fold, settings)
    # Three stages share what may be refused, so that one odd person lifts one limit only.
    quantile = 1 - settings.false_rejection / 3
    alone = [_odds_limits(held_out[:, [2 + turn]], person, quantile) for turn in range(len(TURNS))]
    kept = (turned > np.concatenate(alone)).mean(0) >= TOLD
    scores = held_out[:, np.concatenate([[True, True], kept])]
    bounds = [_upper_quantile(scores[:, stage], person, quantile) for stage in (0, 1)]
    limits = np.concatenate([bounds, _odds_limits(scores[:, 2:], person, quantile)])
    caught = {
        TURNS[turn]: float((turned[:, turn] > limit).mean())
        for turn, limit in zip(np.flatnonzero(kept), limits[2:], strict=True)
    }
    return replace(
        _fitted(known, settings, np.flatnonzero(kept)),
        centres=np.median(scores, 0),
        limits=limits,
        report={
            "people": people,
            "images": len(person),
            "false_rejection": {
                "target": settings.false_rejection,
                "cross_fitted": float((scores > limits).any(1).mean()),
            },
            "turns": caught,
        },
    )


def fit_and_measure(
    train: Sequence[Slice],
    subjects: Sequence[str],
    held_out: Sequence[Slice],
    settings: InputGateSettings | None = None,
) -> InputGate:
    """Fits a gate on decoded training images, and measures it on people held out.

    Args:
        train: uint8[H, W], of any sizes.
        subjects: who each is of.
        held_out: uint8[H, W], of other people; may be empty, and then nothing more is measured.
        settings: as `fit`.

    Returns:
        The gate; `measured_on` of its report says how it did (`measured`).

    Raises:
        InputGateError: as `fit`.
    """
    known = measure(list(train))
    gate = fit(known.descriptors, known.grids, subjects, settings)
    if not len(held_out):
        return gate
    return replace(gate, report={**gate.report, "held_out": measured(gate, held_out)})


def measured(gate: InputGate, images: Sequence[Slice], seed: int = 0) -> dict[str, Any]:
    """How a gate does on images of the right kind, and on what is made of them.

    Args:
        gate: to measure.
        images: uint8[H, W], of people whom it was not fitted on, at least one.
        seed: of the families that are drawn (`trainer.input_gate_families`).

    Returns:
        `images`, `false_rejection` (share refused), and `families`: name → `images`; `caught`,
        share refused; `auroc` of the score; `fpr95`, the share that would pass a limit which
        95 % of the right images pass.
    """
    right = _worst(gate, list(images))
    step = -(-len(images) // MEASURED_IMAGES)
    some = list(images[::step])
    strict = np.quantile(right, 0.95)
    families = {}
    for name in FAMILIES:
        wrong = _worst(gate, unlike(name, some, seed))
        families[name] = {
            "images": len(wrong),
            "caught": float((wrong > 1).mean()),
            "auroc": _auroc(right, wrong),
            "fpr95": float((wrong <= strict).mean()),
        }
    return {
        "images": len(right),
        "false_rejection": float((right > 1).mean()),
        "families": families,
    }


def rows(gate: InputGate) -> list[dict[str, Any]]:
    """The families as rows of a table: `family`, `images`, `caught`, `auroc`, `fpr95`.

    Empty where nothing was measured on people held out.
    """
    families = gate.report.get("held_out", {}).get("families", {})
    return [{"family": name, **values} for name, values in families.items()]


def _worst(gate: InputGate, images: list[Slice]) -> Images:
    known = measure(images)
    return gate.scores(table(known.descriptors), thumbnails(known.grids)).max(1)


def _auroc(low: Images, high: Images) -> float:
    """Chance that one of `high` is above one of `low`; a tie counts half (Mann–Whitney)."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / 2 / len(low))


def _cross_fit(
    known: _Known, fold: NDArray[np.int64], settings: InputGateSettings
) -> tuple[Images, Images]:
    """Raw scores of people held out, as they are, float64[N, 2 + 7], and turned, [N, 7]."""
    every = np.arange(len(TURNS))
    upright = np.zeros((len(fold), 2 + len(TURNS)))
    turned = np.zeros((len(fold), len(TURNS)))
    for index in range(settings.folds):
        out = fold == index
        gate, rest = _fitted(known.select(~out), settings, every), known.select(out)
        upright[out] = gate.raw_scores(rest.values, rest.small)
        for turn in every:
            turned[out, turn] = rest.small[:, TURNED[turn]] @ gate.discriminants[turn]
    return upright, turned


def _fitted(known: _Known, settings: InputGateSettings, turns: NDArray[np.int64]) -> InputGate:
    """All of a gate but its limits."""
    mean = known.values.mean(0)
    deviation = np.maximum(known.values.std(0), DEVIATION_FLOOR)
    precision = np.linalg.inv(shrunk_covariance((known.values - mean) / deviation))
    template = known.small.mean(0)
    centred = known.small - template
    people = len(np.unique(known.person))
    # Of a subspace as large as the group of people, a person could be read.
    count = min(settings.components, people // 4)
    components = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count].T
    low, high = np.quantile(known.values, (0.01, 0.99), axis=0)
    return InputGate(
        mean=mean,
        deviation=deviation,
        precision=precision,
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        template=template.astype(np.float32),
        components=np.ascontiguousarray(components, np.float32),
        discriminants=_discriminants(centred, template)[turns].astype(np.float32),
        turns=turns.astype(np.int64),
        centres=np.zeros(2 + len(turns)),
        limits=np.ones(2 + len(turns)),
        report={},
    )


def _discriminants(centred: Images, template: Images) -> Images:
    """Fisher's linear discriminants of turned against upright: float64[7, SIDE²].

    The eight groups are one set of images turned in eight ways, so the covariance that they share
    is the average over the turns, and the odds of being turned are linear without an offset.
    """
    covariance = shrunk_covariance(centred)
    turned = [np.arange(SIDE * SIDE), *TURNED]
    shared = np.mean([covariance[np.ix_(places, places)] for places in turned], 0)
    differences = np.stack([template[places] - template for places in TURNED], 1)
    return np.linalg.solve(shared, differences).T


def shrunk_covariance(centred: Images) -> Images:
    """Covariance drawn towards a multiple of the identity by just enough (Ledoit & Wolf 2004).

    Args:
        centred: float64[N, D], of mean 0.

    Returns:
        float64[D, D], invertible.
    """
    count, size = centred.shape
    sample = centred.T @ centred / count
    scale = np.trace(sample) / size
    target = scale * np.eye(size)
    spread = np.sum((sample - target) ** 2)
    if spread == 0:
        return target
    fourth = np.sum(np.sum(centred**2, 1) ** 2) / count
    noise = min(spread, max(0.0, fourth - np.sum(sample**2)) / count)
    weight = noise / spread
    return weight * target + (1 - weight) * sample


def _odds_limits(odds: Images, person: NDArray[np.int64], quantile: float) -> Images:
    """Limits of the log odds of T turns, float64[T], passed together by a share `quantile`.

    They are 0, where turned and upright are as likely, or above it where upright images come that
    far: no image is refused for looking a little less upright than others.
    """
    spread = np.maximum(odds.std(0), 1e-9)
    if not odds.shape[1]:
        return spread
    worst = _upper_quantile((odds / spread).max(1), person, quantile)
    return max(worst, 0.0) * spread


def _upper_quantile(values: Images, person: NDArray[np.int64], quantile: float) -> float:
    """Upper confidence bound of a quantile of images, by resampling people."""
    order = np.argsort(values)
    ranked, owners = values[order], person[order]
    people = int(person.max()) + 1
    rng = np.random.default_rng(0)
    draws = rng.multinomial(people, np.full(people, 1 / people), RESAMPLES)
    bounds = np.empty(RESAMPLES)
    for index, drawn in enumerate(draws):
        reached = np.cumsum(drawn[owners])
        place = np.searchsorted(reached, quantile * reached[-1], "left")
        bounds[index] = ranked[min(place, len(ranked) - 1)]
    return float(np.quantile(bounds, CONFIDENCE, method="higher"))
