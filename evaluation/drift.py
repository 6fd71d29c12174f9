"""Drift: do the images of two groups of people look alike, as far as numbers of them tell?

Each person is one histogram per feature, whatever the number of their images, and weighs the same.
The distance of two groups is the Jensen–Shannon divergence (base 2: 0 to 1) of their mean
histograms. What chance alone makes of it is found by dealing the same people anew to groups of
the same sizes: a permutation test, with the + 1 of Phipson and Smyth (2010, Stat Appl Genet Mol
Biol 9:39) in its p-values. Holm's correction (1979, Scand J Stat 6:65) holds the chance of any
false alarm among all features at the level asked for. Slices are never dealt: those of one person
are alike, and a test on slices would find drift everywhere.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import entr

from evaluation.config import DriftSettings
from evaluation.dealing import Dealing
from evaluation.histograms import Group, Histograms, Kind
from evaluation.outcome import Outcome
from schema.errors import CortexflowError

BLOCK_VALUES = 4_000_000  # float64 of one block of permutations: 32 MB
ROUNDING = 1e-12  # divergences closer than this are equal: ties of categories must count
TOLD = 3  # features that a reason names


class DriftError(CortexflowError):
    """Two groups that cannot be compared, or settings under which nothing could be found."""


@dataclasses.dataclass(frozen=True)
class FeatureDrift:
    """One feature in two groups.

    Attributes:
        name: the feature.
        kind: of its histogram.
        divergence: Jensen–Shannon divergence of the groups' mean histograms, in bits, 0 to 1.
        threshold: what chance keeps below, with probability 1 − level, for this feature alone.
        seen_from: the smallest divergence that would have counted as drift were it the only one.
        p: chance of at least this divergence where there is no drift, of this feature alone.
        adjusted_p: the same with Holm's correction for all features.
        drifted: `adjusted_p` is at most the level.
        before, after: mean over people in the reference and in the current group; None for
            categories.
        spread: standard deviation of people's means in the reference.
        infinity_norm: largest difference of a category's share; None for numbers.
        infinity_threshold: what chance keeps that below, as `threshold`.
        bins: edges between bins (one fewer than bins of numbers), or the categories' names.
        reference, current: shares of the bins; a last bin of numbers without an edge above is
            for what is not finite, and stands only where there is any.
        drifted_at_equal_mix: whether it still drifts when the groups are given the same mix of
            labels; None where the labels did not drift or too few people share one.
    """

    name: str
    kind: Kind
    divergence: float
    threshold: float
    seen_from: float
    p: float
    adjusted_p: float
    drifted: bool
    before: float | None
    after: float | None
    spread: float | None
    infinity_norm: float | None
    infinity_threshold: float | None
    bins: tuple[Any, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    drifted_at_equal_mix: bool | None = None

    def __str__(self) -> str:
        """The feature, what became of it, and the numbers behind it."""
        return (
            f"{self.name} {self.movement} (divergence {self.divergence:.3f}, by chance below "
            f"{self.threshold:.3f}; adjusted p {self.adjusted_p:.4f})"
        )

    @property
    def movement(self) -> str:
        """From where to where: means, or the share of the category that changed most."""
        if self.kind == "numeric":
            before, after = (
                "–" if mean is None else f"{mean:.3g}" for mean in (self.before, self.after)
            )
            return f"{before} → {after}"
        most = int(np.argmax(np.abs(np.subtract(self.reference, self.current))))
        name = self.bins[most] or "(none)"
        return f"{name} {self.reference[most]:.0%} → {self.current[most]:.0%}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two groups held against each other.

    Attributes:
        reference, current: names of the groups.
        people: number of people in reference and current.
        images: number of images in them.
        in_both: people who stand in both groups.
        level: chance of any false alarm in this comparison.
        outcome: refused where a feature drifted, insufficient where there are too few people.
        reason: the outcome in words.
        features: in the groups' order, numbers first; empty where there are too few people.
    """

    reference: str
    current: str
    people: tuple[int, int]
    images: tuple[int, int]
    in_both: int
    level: float
    outcome: Outcome
    reason: str
    features: tuple[FeatureDrift, ...] = ()

    @property
    def drifted(self) -> tuple[FeatureDrift, ...]:
        """The features that drifted, least likely first."""
        found = [feature for feature in self.features if feature.drifted]
        return tuple(sorted(found, key=lambda feature: (feature.p, -feature.divergence)))


def compare(
    reference: Group, current: Group, settings: DriftSettings, *, mix: str = "label"
) -> Comparison:
    """Asks of each feature whether the current group's differs from the reference's.

    People who stand in both groups keep their pairing: chance may swap their two appearances but
    gives neither to another person. What changed in all of them then stands out from how people
    differ; and what is dealt anew is what could have been otherwise.

    Args:
        reference: how it was.
        current: how it is, with the same features.
        settings: level, permutations, bins, least number of people, seed.
        mix: the categorical feature whose drift may explain that of others (more patients make
            wider ventricles). Where it drifts, each other feature is asked again with people
            dealt anew within its categories, and these weighted as in the reference.

    Returns:
        The comparison; the same for the same input, whatever the order of rows.

    Raises:
        DriftError: the features differ, or there are too few permutations for any to be found.
    """
    _check_features(reference, current)
    people = (reference.size, current.size)
    shared = 0
    if reference.people is not None and current.people is not None:
        shared = len(np.intersect1d(reference.people, current.people))
    head = (reference.name, current.name, people, (reference.images, current.images), shared)
    if lack := _lack(reference, current, settings.min_people):
        return Comparison(*head, settings.level, Outcome.INSUFFICIENT, lack)
    table = _histograms(reference, current, settings.bins)
    result = _test(table, Dealing.of(table, None), settings)
    result = _at_equal_mix(table, result, settings, mix)
    drifted = any(feature.drifted for feature in result)
    comparison = Comparison(
        *head,
        settings.level,
        Outcome.REFUSED if drifted else Outcome.PASSED,
        "",
        result,
    )
    return dataclasses.replace(comparison, reason=_reason(comparison, mix))


def _check_features(reference: Group, current: Group) -> None:
    for kind in ("numeric", "categorical"):
        one, other = set(getattr(reference, kind)), set(getattr(current, kind))
        if one != other:
            raise DriftError(
                f"{reference.name} and {current.name} have different {kind} features (in one "
                f"only: {', '.join(sorted(one ^ other))}). Describe both by the same code."
            )
    if not reference.numeric and not reference.categorical:
        raise DriftError(f"{reference.name} and {current.name} have no features to compare.")


def _lack(reference: Group, current: Group, least: int) -> str:
    """What is missing for a comparison, or ""."""
    pair = f"{current.name} against {reference.name}: insufficient data"
    if reference.people is None or current.people is None:
        return (
            f"{pair}: there are no subject ids, and slices of one person are no independent "
            "evidence. Import with subject ids"
        )
    short = [group for group in (reference, current) if group.size < least]
    if not short:
        return ""
    counts = " and ".join(f"{group.size} in {group.name}" for group in short)
    return (
        f"{pair}: a comparison needs at least {least} people in each group (received {counts}). "
        "This is not a finding of no drift"
    )


def _reason(comparison: Comparison, mix: str) -> str:
    pair = (
        f"{comparison.current} ({comparison.people[1]} people) against {comparison.reference} "
        f"({comparison.people[0]})"
    )
    paired = f"; {comparison.in_both} people stand in both" if comparison.in_both else ""
    drifted = comparison.drifted
    if not drifted:
        numbers = [feature for feature in comparison.features if feature.kind == "numeric"]
        seen = [feature.seen_from for feature in numbers if len(feature.reference) > 1]
        power = f"; divergences from {min(seen):.3f} to {max(seen):.3f} would show" if seen else ""
        return f"{pair}: no drift found{power}{paired}"
    more = len(drifted) - TOLD
    named = ", ".join(map(str, drifted[:TOLD])) + (f" and {more} more" if more > 0 else "")
    return f"{pair}: drift in {named}{_mix_note(drifted, mix)}{paired}"


def _mix_note(drifted: tuple[FeatureDrift, ...], mix: str) -> str:
    asked = [feature for feature in drifted if feature.drifted_at_equal_mix is not None]
    if not asked:
        return ""
    left = [feature.name for feature in asked if feature.drifted_at_equal_mix]
    if not left:
        return f"; at an equal mix of {mix} none of the others drifts"
    return f"; at an equal mix of {mix} there still drift: {', '.join(left)}"


def _histograms(reference: Group, current: Group, bins: int) -> Histograms:
    assert reference.people is not None
    assert current.people is not None
    groups = (reference, current)

    def joined(kind: str) -> dict[str, np.ndarray]:
        one, other = (getattr(group, kind) for group in groups)
        return {name: np.concatenate([one[name], other[name]]) for name in one}

    return Histograms.of(
        np.concatenate([reference.people, current.people]),
        np.repeat([False, True], [len(reference.people), len(current.people)]),
        joined("numeric"),
        joined("categorical"),
        bins,
    )


def _distances(
    table: Histograms, one: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Jensen–Shannon divergence (bits) and L-infinity of each feature: two float64[count, F]."""
    gain = entr((one + other) / 2) - (entr(one) + entr(other)) / 2
    divergence = np.add.reduceat(gain, table.starts, axis=1) / np.log(2)
    largest = np.maximum.reduceat(np.abs(one - other), table.starts, axis=1)
    return np.clip(divergence, 0.0, 1.0), largest


def _null(
    table: Histograms, design: Dealing, settings: DriftSettings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distances of groups dealt by chance, in blocks of bounded memory."""
    rng = np.random.default_rng(settings.seed)
    step = max(1, BLOCK_VALUES // (2 * len(table.current) + 4 * table.histograms.shape[1]))
    for start in range(0, settings.permutations, step):
        dealt = design.deal(rng, min(step, settings.permutations - start))
        yield _distances(table, *design.means(table, dealt))


def _test(table: Histograms, design: Dealing, settings: DriftSettings) -> tuple[FeatureDrift, ...]:
    means = design.means(table, design.current[None])
    (observed,), (largest,) = _distances(table, *means)
    # A feature with one bin cannot differ, however people are dealt: no alarm to correct for.
    varies = np.add.reduceat(table.histograms.any(0), table.starts, dtype=int) > 1
    tested = int(varies.sum())
    needed = int(np.ceil(tested / settings.level)) - 1
    if settings.permutations < needed:
        raise DriftError(
            f"{settings.permutations} permutations cannot show drift in any of {tested} features "
            f"at level {settings.level:g}: take {needed} or more."
        )
    blocks = list(_null(table, design, settings))
    chance, chance_largest = (np.concatenate(part) for part in zip(*blocks, strict=True))
    p = (1 + (chance >= observed - ROUNDING).sum(0)) / (1 + settings.permutations)
    adjusted = np.ones(len(p))
    adjusted[varies] = holm(p[varies])
    rank = int(settings.level / max(tested, 1) * (1 + settings.permutations) + ROUNDING)
    seen_from = np.sort(chance, axis=0)[-max(rank, 1)]
    threshold, largest_threshold = (
        np.quantile(values, 1 - settings.level, axis=0, method="higher")
        for values in (chance, chance_largest)
    )
    early, late = (table.means[side] for side in (~table.current, table.current))
    found = []
    for f, name in enumerate(table.names):
        numeric = table.kinds[f] == "numeric"
        here = table.columns(f)
        found.append(
            FeatureDrift(
                name=name,
                kind=table.kinds[f],
                divergence=float(observed[f]),
                threshold=float(threshold[f]),
                seen_from=float(seen_from[f]),
                p=float(p[f]),
                adjusted_p=float(adjusted[f]),
                drifted=bool(adjusted[f] <= settings.level),
                before=_mean(early[:, f]) if numeric else None,
                after=_mean(late[:, f]) if numeric else None,
                spread=_spread(early[:, f]) if numeric else None,
                infinity_norm=None if numeric else float(largest[f]),
                infinity_threshold=None if numeric else float(largest_threshold[f]),
                bins=table.bins[f],
                reference=tuple(means[0][0, here].tolist()),
                current=tuple(means[1][0, here].tolist()),
            )
        )
    return tuple(found)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction: adjusted p-values, float64[M], at most 1."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _spread(values: np.ndarray) -> float | None:
    return float(np.nanstd(values, ddof=1)) if np.isfinite(values).sum() > 1 else None


def _at_equal_mix(
    table: Histograms, found: tuple[FeatureDrift, ...], settings: DriftSettings, mix: str
) -> tuple[FeatureDrift, ...]:
    """Adds `drifted_at_equal_mix` where the mix drifted."""
    named = {feature.name: position for position, feature in enumerate(found)}
    if mix not in named or not found[named[mix]].drifted:
        return found
    stratum = table.histograms[:, table.columns(named[mix])].argmax(1)
    early, late = (np.bincount(stratum[side], minlength=stratum.max() + 1)
                   for side in (~table.current, table.current))  # fmt: skip
    common = (early > 0) & (late > 0)
    if min(early[common].sum(), late[common].sum()) < settings.min_people:
        return found
    again = _test(table, Dealing.of(table, stratum), settings)
    return tuple(
        feature
        if feature.name == mix
        else dataclasses.replace(feature, drifted_at_equal_mix=equal.drifted)
        for feature, equal in zip(found, again, strict=True)
    )
