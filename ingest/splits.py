"""Which people train, validate and test.

People are assigned, not images: a random split of slices scores 99.9 % by recognising the person
on the public set. Without ids the unit is the hash of the pixels, so that at least equal pictures
share a split. An assignment is never changed: people that come later fill up the fractions.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingest.atomic import write_json
from schema.errors import CortexflowError

Split = Literal["train", "val", "test"]

# With one person of a class there is nothing to evaluate; with two the test comes first, because
# validation only chooses when to stop.
PRIORITY: tuple[Split, ...] = ("train", "test", "val")


class SplitError(CortexflowError):
    """A split that cannot be continued: its file is damaged or its settings changed."""


class SplitSettings(BaseModel):
    """How people are divided. `val` and `test` are fractions of the people of each class.

    `reproduce_shipped` keeps a release's own split, which stamps the dataset as leaked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    val: float = Field(default=0.15, gt=0.0, lt=1.0)
    test: float = Field(default=0.2, gt=0.0, lt=1.0)
    seed: int = 0
    reproduce_shipped: bool = False

    @model_validator(mode="after")
    def _leaves_training(self) -> "SplitSettings":
        if self.val + self.test >= 1.0:
            raise ValueError(
                f"val + test must stay below 1 (received {self.val} + {self.test}), so that "
                "people are left to train on."
            )
        return self

    @property
    def fractions(self) -> dict[Split, float]:
        """Fraction per split; they add up to 1."""
        return {"train": 1.0 - self.val - self.test, "val": self.val, "test": self.test}


def split_settings(
    val: float | None, test: float | None, seed: int, reproduce_shipped: bool
) -> SplitSettings:
    """Settings with defaults where None is given.

    Raises:
        SplitError: the fractions leave nobody to train on.
    """
    given = {"val": val, "test": test, "seed": seed, "reproduce_shipped": reproduce_shipped}
    try:
        return SplitSettings.model_validate({k: v for k, v in given.items() if v is not None})
    except ValueError as error:
        raise SplitError(
            f"val and test must be above 0 and below 1 together (received val={val}, test={test})."
        ) from error


class SplitsFile(BaseModel):
    """`splits.json`: who is in which split, for good."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    fractions: dict[str, float]
    assignment: dict[str, Split]
    sha256: str

    @classmethod
    def of(cls, settings: SplitSettings, assignment: Mapping[str, Split]) -> "SplitsFile":
        """Seals an assignment with its digest."""
        return cls(
            seed=settings.seed,
            fractions={name: round(value, 6) for name, value in settings.fractions.items()},
            assignment=dict(assignment),
            sha256=digest(assignment),
        )

    def write(self, path: Path) -> None:
        """Writes `splits.json`."""
        write_json(path, self.model_dump())


def digest(assignment: Mapping[str, str]) -> str:
    """SHA-256 of an assignment, independent of order, hex."""
    return hashlib.sha256(json.dumps(dict(assignment), sort_keys=True).encode()).hexdigest()


def read_splits(path: Path) -> SplitsFile:
    """Reads `splits.json`.

    Raises:
        SplitError: it is missing, malformed, or was edited (the digest does not hold).
    """
    try:
        splits = SplitsFile.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SplitError(f"{path} cannot be read: {error}. Restore it or import anew.") from error
    if digest(splits.assignment) != splits.sha256:
        raise SplitError(
            f"{path} was changed after it was written: its assignment has SHA-256 "
            f"{digest(splits.assignment)}, recorded is {splits.sha256}. Restore it; a person who "
            "moves between splits leaks."
        )
    return splits


def quotas(count: int, fractions: Mapping[Split, float]) -> dict[Split, int]:
    """Divides `count` units by fractions: largest remainders, at least one each where possible."""
    names = [name for name in PRIORITY if name in fractions]
    if count <= len(names):
        return {name: int(rank < count) for rank, name in enumerate(names)}
    total = sum(fractions.values())
    exact = {name: count * fractions[name] / total for name in names}
    given = {name: max(1, int(exact[name])) for name in names}
    while sum(given.values()) > count:
        given[max(names, key=lambda name: (given[name] - exact[name], given[name] > 1))] -= 1
    while sum(given.values()) < count:
        given[max(names, key=lambda name: exact[name] - given[name])] += 1
    return given


def assign(
    strata: Mapping[str, int],
    fractions: Mapping[Split, float],
    seed: int,
    existing: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """Assigns units to splits, each stratum by itself.

    Args:
        strata: unit (person, or hash of pixels) → class, of all spans.
        fractions: of the splits to fill.
        seed: another seed, another draw.
        existing: assignments that stay; those in `strata` count towards the fractions.

    Returns:
        Every unit of `strata` and of `existing` → split. Depends on nothing but the arguments;
        the order of `strata` does not matter.
    """
    assigned: dict[str, Split] = dict(existing or {})
    for stratum in sorted(set(strata.values())):
        units = [unit for unit, found in strata.items() if found == stratum]
        fresh = sorted((u for u in units if u not in assigned), key=lambda u: _draw(u, seed))
        have = Counter(assigned[unit] for unit in units if unit in assigned)
        missing = {
            name: max(0, quota - have[name])
            for name, quota in quotas(len(units), fractions).items()
        }
        while sum(missing.values()) > len(fresh):
            missing[max(missing, key=lambda name: (missing[name], name == "train"))] -= 1
        for name in ("test", "val", "train"):
            taken, fresh = fresh[: missing.get(name, 0)], fresh[missing.get(name, 0) :]
            assigned.update(dict.fromkeys(taken, name))
    return assigned


def _draw(unit: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{unit}".encode()).digest()
