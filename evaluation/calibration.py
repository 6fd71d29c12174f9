"""Do probabilities mean what they say? Measured before and after temperature scaling.

A classifier's probabilities are `softmax(logits / T)`, with a T that was fitted on validation
people (`trainer.calibration`, Guo et al. 2017). What the softmax gave without T follows from them
alone, and so both can be held against people who had no part in fitting T.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer import metrics
from trainer.metric_inputs import checked, checked_table
from trainer.metrics import Reliability

BINS = 10


class Calibration(NamedTuple):
    """How far probabilities are from what happened.

    Attributes:
        examples: how many people, or slices.
        log_loss: in nats (`metrics.log_loss`).
        brier: in [0, 2].
        expected_calibration_error: in [0, 1].
        reliability: confidence against accuracy, by bins of confidence.
    """

    examples: int
    log_loss: float
    brier: float
    expected_calibration_error: float
    reliability: Reliability

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON; None where a bin is empty."""
        told = self._asdict()
        bins = self.reliability
        told["reliability"] = {
            "edges": bins.edges.tolist(),
            "confidence": _or_none(bins.confidence),
            "accuracy": _or_none(bins.accuracy),
            "counts": bins.counts.tolist(),
        }
        return told


class Comparison(NamedTuple):
    """Calibration of the softmax as it came (`before`), and divided by T as it is served."""

    before: Calibration
    after: Calibration


def uncalibrated(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Undoes temperature scaling: softmax(z) from softmax(z / T).

    The logits are T · log p up to a constant of each row, which a softmax does not see; so the
    answer is p ** T, made to sum to 1 again. Exact but for probabilities that float32 had rounded
    to 0, which stay 0.

    Args:
        probabilities: float[N, C] in [0, 1], each row with a sum above 0.
        temperature: T, finite and above 0.

    Returns:
        float64[N, C], rows that sum to 1.

    Raises:
        ValueError: probabilities as in `trainer.metrics`, rows of zeros, or a T out of range.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"A temperature is a number above 0 (received {temperature}).")
    table = np.clip(checked_table(probabilities), 0.0, 1.0)
    peaks = table.max(axis=1, keepdims=True)
    if not peaks.all():
        raise ValueError(
            f"A row of probabilities must not be all 0 (received {int((peaks == 0).sum())} such)."
        )
    powers = (table / peaks) ** temperature  # its largest is 1: nothing overflows or vanishes
    return powers / powers.sum(axis=1, keepdims=True)


def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Calibration:
    """Measures probabilities float[N, C] against labels int[N]; ValueError as `trainer.metrics`."""
    return Calibration(
        np.size(labels),
        metrics.log_loss(probabilities, labels),
        metrics.brier(probabilities, labels),
        metrics.expected_calibration_error(probabilities, labels, bins),
        metrics.reliability(probabilities, labels, bins),
    )


def comparison(
    probabilities: ArrayLike,
    labels: ArrayLike,
    temperature: float,
    subjects: ArrayLike | None = None,
    bins: int = BINS,
) -> dict[str, Comparison]:
    """Calibration before and after temperature scaling, by slices and by people.

    A person's probabilities are the mean over slices, before as after: T is applied to slices, so
    that it is undone there.

    Args:
        probabilities: float[N, C], as served.
        labels: int[N] in [0, C).
        temperature: T that they were divided by; 1 gives the same twice.
        subjects: [N], the person of each slice; None for slice-level data.
        bins: of confidence.

    Returns:
        `slice`, and `subject` where people are known.

    Raises:
        ValueError: as `uncalibrated`, and as `metrics.aggregate_by_subject`.
    """
    served, truth = checked(probabilities, labels)
    plain = uncalibrated(served, temperature)
    found = {"slice": Comparison(calibration(plain, truth, bins), calibration(served, truth, bins))}
    if subjects is not None:
        by_person = [metrics.aggregate_by_subject(of, truth, subjects) for of in (plain, served)]
        found["subject"] = Comparison(
            *(calibration(means, labels, bins) for _, means, labels in by_person)
        )
    return found


def _or_none(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]
