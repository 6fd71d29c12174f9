"""What the fronts (REST, gRPC) ask of the engine, and what the engine tells those who watch it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.interface import Traffic
from registry.serving_config import ModelConfig

# TensorFlow Serving's words (tensorflow_serving/apis/get_model_status.proto).
State = Literal["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """One request, parsed and within its limits, its images not yet looked at.

    Attributes:
        model: name.
        images: PNG or JPEG files, one per instance, at least one.
        version: the version asked for, None when none was named.
        label: the label asked for, None when none was named; never both.
        request_id: chooses between live and canary where neither was named; printable, ≤ 128.
        deadline: `time.monotonic()` after which nobody waits for the answer; None: the server's.
    """

    model: str
    images: Sequence[bytes]
    version: int | None
    label: str | None
    request_id: str
    deadline: float | None = None


@dataclasses.dataclass(frozen=True)
class PredictAnswer:
    """What one version said.

    Attributes:
        model: name.
        version: the version that computed every row.
        outputs: name → float32[N, C]: `probabilities`, and `logits` where the runtime has them.
        classes: names, in the order of the columns.
    """

    model: str
    version: int
    outputs: Mapping[str, NDArray[np.float32]]
    classes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """One version's state. `error_code` is a gRPC status name, `OK` without an error."""

    version: int
    state: State
    error_code: str = "OK"
    error_message: str = ""


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a loaded version takes and gives.

    Attributes:
        model, version: of the answer.
        outputs: names of the outputs, each float32[N, C].
        classes: names, C of them.
    """

    model: str
    version: int
    outputs: Sequence[str]
    classes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Observation:
    """What became of one request: enough to count, to watch a canary, and to log; no image.

    Attributes:
        model: name; one that is configured, else "".
        version: that answered or failed, None when the request reached none.
        canary: the version was the canary then.
        routed: the version was chosen by the split, not by name.
        request_id: as above.
        code: `ok`, or a key of `serving.errors.CODES`.
        seconds: from the engine's start to its answer.
        images: how many.
        probabilities: float32[N, C] of a prediction, else None.
        descriptors: name → float32[N] (`schema.descriptors`), where they were measured.
    """

    model: str
    version: int | None
    canary: bool
    routed: bool
    request_id: str
    code: str
    seconds: float
    images: int
    probabilities: NDArray[np.float32] | None = None
    descriptors: Mapping[str, NDArray[np.float32]] | None = None

    @classmethod
    def unread(cls, model: str, request_id: str, code: str) -> "Observation":
        """Of a request that a front refused before the engine saw it."""
        return cls(
            model=model,
            version=None,
            canary=False,
            routed=False,
            request_id=request_id,
            code=code,
            seconds=0.0,
            images=0,
        )


Observer = Callable[[Observation], None]


class Engine(Protocol):
    """Loaded versions of all configured models, and who answers which request."""

    async def start(self) -> None:
        """Loads what `models.config` names and begins to watch it; returns at once after that.

        A version that cannot be loaded is left out with its reason in `status`, and what was
        serving goes on. A missing or broken file leaves what is loaded as it is.
        """

    async def stop(self) -> None:
        """Takes no new request, waits for those under way (`drain_seconds`), frees everything."""

    async def predict(self, request: PredictRequest) -> PredictAnswer:
        """Answers one request with exactly one version.

        Raises:
            ServingError: with any of the codes.
        """

    def status(
        self, model: str, version: int | None = None, label: str | None = None
    ) -> Sequence[VersionStatus]:
        """States of all versions known, newest first, or of one.

        Raises:
            ServingError: `not_found`.
        """

    def metadata(
        self, model: str, version: int | None = None, label: str | None = None
    ) -> ModelMetadata:
        """What a loaded version takes and gives; without version or label the live one.

        Raises:
            ServingError: `not_found`, `unavailable`.
        """

    async def reload(self, models: Sequence[ModelConfig]) -> None:
        """Serves exactly these models, as HandleReloadConfigRequest asks, until the file changes.

        Raises:
            ServingError: a version cannot be loaded; nothing was changed.
        """

    def models(self) -> Mapping[str, Traffic]:
        """Who answers requests that name neither a version nor a label, for every model served."""

    def observe(self, observer: Observer) -> None:
        """Calls `observer` after each request, on the event loop; it must not wait."""

    @property
    def ready(self) -> bool:
        """Every configured model has a live version that answers, and nothing is stopping."""

    @property
    def queued(self) -> int:
        """Images that wait for their turn."""
