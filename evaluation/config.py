"""Frozen, validated settings of the checks that stand between data, model and use.

They are data: they travel as JSON from the pipeline's config to the nodes.
"""

import math
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config import Settings


class LeakageSettings(Settings):
    """How images of one person are looked for on both sides of a split.

    `ids`, `pixels` and `correlation` switch a layer off; a check without all three says so.
    """

    ids: bool = True
    pixels: bool = True
    correlation: bool = True
    image_size: Literal[64, 128] = 64  # pixels of a side at which images are correlated
    min_correlation: float | None = Field(None, gt=0.0, le=1.0)  # None: .98 at 64, .96 at 128


class DriftSettings(Settings):
    """How two groups of people are compared by what their images look like."""

    on_drift: Literal["refuse", "report"] = "refuse"
    level: float = Field(0.01, gt=0.0, lt=0.5)  # chance of any false alarm in a run
    permutations: PositiveInt = 9999
    bins: int = Field(10, ge=2)
    min_people: PositiveInt = 20  # in each group; below: "insufficient data"
    seed: int = 0


class ControlSettings(Settings):
    """The pipeline's tail once more with labels that mean nothing."""

    shuffle: bool = False
    max_epochs: PositiveInt = 10  # of teacher and student each
    level: float = Field(0.01, gt=0.0, lt=0.5)  # chance of refusing a split without a leak
    permutations: PositiveInt = 1999
    min_people: int = Field(20, ge=20)  # of the test split; below: insufficient evidence
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _level_is_reached(self) -> "ControlSettings":
        # Three bands, each with two sides, and one draw at least beyond each.
        least = math.ceil(6 / self.level - 1 - 1e-9)
        if self.permutations < least:
            raise ValueError(
                f"{self.permutations} permutations know no level below "
                f"{6 / (self.permutations + 1):.3g} (received control.level={self.level}). Set "
                f"control.permutations={least} or more, or raise the level"
            )
        return self


class GateSettings(Settings):
    """What a student must show before it goes live, on people it has never seen.

    Floors and margins hold for a bound of the confidence interval: a model passes where its lower
    bound does, is refused where its upper bound is below, and in between the evidence is
    insufficient.
    """

    macro_auc_floor: float = Field(0.70, ge=0.0, le=1.0)
    class_auc_floor: float = Field(0.55, ge=0.0, le=1.0)
    min_people_per_class: int = Field(5, ge=2)  # of a class whose AUC counts
    min_people: PositiveInt = 20  # of the classes that count
    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    resamples: int = Field(2000, ge=1000)
    seed: int = 0
    # "beat": shown to be better than total CSF; "match": not shown to be worse, and its macro AUC
    # at most `total_csf_margin` lower; "report": printed only.
    total_csf: Literal["beat", "match", "report"] = "beat"
    total_csf_margin: float = Field(0.05, ge=0.0)
    live_margin: float = Field(0.05, ge=0.0)  # how much lower than the live version's, at most
    teacher_margin: float = Field(0.05, ge=0.0)
    sensitivity: float = Field(0.90, gt=0.0, lt=1.0)  # the operating point, set on validation
