"""The input gate: is this image of the kind that the model was trained on?

Three kinds of scores, each 1 at its limit, the largest of which decides:

* `descriptors`: Mahalanobis distance of the image descriptors (`schema.descriptors`) from those of
  training, with a shrunk covariance (Ledoit & Wolf 2004, J. Multivariate Analysis 88:365).
* `appearance`: what a subspace of principal components leaves unexplained of a 16 × 16 thumbnail.
* `orientation`: linear discriminants between the thumbnail as it is and each of the seven ways to
  turn or mirror it. Those that training images cannot tell apart are left out, and said so.

The confidence of a classifier has no part in it: a network is as sure of noise as of a brain. What
is kept are means, covariances and subspaces over many people; no person's image or values.
`trainer.input_gate_fit` fits it; nothing here or there needs TensorFlow.
"""

import functools
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schema.brain import GRID
from schema.descriptors import NAMES
from schema.errors import CortexflowError
from trainer.arrays import unpack

FILE = "input_gate.npz"  # in a version's folder, beside saved_model.pb
FORMAT = 1
MAX_BYTES = 1 << 20  # of the file, before and after unpacking
SIDE = 16  # of a thumbnail, pixels
CONTRAST_FLOOR = 1.0  # grey levels: below it a thumbnail is empty, and is not stretched
SHOWN = 3  # descriptors named with a refusal

Stage = Literal["descriptors", "appearance", "orientation"]
Images = NDArray[np.float64]

# How an image may come in, as an operation on upright ones: float[N, S, S] to the same.
_TURNS: dict[str, Callable[[Any], Any]] = {
    "rotated_90": lambda image: np.rot90(image, 1, (1, 2)),
    "rotated_180": lambda image: np.rot90(image, 2, (1, 2)),
    "rotated_270": lambda image: np.rot90(image, 3, (1, 2)),
    "mirrored": lambda image: image[:, :, ::-1],
    "upside_down": lambda image: image[:, ::-1],
    "transposed": lambda image: image.swapaxes(1, 2),
    "antitransposed": lambda image: image[:, ::-1, ::-1].swapaxes(1, 2),
}
TURNS = tuple(_TURNS)
_PIXELS = np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE)
# int[7, SIDE²]: `thumbnail[TURNED[k]]` is the thumbnail turned by TURNS[k].
TURNED = np.stack([turn(_PIXELS).ravel() for turn in _TURNS.values()])

_ARRAYS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "mean": ("f8", (len(NAMES),)),
    "deviation": ("f8", (len(NAMES),)),
    "precision": ("f8", (len(NAMES), len(NAMES))),
    "low": ("f4", (len(NAMES),)),
    "high": ("f4", (len(NAMES),)),
    "template": ("f4", (SIDE * SIDE,)),
    "components": ("f4", ("K", SIDE * SIDE)),
    "discriminants": ("f4", ("T", SIDE * SIDE)),
    "turns": ("i8", ("T",)),
    "centres": ("f8", ("S",)),
    "limits": ("f8", ("S",)),
}
_LABELS = ("format", "names", "report")


class InputGateError(CortexflowError):
    """An input gate cannot be fitted or read."""


@dataclass(frozen=True)
class Failing:
    """A descriptor far from those of training.

    Attributes:
        name: of `schema.descriptors`.
        value: measured.
        low, high: the 1 % and 99 % quantiles of the training images.
        deviation: from the training mean, in standard deviations.
    """

    name: str
    value: float
    low: float
    high: float
    deviation: float


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one image.

    Attributes:
        accepted: the model may answer for it.
        score: the largest score; above 1 refuses.
        reason: the stage that refused, None when accepted.
        turned: how the image seems to be turned, a name of `TURNS`; of `orientation` alone.
        failing: the descriptors farthest from training, at most three; empty when accepted.
    """

    accepted: bool
    score: float
    reason: Stage | None = None
    turned: str | None = None
    failing: tuple[Failing, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For an answer to a client: numbers and fixed words only."""
        return {
            "reason": self.reason,
            "turned": self.turned,
            "score": round(self.score, 3),
            "failing": [
                {
                    "name": one.name,
                    "value": float(f"{one.value:.4g}"),
                    "low": float(f"{one.low:.4g}"),
                    "high": float(f"{one.high:.4g}"),
                    "deviation": round(one.deviation, 1),
                }
                for one in self.failing
            ],
        }


def thumbnails(grids: NDArray[np.floating]) -> Images:
    """Shrinks grids to thumbnails of mean 0 and standard deviation 1, blind to gain and offset.

    Args:
        grids: float[N, GRID, GRID] in [0, 255] (`schema.descriptors.measure`).

    Returns:
        float64[N, SIDE²].
    """
    small = _SHRINK @ grids.astype(np.float64) @ _SHRINK.T
    flat = small.reshape(len(grids), SIDE * SIDE)
    flat -= np.add.reduce(flat, axis=1, keepdims=True) / SIDE**2
    contrast = np.sqrt(_squares(flat) / SIDE**2)
    flat /= np.maximum(contrast, CONTRAST_FLOOR)[:, None]
    return flat


# float64[SIDE, GRID]: means of neighbouring pixels; a power of two, so that they are exact.
_SHRINK = np.repeat(np.eye(SIDE), GRID // SIDE, axis=1) / (GRID // SIDE)


def _squares(values: Images) -> Images:
    """Sums of squares along the last axis: float64[N, K] → float64[N]."""
    return (values[:, None, :] @ values[:, :, None])[:, 0, 0]


def table(descriptors: Mapping[str, NDArray[np.floating]]) -> Images:
    """The descriptors side by side: float64[N, len(NAMES)].

    Raises:
        InputGateError: one is missing.
    """
    missing = [name for name in NAMES if name not in descriptors]
    if missing:
        raise InputGateError(
            f"The input gate needs every descriptor of schema.descriptors (missing: {missing}). "
            "Measure them with the code that the model was trained with."
        )
    return np.array([descriptors[name] for name in NAMES], np.float64).T


class _Wide(NamedTuple):
    """What scoring multiplies by, as float64 and laid out for it, so that no call converts it."""

    template: Images
    components: Images
    discriminants: Images


@dataclass(frozen=True, eq=False)
class InputGate:
    """A fitted gate. Thread-safe: judging changes nothing.

    Attributes:
        mean, deviation: float64[D] of the training descriptors, D = len(NAMES).
        precision: float64[D, D], inverse covariance of the standardised descriptors.
        low, high: float32[D], 1 % and 99 % quantiles of the training descriptors.
        template: float32[SIDE²], the mean thumbnail.
        components: float32[K, SIDE²], orthonormal.
        discriminants: float32[T, SIDE²], one for each way of turning that can be told.
        turns: int64[T], their places in `TURNS`.
        centres, limits: float64[2 + T], raw score of the typical and of the last accepted image.
        report: what was measured when it was fitted (`trainer.input_gate_fit`), JSON values.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    precision: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    template: NDArray[np.float32]
    components: NDArray[np.float32]
    discriminants: NDArray[np.float32]
    turns: NDArray[np.int64]
    centres: NDArray[np.float64]
    limits: NDArray[np.float64]
    report: Mapping[str, Any]

    def judge(
        self, descriptors: Mapping[str, NDArray[np.floating]], grids: NDArray[np.floating]
    ) -> list[Verdict]:
        """Judges images, each by itself.

        Args:
            descriptors: name → float[N].
            grids: float[N, GRID, GRID] in [0, 255], of the same images, both from
                `schema.descriptors.measure`.

        Raises:
            InputGateError: a descriptor is missing.
        """
        values, small = table(descriptors), thumbnails(grids)
        scores = self.scores(values, small)
        return [
            Verdict(True, worst)
            if worst <= 1
            else self._refusal(values[row], small[row], scores[row])
            for row, worst in enumerate(scores.max(1, initial=-np.inf).tolist())
        ]

    def scores(self, values: Images, small: Images) -> Images:
        """Scores of every stage, 1 at the limit: float64[N, 2 + T].

        Args:
            values: float64[N, D], from `table`.
            small: float64[N, SIDE²], from `thumbnails`.
        """
        raw = self.raw_scores(values, small)
        return (raw - self.centres) / (self.limits - self.centres)

    def raw_scores(self, values: Images, small: Images) -> Images:
        """The scores in their own units: distance, log of the residual, log odds of turning."""
        raw = np.empty((len(values), len(self.limits)))
        raw[:, 0] = self._distance(values)
        raw[:, 1] = self._residual(small)
        raw[:, 2:] = small @ self._wide.discriminants
        return raw

    @functools.cached_property
    def _wide(self) -> "_Wide":
        return _Wide(
            self.template.astype(np.float64),
            np.ascontiguousarray(self.components.T, np.float64),
            np.ascontiguousarray(self.discriminants.T, np.float64),
        )

    def _distance(self, values: Images) -> Images:
        standard = (values - self.mean) / self.deviation
        squared = ((standard @ self.precision)[:, None, :] @ standard[:, :, None])[:, 0, 0]
        return np.sqrt(np.maximum(squared, 0))

    def _residual(self, small: Images) -> Images:
        centred = small - self._wide.template
        left = _squares(centred) - _squares(centred @ self._wide.components)
        return np.log(np.maximum(left / centred.shape[1], 1e-9)) / 2

    def _refusal(self, values: Images, small: Images, scores: Images) -> Verdict:
        deviations = (values - self.mean) / self.deviation
        failing = tuple(
            Failing(
                NAMES[place],
                float(values[place]),
                float(self.low[place]),
                float(self.high[place]),
                float(deviations[place]),
            )
            for place in np.argsort(-np.abs(deviations))[:SHOWN]
        )
        turned = self._turned(small, scores[2:])
        if turned:
            reason: Stage = "orientation"
        elif scores[1] > max(scores[0], 1):
            reason = "appearance"
        else:
            reason = "descriptors" if scores[0] > 1 else "orientation"
        return Verdict(False, float(scores.max()), reason, turned, failing)

    def _turned(self, small: Images, odds: Images) -> str | None:
        """Names the turn, if turning back makes of it what the model knows."""
        if not (odds > 1).any():
            return None
        turn = int(self.turns[np.argmax(odds)])
        upright = np.empty_like(small)
        upright[TURNED[turn]] = small
        residual = self._residual(upright[None])[0]
        return TURNS[turn] if residual <= self.limits[1] else None

    def save(self, path: Path) -> None:
        """Writes the gate, without pickle; a reader sees all of it or nothing."""
        buffer = io.BytesIO()
        report = np.frombuffer(json.dumps(self.report, sort_keys=True).encode(), np.uint8)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(
            buffer, format=np.int64(FORMAT), names=np.array(NAMES), report=report, **arrays
        )
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(buffer.getvalue())
        os.replace(partial, path)


def load(path: Path) -> InputGate:
    """Reads a gate from a file.

    Raises:
        InputGateError: as `parse`, or the file is missing.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputGateError(_unreadable(error)) from error
    return parse(content)


def parse(content: bytes) -> InputGate:
    """Reads a gate from a file's content.

    Raises:
        InputGateError: it is too large, damaged, of another format or for other descriptors, or an
            array has another shape or a value that is no number.
    """
    try:
        stored = unpack(content, MAX_BYTES)
        missing = {*_ARRAYS, *_LABELS} - stored.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return _checked(stored)
    except (ValueError, RecursionError) as error:  # the latter of its report, as JSON
        raise InputGateError(_unreadable(error)) from error


def _unreadable(error: BaseException) -> str:
    return (
        f"{FILE} is no input gate that can be used here: {error}. Export the model again, or "
        "serve without its gate."
    )


def _checked(stored: Mapping[str, NDArray[Any]]) -> InputGate:
    if (
        stored["format"].dtype != np.int64
        or stored["format"].shape
        or int(stored["format"]) != FORMAT
    ):
        raise ValueError(f"its format is not {FORMAT}")
    if tuple(stored["names"].tolist()) != NAMES:
        raise ValueError("it was fitted on other descriptors than this program measures")
    sizes: dict[str, int] = {}
    arrays = {}
    for name, (dtype, shape) in _ARRAYS.items():
        array = stored[name]
        wanted = tuple(
            side if isinstance(side, int) else sizes.setdefault(side, length)
            for side, length in zip(shape, array.shape, strict=False)
        )
        if array.dtype != np.dtype(dtype) or len(array.shape) != len(shape):
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}")
        if array.shape != wanted or not np.isfinite(array).all():
            raise ValueError(f"{name} has the shape {list(array.shape)}, or holds no number")
        arrays[name] = array
    turns = arrays["turns"]
    if sizes["S"] != 2 + len(turns) or not ((turns >= 0) & (turns < len(TURNS))).all():
        raise ValueError("its limits and its turns do not fit each other")
    if not ((arrays["limits"] > arrays["centres"]).all() and (arrays["deviation"] > 0).all()):
        raise ValueError("a limit lies below what is typical, or a deviation is not above 0")
    report = json.loads(stored["report"].tobytes())
    if not isinstance(report, dict):
        raise ValueError("its report is no JSON object")
    return InputGate(report=report, **arrays)
