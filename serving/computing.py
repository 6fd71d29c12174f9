"""What a worker thread does with the requests that it took: admit them, then answer them.

Admission is Python and many small arrays: it costs less for several images at once, and holds
Python's lock nearly all the time. What computes an answer does not hold it.
"""

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.loading import Admitted, Loaded
from serving.runtime import Outputs

log = logging.getLogger(__name__)


class Result(NamedTuple):
    """One request's answer.

    Attributes:
        outputs: name → float32[N, C].
        descriptors: name → float32[N], or None.
    """

    outputs: Outputs
    descriptors: Mapping[str, NDArray[np.float32]] | None


class Target(Protocol):
    """A version that requests are meant for."""

    @property
    def loaded(self) -> Loaded | None:
        """What answers; not None while a request is under way."""


class Job:
    """One request on its way through the queue.

    Attributes:
        target: the version that answers.
        images: encoded.
        deadline: `time.monotonic()` after which nobody waits.
        future: resolves to a `Result` or a `ServingError`, on the event loop.
        dropped: nobody waits any more; computing it would be waste.
    """

    __slots__ = ("deadline", "done", "dropped", "future", "images", "outcome", "target", "timer")

    def __init__(
        self,
        target: Target,
        images: Sequence[bytes],
        deadline: float,
        future: "asyncio.Future[Result]",
        done: Callable[[], None],
    ):
        self.target = target
        self.images = images
        self.deadline = deadline
        self.future = future
        self.done = done
        self.dropped = False
        self.outcome: Result | ServingError | None = None
        self.timer: asyncio.TimerHandle | None = None


class Group(NamedTuple):
    """Admitted requests of one version, to be computed together.

    Attributes:
        loaded: the version.
        passed: jobs, and their images as the model may see them; one at least.
    """

    loaded: Loaded
    passed: Sequence[tuple[Job, Admitted]]

    @property
    def jobs(self) -> list[Job]:
        """The requests."""
        return [job for job, _ in self.passed]

    def parts(self) -> "Iterator[Group]":
        """What is answered at once: all, or each request where the runtime gains nothing by it."""
        if self.loaded.runtime.batches:
            yield self
        else:
            for one in self.passed:
                yield Group(self.loaded, [one])


def admit(jobs: Sequence[Job]) -> list[Group]:
    """Admits what is not too late, those of one version together.

    Args:
        jobs: taken from the queue. A job that is in no group has ended; without an outcome it was
            too late.
    """
    now = time.monotonic()
    versions: dict[int, list[Job]] = {}
    for job in jobs:
        if not job.dropped and job.deadline > now:
            versions.setdefault(id(job.target), []).append(job)
    groups = []
    for own in versions.values():
        try:
            groups.append(_admit(own))
        except Exception:
            for job in own:  # one request's failure is not its neighbours'
                try:
                    groups.append(_admit([job]))
                except Exception as error:
                    _fail(job, error)
    return [group for group in groups if group.passed]


def answer(worker: int, group: Group) -> None:
    """Computes answers; each job ends with an outcome.

    Args:
        worker: number of the calling thread.
        group: from `admit`.
    """
    try:
        _answer(worker, group)
    except Exception:
        for one in group.passed:
            try:
                _answer(worker, Group(group.loaded, [one]))
            except Exception as error:
                _fail(one[0], error)


def late() -> ServingError:
    """The answer to a request that waited too long."""
    return ServingError(
        "deadline_exceeded",
        "The deadline passed before the answer was there. Send fewer images at once, or allow more "
        "time.",
    )


def _fail(job: Job, error: Exception) -> None:
    # Where and what kind, not the message: a decoder's may quote the file.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("a request of %d image(s) failed: %s\n%s", len(job.images), type(error), frames)
    job.outcome = ServingError("internal", "The model failed on this request. It was logged.")


def _admit(jobs: Sequence[Job]) -> Group:
    loaded = jobs[0].target.loaded
    if loaded is None:
        raise RuntimeError("a version was freed while a request was under way")
    passed: list[tuple[Job, Admitted]] = []
    outcomes = loaded.admission.admit_many([job.images for job in jobs])
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, ServingError):
            job.outcome = outcome
        else:
            passed.append((job, outcome))
    return Group(loaded, passed)


def _answer(worker: int, group: Group) -> None:
    outputs = group.loaded.runtime.run(worker, [admitted for _, admitted in group.passed])
    if not math.isfinite(sum(float(values.sum()) for values in outputs.values())):
        raise FloatingPointError("an answer is not finite")
    start = 0
    for job, admitted in group.passed:
        end = start + len(job.images)
        rows = {name: values[start:end] for name, values in outputs.items()}
        job.outcome = Result(rows, admitted.descriptors)
        start = end
