"""Which version answers a request: by name, or by an exact and repeatable split."""

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar

from serving.errors import ServingError

_BITS = 64


class Answerer(Protocol):
    """A version as routing sees it."""

    @property
    def number(self) -> int:
        """The version's number."""


V = TypeVar("V", bound=Answerer)


class Choice(NamedTuple, Generic[V]):
    """Who answers one request.

    Attributes:
        version: that answers.
        canary: it is the canary now.
        routed: the split chose it, not the client.
    """

    version: V
    canary: bool
    routed: bool


class Route(NamedTuple, Generic[V]):
    """One model's loaded versions; never changed, only replaced as a whole.

    Attributes:
        live: answers what names nothing; None when none is loaded.
        canary: the version tried out beside it, loaded, or None.
        percent: share of the canary among requests that name nothing, 0 to 100.
        labels: label → loaded version.
        versions: number → loaded version.
        pending: versions and labels that are configured and whose version is not loaded.
    """

    live: V | None
    canary: V | None
    percent: int
    labels: Mapping[str, V]
    versions: Mapping[int, V]
    pending: frozenset[int | str] = frozenset()


class Table(Generic[V]):
    """All models' routes at one moment. Replaced by one assignment, so that no request sees half.

    Args:
        routes: model name → route.
    """

    def __init__(self, routes: Mapping[str, Route[V]] = MappingProxyType({})):
        self.routes = MappingProxyType(dict(routes))

    def choose(
        self, model: str, version: int | None, label: str | None, request_id: str
    ) -> Choice[V]:
        """Chooses the version that answers.

        Raises:
            ServingError: `not_found`, or `unavailable` where what is asked for is not loaded yet.
        """
        route = self.route(model)
        if version is None and label is None:
            if route.canary is not None and takes_canary(model, request_id, route.percent):
                return Choice(route.canary, canary=True, routed=True)
            return Choice(self.named(model, None, None), canary=False, routed=True)
        found = self.named(model, version, label)
        return Choice(found, canary=found is route.canary, routed=False)

    def named(self, model: str, version: int | None, label: str | None) -> V:
        """The version of a number or a label; the live one where neither is given.

        Raises:
            ServingError: `not_found`, `unavailable`.
        """
        route = self.route(model)
        if version is not None:
            found, wanted = route.versions.get(version), f"version {version}"
        elif label is not None:
            found, wanted = route.labels.get(label), "version with that label"
        else:
            found, wanted = route.live, "live version"
        if found is not None:
            return found
        if (version is None and label is None) or {version, label} & route.pending:
            raise unavailable(f"The {wanted} of {model} is not loaded.")
        raise ServingError(
            "not_found",
            f"Model {model} has no {wanted} (versions: {_listed(route.versions)}; labels: "
            f"{_listed(route.labels)}). Ask its status for what is loaded.",
        )

    def route(self, model: str) -> Route[V]:
        """One model's route.

        Raises:
            ServingError: `not_found`.
        """
        found = self.routes.get(model)
        if found is None:
            raise ServingError(
                "not_found",
                f"No model of that name is served (models: {_listed(self.routes)}).",
            )
        return found


def takes_canary(model: str, request_id: str, percent: int) -> bool:
    """Whether the canary answers a request.

    The first 64 bits of BLAKE2b over the model's name and the id are a number in [0, 1); the canary
    takes what lies below its share. One id thus always goes the same way, models are split
    independently of each other, and a larger share only moves ids to the canary.

    Args:
        model: name, the salt.
        request_id: of the request.
        percent: 0 to 100.
    """
    if percent <= 0:
        return False
    salted = f"{model}\0{request_id}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(salted, digest_size=_BITS // 8).digest()
    return int.from_bytes(digest, "big") * 100 < percent << _BITS


def unavailable(message: str, retry_after: float = 1.0) -> ServingError:
    """The answer to a request that comes too early or too late."""
    return ServingError("unavailable", f"{message} Try again shortly.", retry_after=retry_after)


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, sorted(names, key=str))) or "none"
