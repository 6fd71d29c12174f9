"""The routing table that a configuration and the versions loaded by now make together."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from registry import serving_config
from registry.interface import Traffic
from registry.serving_config import CANARY, LIVE, ModelConfig
from serving.interface import State, VersionStatus
from serving.loading import Loaded
from serving.routing import Route, Table

Key = tuple[str, str, int]  # model, base path, version


@dataclasses.dataclass(eq=False)
class Managed:
    """One version from its first mention to its end.

    Attributes:
        model: its entry when it was first mentioned.
        number: the version.
        state: TensorFlow Serving's word.
        error_code, error_message: of a load that failed.
        loaded: what answers, while there is something.
        requests: under way on it.
        failures: loads that failed in a row.
        retry_at: `time.monotonic()` of the next attempt, once one failed.
    """

    model: ModelConfig
    number: int
    state: State = "START"
    error_code: str = "OK"
    error_message: str = ""
    loaded: Loaded | None = None
    requests: int = 0
    failures: int = 0
    retry_at: float = 0.0

    @property
    def settled(self) -> bool:
        """Nothing is about to happen to it."""
        return self.state in ("AVAILABLE", "END")

    def status(self) -> VersionStatus:
        """For those who ask."""
        return VersionStatus(self.number, self.state, self.error_code, self.error_message)


def numbers(model: ModelConfig) -> list[int]:
    """Versions of an entry in the order in which they are loaded: live, canary, the others."""
    first = [model.labels[label] for label in (LIVE, CANARY) if label in model.labels]
    rest = sorted({*model.versions, *model.labels.values()}, reverse=True)
    return list(dict.fromkeys([*first, *rest]))


def keys(models: Sequence[ModelConfig]) -> list[Key]:
    """All versions of some entries, each model's in the order in which they are loaded."""
    return [(model.name, model.base_path, number) for model in models for number in numbers(model)]


def build(
    models: Sequence[ModelConfig],
    known: Mapping[Key, Managed],
    before: Table[Managed],
    withdrawn: Mapping[str, int],
) -> Table[Managed]:
    """Makes the table.

    Args:
        models: what is configured; labels that do not contradict each other.
        known: every configured version.
        before: the table until now: a live version stays until the next one is there.
        withdrawn: model → canary that gets no share although it is configured.
    """
    return Table(
        {model.name: _route(model, known, before, withdrawn.get(model.name)) for model in models}
    )


def in_use(table: Table[Managed]) -> Iterator[Managed]:
    """Every version that a request may still be sent to."""
    for route in table.routes.values():
        yield from route.versions.values()
        if route.live is not None:
            yield route.live


def _route(
    model: ModelConfig,
    known: Mapping[Key, Managed],
    before: Table[Managed],
    withdrawn: int | None,
) -> Route[Managed]:
    found = {key[2]: known[key] for key in keys([model])}
    versions = {number: one for number, one in found.items() if one.state == "AVAILABLE"}
    traffic = serving_config.traffic(model)
    live = _live(model.name, found, traffic, before)
    labels = {
        label: versions[number]
        for label, number in model.labels.items()
        if number in versions and label != LIVE
    }
    if live is not None:
        labels[LIVE] = live
    canary = labels.get(CANARY)
    shares = live is not None and canary is not None and withdrawn != traffic.canary
    wanted: set[int | str] = {*found, *model.labels}
    return Route(
        live,
        canary,
        traffic.percent if shares else 0,
        labels,
        versions,
        frozenset(wanted - versions.keys() - labels.keys()),
    )


def _live(
    name: str, found: Mapping[int, Managed], traffic: Traffic, before: Table[Managed]
) -> Managed | None:
    """The live version; while it is not there, the one that was, else the newest beside it.

    Without a label the highest number is live, as in TensorFlow Serving.
    """
    others = [number for number in found if number != traffic.canary]
    wanted = traffic.live if traffic.live is not None else max(others, default=None)
    if wanted is None:
        return None
    if found[wanted].state == "AVAILABLE":
        return found[wanted]
    route = before.routes.get(name)
    if route is not None and route.live is not None and route.live.state == "AVAILABLE":
        return route.live
    if found[wanted].state != "END":
        return None  # it may still be loaded
    loaded = [number for number in others if found[number].state == "AVAILABLE"]
    return found[max(loaded)] if loaded else None
