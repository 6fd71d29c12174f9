"""What to generate: a frozen, validated description of a phantom cohort, and its content hash."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from schema.errors import CortexflowError
from schema.features import ALZHEIMER_SEVERITY

Preset = Literal["realistic", "moderate", "standard", "easy", "null"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

# Raised whenever the same spec would give other bytes, so that no stale cache is ever read.
GENERATOR_VERSION = 2

STACK = 32  # slices of a whole stack, as in the public set
SIZES = (64, 224)  # pixels: below, cortex vanishes; above, the calibration says nothing
MAX_SLICES = 128
SITE_COUNT = 3
CLASSES = len(ALZHEIMER_SEVERITY)


class SpecError(CortexflowError, ValueError):
    """A phantom was asked for that cannot be generated."""


@dataclass(frozen=True)
class PhantomSpec:
    """A cohort of synthetic subjects.

    Attributes:
        preset: how well the classes separate; `null` has no class signal at all.
        subjects: how many of each class, in order of severity (`ALZHEIMER_SEVERITY`).
        slices: axial slices per subject; up to 32 they are evenly spaced positions of the 32.
        size: height and width of a slice in pixels, 64 to 224.
        site: scanner 0 (reference), 1 (mild shift) or 2 (severe shift); several are dealt out in
            turn within each class, so that site and class stay independent.
        seed: the cohort's random seed, at least 0.

    Raises:
        SpecError: a field is out of range; names the field, the value received and the range.
    """

    preset: Preset = "standard"
    subjects: tuple[int, int, int, int] = (45, 45, 45, 45)
    slices: int = 8
    size: int = 64
    site: int | tuple[int, ...] = 0
    seed: int = 7

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(self.subjects))
        if not isinstance(self.site, int):
            object.__setattr__(self, "site", tuple(self.site))
        _require(self.preset in PRESETS, "preset", self.preset, f"one of {', '.join(PRESETS)}")
        _require(
            len(self.subjects) == CLASSES and min(self.subjects) >= 0 and sum(self.subjects) > 0,
            "subjects",
            self.subjects,
            f"{CLASSES} counts ({', '.join(ALZHEIMER_SEVERITY)}), none negative, not all zero",
        )
        _require(1 <= self.slices <= MAX_SLICES, "slices", self.slices, f"1 to {MAX_SLICES}")
        _require(SIZES[0] <= self.size <= SIZES[1], "size", self.size, f"{SIZES[0]} to {SIZES[1]}")
        _require(
            len(self.sites) > 0 and all(0 <= site < SITE_COUNT for site in self.sites),
            "site",
            self.site,
            f"0 to {SITE_COUNT - 1}, or a tuple of these",
        )
        _require(self.seed >= 0, "seed", self.seed, "0 or more")

    @property
    def sites(self) -> tuple[int, ...]:
        """The sites as a tuple, also when there is one."""
        return (self.site,) if isinstance(self.site, int) else self.site

    @property
    def positions(self) -> np.ndarray:
        """Places of the slices in the stack: float64[slices] in [0, 31], whole up to 32 slices."""
        if self.slices == 1:
            return np.array([STACK // 2], np.float64)
        positions = np.linspace(0, STACK - 1, self.slices)
        return np.round(positions) if self.slices <= STACK else positions

    def __len__(self) -> int:
        """Number of subjects."""
        return sum(self.subjects)

    def members(self) -> list[tuple[int, int]]:
        """Stage of disease and rank within it of every subject, in order of index.

        The stages alternate, so that the order of subjects does not give away their class.
        """
        ranks = ((rank, stage) for stage, n in enumerate(self.subjects) for rank in range(n))
        return [(stage, rank) for rank, stage in sorted(ranks)]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "PhantomSpec":
        """Reads what `to_dict` wrote.

        Raises:
            SpecError: a field is unknown or out of range.
        """
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        _require(not unknown, "fields", unknown, f"of {', '.join(cls.__dataclass_fields__)}")
        return cls(**fields)

    def fingerprint(self) -> str:
        """Content hash of the spec and the generator's version: 16 hexadecimal digits."""
        content = {"generator": GENERATOR_VERSION, **self.to_dict(), "site": self.sites}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _require(condition: bool, field: str, received: object, allowed: str) -> None:
    if not condition:
        raise SpecError(f"Phantom {field} must be {allowed}. Received: {field}={received!r}.")
