"""Requests that wait are computed together: a bounded queue and worker threads.

A worker takes what is queued, admits it together, answers it, and hands each answer to the event
loop as soon as it is there. Nobody waits for company: one request alone is taken at once, and where
that takes a millisecond, by the event loop itself. The queue is bounded in images, so that waiting
is bounded in time; what does not fit is refused at once.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from serving.computing import Group, Job, Result, Target, admit, answer, late
from serving.config import BatchingSettings
from serving.errors import ServingError
from serving.headers import plain_and_small

SMOOTHING = 0.1  # of the running mean of seconds per image
SMALL_BYTES = 1 << 18  # of all images that one thread takes: above, decoding counts most
FEW = 8  # images that one thread takes where computing them together gains nothing
TURNS = 4  # of the event loop: an answer is sent, and what came meanwhile is read, in fewer
RETRY_AFTER = (1.0, 30.0)  # seconds, least and most


class Batcher:
    """The queue and its threads. Methods are for the event loop's thread.

    Args:
        settings: sizes.
        threads: workers, numbered from 0; the event loop's own number follows theirs.
    """

    def __init__(self, settings: BatchingSettings, threads: int):
        self._settings = settings
        self._count = threads
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._under_way = 0  # requests, from `submit` until they are answered
        self._turns = 0  # of the event loop, until it is known that nobody else is coming
        self._ready = threading.Condition(threading.Lock())
        self._admitting = threading.Lock()
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
            raise late()
        if self._alone(job):
            self._under_way += 1
            for group in admit([job]):
                answer(self._count, group)
            self._loop.call_soon(self._finish, [job])
            return job
        with self._ready:
            # A request larger than the whole queue is served when nobody else waits.
            if self._waiting and self._waiting + len(images) > self._settings.queue:
                raise self._overloaded(len(images))
            self._jobs.append(job)
            self._waiting += len(images)
            self._ready.notify()
        self._under_way += 1
        job.timer = self._loop.call_later(job.deadline - now, _expire, job)
        return job

    def _alone(self, job: Job) -> bool:
        """Whether a request is best computed at once, here.

        To wake another thread and to be woken takes as long as half of a small image's answer. It
        is worth it where others come meanwhile; here, nobody has come for some turns of the loop.
        """
        if self._under_way or self._turns or len(job.images) > 1:
            return False
        loaded = job.target.loaded
        return loaded is not None and loaded.brief and plain_and_small(job.images[0])

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
        while True:
            # One thread admits at a time. Threads that want Python's lock in turns only hinder each
            # other; meanwhile the others compute, and what arrives is admitted together.
            with self._admitting:
                jobs = self._take()
                if not jobs:
                    return
                start = time.monotonic()
                groups = admit(jobs) if _small(jobs) else None
            if groups is None:  # decoding large images does not hold the lock
                groups = admit(jobs)
            if not self._answer(worker, jobs, groups):
                return
            each = (time.monotonic() - start) / sum(len(job.images) for job in jobs)
            self._seconds += SMOOTHING * (each - self._seconds)
            del jobs, groups  # while this thread waits, the answers are the event loop's alone

    def _answer(self, worker: int, jobs: Sequence[Job], groups: Sequence[Group]) -> bool:
        """Answers jobs as soon as each can be; says whether somebody is there to be told."""
        admitted = {id(job) for group in groups for job in group.jobs}
        if not self._tell([job for job in jobs if id(job) not in admitted]):
            return False
        for group in groups:
            for part in group.parts():
                answer(worker, part)
                if not self._tell(part.jobs):
                    return False
        return True

    def _tell(self, jobs: Sequence[Job]) -> bool:
        assert self._loop is not None
        if jobs:
            try:
                self._loop.call_soon_threadsafe(self._finish, jobs)
            except RuntimeError:  # the loop was closed without `stop`: nobody is left to answer
                return False
        return True

    def _take(self) -> list[Job]:
        """Waits for requests and takes what waits, up to `max_batch` images; none at the end.

        Where the runtime gains nothing by more, it takes a few, and leaves the others to others.
        """
        with self._ready:
            while not self._jobs and not self._stopped:
                self._ready.wait()
            taken: list[Job] = []
            images = 0
            while self._jobs:
                size = len(self._jobs[0].images)
                if taken and images + size > self._most(self._jobs[0]):
                    self._ready.notify()
                    break
                taken.append(self._jobs.popleft())
                images += size
            self._waiting -= images
            return taken

    def _most(self, job: Job) -> int:
        loaded = job.target.loaded
        together = loaded is None or loaded.runtime.batches
        return self._settings.max_batch if together else min(FEW, self._settings.max_batch)

    # ------------------------------------------------------------------ on the event loop

    def _finish(self, jobs: Sequence[Job]) -> None:
        self._under_way -= len(jobs)
        if not self._under_way:
            if not self._turns and self._loop is not None:
                self._loop.call_soon(self._turn)
            self._turns = TURNS
        for job in jobs:
            if job.timer is not None:
                job.timer.cancel()
            if not job.future.done():
                if isinstance(job.outcome, Result):
                    job.future.set_result(job.outcome)
                else:
                    job.future.set_exception(job.outcome or late())
            job.done()

    def _turn(self) -> None:
        self._turns -= 1
        if self._turns and self._loop is not None:
            self._loop.call_soon(self._turn)


def _expire(job: Job) -> None:
    job.dropped = True
    if not job.future.done():
        job.future.set_exception(late())


def _small(jobs: Sequence[Job]) -> bool:
    return sum(len(image) for job in jobs for image in job.images) <= SMALL_BYTES
