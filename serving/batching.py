"""Requests that wait are computed together: a bounded queue and worker threads.

A worker takes what is queued, admits and answers it, and hands all answers to the event loop in
one call. Nobody waits for company: one request alone is taken at once. The queue is bounded in
images, so that waiting is bounded in time; what does not fit is refused at once.
"""

import asyncio
import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.config import BatchingSettings
from serving.errors import ServingError
from serving.loading import Admission, Admitted, Loaded
from serving.runtime import Outputs, Runtime

SMOOTHING = 0.1  # of the running mean of seconds per image
RETRY_AFTER = (1.0, 30.0)  # seconds, least and most

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


class Batcher:
    """The queue and its threads. Methods are for the event loop's thread.

    Args:
        settings: sizes.
        threads: workers, numbered from 0.
    """

    def __init__(self, settings: BatchingSettings, threads: int):
        self._settings = settings
        self._count = threads
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._ready = threading.Condition(threading.Lock())
        self._stopped = False
        self._seconds = 0.0  # per image and thread
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def queued(self) -> int:
        """Images that wait."""
        return self._waiting

    def start(self) -> None:
        """Starts the threads; answers are delivered on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"infer-{number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Refuses what still waits, and lets each thread end after what it computes."""
        with self._ready:
            self._stopped = True
            left, self._jobs, self._waiting = list(self._jobs), deque(), 0
            self._ready.notify_all()
        for job in left:
            job.outcome = ServingError("unavailable", "The server stops. Ask another.")
        self._finish(left)

    def join(self, seconds: float) -> bool:
        """Waits for the threads; says whether all ended."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def submit(
        self,
        target: Target,
        images: Sequence[bytes],
        deadline: float | None,
        done: Callable[[], None],
    ) -> Job:
        """Queues one request.

        Args:
            target: the version that answers.
            images: encoded, at least one.
            deadline: `time.monotonic()`; None: the server's own. The earlier of both counts.
            done: called once no thread uses `target` for this request any more.

        Raises:
            ServingError: `overloaded`, `deadline_exceeded`.
        """
        assert self._loop is not None, "start() comes first"
        now = time.monotonic()
        latest = now + self._settings.deadline_seconds
        job = Job(
            target,
            images,
            latest if deadline is None else min(deadline, latest),
            self._loop.create_future(),
            done,
        )
        if job.deadline <= now:
            raise _late()
        with self._ready:
            # A request larger than the whole queue is served when nobody else waits.
            if self._waiting and self._waiting + len(images) > self._settings.queue:
                raise self._overloaded(len(images))
            self._jobs.append(job)
            self._waiting += len(images)
            self._ready.notify()
        job.timer = self._loop.call_later(job.deadline - now, _expire, job)
        return job

    def _overloaded(self, images: int) -> ServingError:
        wait = self._waiting * self._seconds / self._count
        return ServingError(
            "overloaded",
            f"{self._waiting} images wait already, {self._settings.queue} may; the request has "
            f"{images}. Send it again later.",
            retry_after=min(max(wait, RETRY_AFTER[0]), RETRY_AFTER[1]),
        )

    # ------------------------------------------------------------------ in the threads

    def _work(self, worker: int) -> None:
        assert self._loop is not None
        while jobs := self._take():
            start = time.monotonic()
            images = compute(worker, jobs)
            if images:
                each = (time.monotonic() - start) / images
                self._seconds += SMOOTHING * (each - self._seconds)
            try:
                self._loop.call_soon_threadsafe(self._finish, jobs)
            except RuntimeError:  # the loop was closed without `stop`: nobody is left to answer
                return
            del jobs  # while this thread waits, the answers are the event loop's alone

    def _take(self) -> list[Job]:
        """Waits for requests and takes all that wait, up to `max_batch` images; none at the end."""
        with self._ready:
            while not self._jobs and not self._stopped:
                self._ready.wait()
            taken: list[Job] = []
            images = 0
            while self._jobs:
                size = len(self._jobs[0].images)
                if taken and images + size > self._settings.max_batch:
                    self._ready.notify()
                    break
                taken.append(self._jobs.popleft())
                images += size
            self._waiting -= images
            return taken

    # ------------------------------------------------------------------ on the event loop

    def _finish(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.timer is not None:
                job.timer.cancel()
            if not job.future.done():
                if isinstance(job.outcome, Result):
                    job.future.set_result(job.outcome)
                else:
                    job.future.set_exception(job.outcome or _late())
            job.done()


def _expire(job: Job) -> None:
    job.dropped = True
    if not job.future.done():
        job.future.set_exception(_late())


def _late() -> ServingError:
    return ServingError(
        "deadline_exceeded",
        "The deadline passed before the answer was there. Send fewer images at once, or allow more "
        "time.",
    )


def compute(worker: int, jobs: Sequence[Job]) -> int:
    """Answers jobs, those of one version together; each ends with an outcome unless it is too late.

    Args:
        worker: number of the calling thread.
        jobs: taken from the queue.

    Returns:
        How many images were looked at.
    """
    now = time.monotonic()
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        if not job.dropped and job.deadline > now:
            groups.setdefault(id(job.target), []).append(job)
    for group in groups.values():
        try:
            _answer(worker, group)
        except Exception:
            for job in group:  # one request's failure is not its neighbours'
                try:
                    _answer(worker, [job])
                except Exception as error:
                    _fail(job, error)
    return sum(len(job.images) for group in groups.values() for job in group)


def _fail(job: Job, error: Exception) -> None:
    # Where and what kind, not the message: a decoder's may quote the file.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("a request of %d image(s) failed: %s\n%s", len(job.images), type(error), frames)
    job.outcome = ServingError("internal", "The model failed on this request. It was logged.")


def _answer(worker: int, jobs: Sequence[Job]) -> None:
    loaded = jobs[0].target.loaded
    if loaded is None:
        raise RuntimeError("a version was freed while a request was under way")
    admission: Admission = loaded.admission
    runtime: Runtime = loaded.runtime
    passed: list[tuple[Job, Admitted]] = []
    outcomes = admission.admit_many([job.images for job in jobs])
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, ServingError):
            job.outcome = outcome
        else:
            passed.append((job, outcome))
    if not passed:
        return
    outputs = runtime.run(worker, [admitted for _, admitted in passed])
    if not math.isfinite(sum(float(values.sum()) for values in outputs.values())):
        raise FloatingPointError("an answer is not finite")
    start = 0
    for job, admitted in passed:
        end = start + len(job.images)
        rows = {name: values[start:end] for name, values in outputs.items()}
        job.outcome = Result(rows, admitted.descriptors)
        start = end
