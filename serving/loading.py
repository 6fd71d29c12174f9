"""From a version's folder to something that answers: verified, held to its golden batch, warmed.

Nothing here runs on the event loop: a load takes as long as it takes, while what serves goes on.
"""

import dataclasses
import functools
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.interface import VerificationError, Version
from registry.local import LocalRegistry
from registry.serving_config import ModelConfig
from serving import preprocessing
from serving.config import Limits, ServerSettings
from serving.errors import ServingError
from serving.runtime import CARD, Images, LoadError, Pixels, Runtime, read_card
from serving.runtime_litert import FILES, LiteRT
from trainer import golden, input_gate

GOLDEN, GATE = golden.FILE, input_gate.FILE
BRIEF_SECONDS = 0.002
SYNTHETIC = 64  # pixels, side of what warms a version that has no golden batch

log = logging.getLogger(__name__)


class Admitted(Images, Protocol):
    """Images that passed (`serving.admission.Admitted`)."""

    @property
    def descriptors(self) -> Mapping[str, NDArray[np.float32]] | None:
        """Name → float32[N], where they were measured."""


class Admission(Protocol):
    """What stands in front of a version (`serving.admission.Admission`). Thread-safe."""

    def admit_many(self, batches: Sequence[Sequence[bytes]]) -> Sequence[Admitted | ServingError]:
        """Decodes and judges several requests' images; each request fails by itself."""


AdmissionFactory = Callable[[Limits, int, Any], Admission]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A version that may take traffic.

    Attributes:
        runtime: answers.
        admission: decides what the runtime sees.
        note: what could not be checked, in words; empty when all was.
        brief: one image takes `BRIEF_SECONDS` at most, so that the event loop may compute it.
    """

    runtime: Runtime
    admission: Admission
    note: str = ""
    brief: bool = False


def server_admission(
    limits: Limits, channels: int, gate: Any, *, describe: bool = True
) -> Admission:
    """The server's own admission."""
    from serving.admission import Admission as Ours

    return Ours(limits, channels, gate, describe=describe)


class Loader:
    """Loads versions out of registries in local folders.

    Args:
        settings: runtime, limits, whether the input gate counts.
        workers: threads that will call each runtime.
        admission: makes what stands in front of a version; None: the server's own, which describes
            images where the gate or the prediction log asks for it, since that costs more than
            a small model does.
    """

    def __init__(
        self, settings: ServerSettings, workers: int, admission: AdmissionFactory | None = None
    ):
        self._settings = settings
        self._workers = workers
        own = functools.partial(server_admission, describe=settings.prediction_log is not None)
        self._admission = admission or own

    def load(self, model: ModelConfig, number: int) -> Loaded:
        """Verifies a version byte by byte, loads it, and holds it to its golden batch.

        Args:
            model: entry of `models.config`; its `base_path` is the model's folder in a registry.
            number: the version.

        Raises:
            CortexflowError: the version must not serve; the message says why.
            OSError: it cannot be read.
        """
        base = Path(model.base_path)
        registry = LocalRegistry(base.parent, base.name)
        version = registry.verify(number)
        files = _Files(registry.path(number), version)
        runtime = self._runtime(files)
        try:
            note, seconds = self._check(runtime, files)
            return Loaded(
                runtime,
                self._admission(self._settings.limits, runtime.channels, self._gate(files)),
                note,
                brief=not runtime.batches and seconds <= BRIEF_SECONDS,
            )
        except BaseException:
            runtime.close()
            raise

    def _runtime(self, files: "_Files") -> Runtime:
        wanted = self._settings.runtime
        card = read_card(files.read(CARD)) if CARD in files else None
        name = "litert-int8" if wanted == "auto" else wanted
        file = FILES.get(name)
        if file is not None and card is not None and file in files:
            return LiteRT(files.read(file), card, name, self._workers)
        if wanted in FILES:
            raise LoadError(
                f"The version cannot be run as {wanted}: it has no "
                f"{CARD if card is None else FILES[wanted]}. Serve it with runtime auto or "
                "savedmodel, or export the model anew."
            )
        from serving.runtime_savedmodel import SavedModel

        return SavedModel(files.folder, card, self._settings.batching.max_batch)

    def _gate(self, files: "_Files") -> Any:
        if not self._settings.input_gate or GATE not in files:
            return None
        return input_gate.parse(files.read(GATE))

    def _check(self, runtime: Runtime, files: "_Files") -> tuple[str, float]:
        """Runs the golden batch, or a synthetic image, on every worker's share of the runtime.

        Returns:
            What could not be checked, in words, and the least seconds that an image took.
        """
        images, wanted = None, None
        if GOLDEN in files:
            images, wanted = read_golden(files.read(GOLDEN), runtime.golden, runtime.channels)
        if images is None:
            shape = (SYNTHETIC, SYNTHETIC) if runtime.channels == 1 else (SYNTHETIC, SYNTHETIC, 3)
            ramp = np.linspace(0, 255, int(np.prod(shape))).reshape(shape)
            images = [ramp.astype(np.uint8)]
        seconds = math.inf
        for worker in range(self._workers):
            start = time.perf_counter()
            answers = runtime.run(worker, [Pixels(images)])["probabilities"]
            seconds = min(seconds, (time.perf_counter() - start) / len(images))
            compare(answers, wanted, (len(images), len(runtime.classes)), runtime.tolerance)
        if wanted is not None:
            return "", seconds
        note = f"no golden answers for {runtime.name}: warmed with a synthetic image, not checked"
        return note, seconds


def read_golden(
    content: bytes, column: str, channels: int
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32] | None]:
    """Reads the pictures, decoded, and float32[B, C], what a runtime answered at export.

    Args:
        content: `golden.npz` (`trainer.golden`).
        column: of the answers; None where the model was exported without that runtime's file.
        channels: to decode to.

    Raises:
        GoldenError: the file is damaged.
    """
    batch = golden.parse(content)
    images = [preprocessing.decode(file, channels) for file in batch.images]
    return images, batch.answers.get(column)


def compare(
    answers: NDArray[np.float32],
    wanted: NDArray[np.float32] | None,
    shape: tuple[int, int],
    tolerance: float,
) -> None:
    """Holds answers to the golden ones.

    Args:
        answers: float32[B, C], as just computed.
        wanted: float32[B, C], as computed at export; None checks form alone.
        shape: (B, C).
        tolerance: most that one probability may differ.

    Raises:
        LoadError: names the largest difference.
    """
    if answers.shape != shape or not np.isfinite(answers).all():
        raise LoadError(
            f"The model does not answer with {shape[0]} × {shape[1]} finite probabilities "
            f"(received shape {list(answers.shape)})."
        )
    if wanted is None:
        return
    if wanted.shape != shape:
        raise LoadError(f"{GOLDEN} holds answers of shape {list(wanted.shape)}, not {list(shape)}.")
    difference = float(np.abs(answers - wanted).max())
    if not difference <= tolerance:
        raise LoadError(
            f"The model does not answer its golden batch as at export: a probability differs by "
            f"{difference:.3g}, at most {tolerance:g} is allowed. Export it anew, or serve it on "
            "the kind of machine it was exported on."
        )


class _Files:
    """A version's files, each read as it was verified."""

    def __init__(self, folder: Path, version: Version):
        self.folder = folder
        self._digests = {file.path: file.sha256 for file in version.files}

    def __contains__(self, path: str) -> bool:
        return path in self._digests

    def read(self, path: str) -> bytes:
        content = (self.folder / path).read_bytes()
        if hashlib.sha256(content).hexdigest() != self._digests[path]:
            raise VerificationError(f"{path} in {self.folder} was changed after it was pushed.")
        return content
