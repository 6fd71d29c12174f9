"""Takes a canary out of traffic when it errs, or answers otherwise, beyond a set bound.

Canary and live version are compared over the same requests' time, in blocks of `min_requests`
answers of the canary. After block j the newest 1, 2, 4 … blocks are looked at, those sizes that
divide j, so that a fault that begins late is seen as fast as one at the start. Look j may spend
`level` / (j (j + 1)) on chance, shared by its windows and by the two questions (alpha spending,
Lan & DeMets 1983; the shares of all looks add up to `level` by the union bound): over its whole
life a canary that is within the bounds is taken out with probability `level` at most.

One request counts once, with the mean of its images' answers, since images of one request are often
of one person. That requests are independent of each other is assumed.
"""

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from serving import bounds
from serving.config import CanarySettings
from serving.interface import Observation

FAILURES = frozenset({"internal", "deadline_exceeded", "unavailable"})  # ours, not the client's
WINDOWS = 64  # blocks, of the longest look back

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Which versions share a model's requests.

    Attributes:
        live, canary: versions.
        comparable: both give the same classes in the same order.
    """

    live: int
    canary: int
    comparable: bool = True


class Side:
    """What one of the two versions did in one block.

    Attributes:
        requests: answered or failed by the server's fault.
        failures: of them.
        answers: that carried probabilities.
        total: float64[C], sum of the answers' mean probabilities.
    """

    __slots__ = ("answers", "failures", "requests", "total")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.answers = 0
        self.total: np.ndarray | float = 0.0

    def add(self, observation: Observation) -> None:
        """Counts one request."""
        self.requests += 1
        self.failures += observation.code in FAILURES
        if observation.probabilities is not None:
            self.answers += 1
            rows = observation.probabilities
            self.total = self.total + np.add.reduce(rows, 0, np.float64) / len(rows)

    def merge(self, other: "Side") -> None:
        """Adds another block."""
        self.requests += other.requests
        self.failures += other.failures
        self.answers += other.answers
        self.total = self.total + other.total


class Comparison:
    """One canary against one live version, block by block.

    Args:
        settings: the bounds.
        comparable: both give the same classes in the same order.
    """

    def __init__(self, settings: CanarySettings, comparable: bool = True):
        self._settings = settings
        self._comparable = comparable
        self._blocks: deque[tuple[Side, Side]] = deque(maxlen=WINDOWS)
        self._looks = 0

    def look(self, live: Side, canary: Side) -> str | None:
        """Adds a block, and looks at the windows that end with it.

        Returns:
            Why the canary must go, in words; None while nothing is sure.
        """
        self._blocks.append((live, canary))
        self._looks += 1
        sizes = [2**k for k in range(WINDOWS.bit_length()) if self._looks % 2**k == 0]
        level = self._settings.level / (self._looks * (self._looks + 1)) / len(sizes) / 2
        live, canary = Side(), Side()
        for age, (old_live, old_canary) in enumerate(reversed(self._blocks), start=1):
            live.merge(old_live)
            canary.merge(old_canary)
            if age not in sizes:
                continue
            reason = errs(live, canary, self._settings.max_error_rate, level)
            if reason is None and self._comparable:
                reason = drifts(live, canary, self._settings.max_drift, level)
            if reason is not None:
                return reason
        return None


class _Watched:
    def __init__(self, pair: Pair, settings: CanarySettings):
        self.pair = pair
        self.comparison = Comparison(settings, pair.comparable)
        self.live, self.canary = Side(), Side()
        self.tripped = False


class CanaryWatch:
    """Observes requests (`serving.interface.Observer`) and says once when a canary must go.

    Only requests that the split routed count, and no client's error. Where the live version got
    none in a window, nothing is compared.

    Args:
        settings: the bounds.
        trip: called with the model, the canary and the reason in words; must not wait.
    """

    def __init__(self, settings: CanarySettings, trip: Callable[[str, int, str], None]):
        self._settings = settings
        self._trip = trip
        self._watched: dict[str, _Watched] = {}

    def follow(self, pairs: Mapping[str, Pair]) -> None:
        """Watches these models; one whose pair is another now starts anew.

        Args:
            pairs: model → versions, of models whose canary has a share.
        """
        self._watched = {
            model: self._watched[model]
            if model in self._watched and self._watched[model].pair == pair
            else _Watched(pair, self._settings)
            for model, pair in pairs.items()
        }

    def __call__(self, observation: Observation) -> None:
        """Counts one request, and looks when a block is full."""
        watched = self._watched.get(observation.model)
        if watched is None or watched.tripped or not observation.routed:
            return
        if observation.code != "ok" and observation.code not in FAILURES:
            return
        if observation.version == watched.pair.live:
            watched.live.add(observation)
        elif observation.version == watched.pair.canary:
            watched.canary.add(observation)
            if watched.canary.requests >= self._settings.min_requests:
                self._look(observation.model, watched)

    def _look(self, model: str, watched: _Watched) -> None:
        reason = watched.comparison.look(watched.live, watched.canary)
        watched.live, watched.canary = Side(), Side()
        if reason is not None:
            watched.tripped = True
            self._trip(model, watched.pair.canary, reason)


def errs(live: Side, canary: Side, margin: float, level: float) -> str | None:
    """Whether the canary surely errs more often than the live version by more than `margin`.

    Args:
        live, canary: what both did over the same time.
        margin: difference of error rates that is still allowed.
        level: probability of a yes where the difference is allowed.

    Returns:
        The reason in words, or None.
    """
    if not live.requests or not canary.failures:
        return None
    rates = canary.failures / canary.requests, live.failures / live.requests
    least = bounds.lower(rates[0], canary.requests, level / 2)
    if least - bounds.upper(rates[1], live.requests, level / 2) <= margin:
        return None
    return (
        f"errors: {rates[0]:.1%} of {canary.requests} requests against {rates[1]:.1%} of "
        f"{live.requests} of the live version; surely more than {margin:.1%} above"
    )


def drifts(live: Side, canary: Side, margin: float, level: float) -> str | None:
    """Whether the canary's mean answer surely differs from the live version's by more than allowed.

    Args:
        live, canary: what both did over the same time.
        margin: Jensen-Shannon divergence of true mean answers that is still allowed, in bits.
        level: probability of a yes where the divergence is allowed.

    Returns:
        The reason in words, or None.
    """
    if not live.answers or not canary.answers:
        return None
    means = [np.clip(side.total / side.answers, 0, 1) for side in (live, canary)]
    seen = bounds.jensen_shannon(means[0] / means[0].sum(), means[1] / means[1].sum())
    if seen <= margin:
        return None
    each = level / (4 * len(means[0]))  # two bounds of each class of two versions
    first = bounds.interval(means[0], live.answers, each)
    second = bounds.interval(means[1], canary.answers, each)
    least = bounds.least_divergence(first, second, enough=margin)
    if least <= margin:
        return None
    return (
        f"drift: the mean answers of {canary.answers} requests differ from those of "
        f"{live.answers} of the live version by {seen:.2f} bit (Jensen-Shannon); surely more than "
        f"{margin:.2f}"
    )
