"""From an object's arrival to a run: wait until a dataset is quiet, submit once, remember it.

Nothing is acknowledged before its run is known to exist. Whoever sent the message keeps it until
then and delivers it again after a failure, so that the trigger needs no queue of its own.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.backends.interface import Backend, BackendError, Run, RunRequest
from pipeline.trigger_book import Book, Entry
from pipeline.trigger_events import Arrival

# Rounds of the window after which a dataset that never rests is submitted all the same.
MAX_WINDOWS = 10
RECENT = 50  # runs among which one is looked for that was submitted just before a crash

Outcome = Literal["started", "adopted", "duplicate", "overtaken", "ignored", "would start"]


class TriggerSettings(BaseModel):
    """What a trigger submits, and when.

    Attributes:
        on: address of the backend, as `pipeline.backends.opening` knows it.
        watch: addresses below which datasets start runs.
        suffix: end of the name of the object that is written last; the dataset lies before it.
        name: of runs, before what tells them apart.
        experiment: that they belong to.
        pipeline_root: where their artifacts go; "": the package's default.
        service_account: under which nodes run; "": the cluster's own.
        parameters: further runtime parameters, by name.
        debounce: seconds for which a dataset has to rest before its run starts.
        timeout: seconds after which a submission is given up and the message refused.
        dry_run: tell what would be submitted, and submit nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: str = Field(min_length=1)
    watch: tuple[str, ...] = Field(min_length=1)
    suffix: str = Field("/dataset.json", pattern=r"^/[^/]+$")
    name: str = Field("new-data", pattern=r"^[a-z][a-z0-9-]{0,39}$")
    experiment: str = "new-data"
    pipeline_root: str = ""
    service_account: str = ""
    parameters: dict[str, Any] = {}
    debounce: float = Field(5.0, ge=0, le=300)
    timeout: float = Field(60.0, gt=0, le=540)
    dry_run: bool = False

    @model_validator(mode="after")
    def _watched_are_addresses(self) -> "TriggerSettings":
        for place in self.watch:
            if not re.fullmatch(r"(gs|s3|minio)://[^/\s]+(/\S*)?", place):
                raise ValueError(
                    f"watch needs addresses such as gs://BUCKET/FOLDER (received {place!r})"
                )
        return self

    def dataset(self, arrival: Arrival) -> str | None:
        """The dataset that an arrival completes; None if it is none that is watched."""
        if arrival.whole:
            found = arrival.uri.rstrip("/")
        elif arrival.uri.endswith(self.suffix):
            found = arrival.uri.removesuffix(self.suffix)
        else:
            return None
        places = (place.rstrip("/") for place in self.watch)
        return found if any(f"{found}/".startswith(f"{place}/") for place in places) else None


class Submission(NamedTuple):
    """What is handed to the backend."""

    name: str
    dataset: str
    parameters: dict[str, Any]
    labels: dict[str, str]


class Answer(NamedTuple):
    """What became of an arrival: in a word, with the run's name, id and address where there are."""

    outcome: Outcome
    dataset: str = ""
    name: str = ""
    run: str = ""
    url: str = ""


@dataclasses.dataclass(eq=False)
class _Pending:
    """A dataset that is not at rest yet: its newest arrival, and the task that waits for it."""

    arrivals: dict[str, Arrival]
    due: float
    last: float
    task: "asyncio.Task[Answer] | None" = None


class Stopping(BackendError):
    """The trigger ends; the message will be delivered again, to its successor."""


class Trigger:
    """Starts one run for each state of a dataset.

    Args:
        settings: of the trigger.
        package: text of the compiled pipeline.
        book: what is remembered.
        open_backend: gives the backend; called in a thread, at the first submission.
    """

    def __init__(
        self,
        settings: TriggerSettings,
        package: str,
        book: Book,
        open_backend: Callable[[str], Backend],
    ):
        self.settings = settings
        self._package = package
        self._book = book
        self._open = open_backend
        self._backend: Backend | None = None
        self._pending: dict[str, _Pending] = {}
        self._submitting = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._late: asyncio.Future[tuple[Run, bool]] | None = None

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Refuses what still waits to be at rest; a submission under way comes to its end."""
        self._stopping.set()

    async def arrived(self, arrival: Arrival) -> Answer:
        """Starts the run of an arrival, unless it was started before.

        Arrivals of one dataset within the window share a run. Waits for it to be submitted.

        Raises:
            BackendError: it could not be submitted; deliver the message again.
            OSError: it could not be remembered; likewise.
        """
        dataset = self.settings.dataset(arrival)
        if dataset is None:
            return Answer("ignored")
        if self.settings.dry_run:
            made = self.submission(dataset, arrival.key)
            return Answer("would start", dataset, made.name)
        known = self._settled(dataset, arrival)
        if known is not None:
            return known
        if self.stopping:
            raise Stopping("The trigger is stopping.")
        loop = asyncio.get_running_loop()
        window = self.settings.debounce
        pending = self._pending.get(dataset)
        if pending is None:
            pending = _Pending({}, loop.time(), loop.time() + MAX_WINDOWS * window)
            pending.task = asyncio.create_task(self._settle(dataset, pending))
            self._pending[dataset] = pending
        if arrival.key not in pending.arrivals:  # a second delivery is no new activity
            pending.arrivals[arrival.key] = arrival
            pending.due = min(loop.time() + window, pending.last)
        assert pending.task is not None
        return await asyncio.shield(pending.task)  # others may wait for the same run

    def submission(self, dataset: str, key: str) -> Submission:
        """What would be submitted for a state of a dataset. Its name is a function of the state."""
        mark = hashlib.sha256(key.encode()).hexdigest()[:12]
        return Submission(
            name=f"{self.settings.name}-{mark}",
            dataset=dataset,
            parameters={**self.settings.parameters, "dataset": dataset},
            labels={"trigger": "new-data", "object": mark},
        )

    def _settled(self, dataset: str, arrival: Arrival) -> Answer | None:
        """The answer to an arrival that no run is to be started for."""
        known = self._book.find(arrival.key)
        if known is not None and known.run is not None:
            return Answer("duplicate", dataset, known.name, known.run)
        newest = self._book.newest(dataset)
        older = (
            newest is not None
            and newest.order is not None
            and arrival.order is not None
            and newest.order > arrival.order
        )
        if older and newest is not None:
            # The run that was started for a newer state read what this one announces, too.
            return Answer("overtaken", dataset, newest.name, newest.run or "")
        return None

    async def _settle(self, dataset: str, pending: _Pending) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            while (left := pending.due - loop.time()) > 0 and not self.stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), left)
            if self.stopping:
                raise Stopping("The trigger is stopping.")
        finally:
            del self._pending[dataset]  # what arrives from here on is another state
        async with self._submitting:
            return await self._submit(dataset, list(pending.arrivals.values()))

    async def _submit(self, dataset: str, arrivals: list[Arrival]) -> Answer:
        left = [one for one in arrivals if self._settled(dataset, one) is None]
        if not left:
            answer = self._settled(dataset, arrivals[-1])
            assert answer is not None
            return answer
        newest = max(left, key=lambda one: -1 if one.order is None else one.order)
        made = self.submission(dataset, newest.key)
        before = self._book.find(newest.key)
        if before is not None:  # tried already, perhaps together with others, under this name
            mark = before.name.rpartition("-")[2]
            made = made._replace(name=before.name, labels=made.labels | {"object": mark})
        entries = [self._entry(one, made) for one in left]
        await asyncio.to_thread(self._book.write, *entries)
        run, adopted = await self._within(made, before is not None)
        done = [entry.model_copy(update={"run": run.id}) for entry in entries]
        await asyncio.to_thread(self._book.write, *done)
        return Answer("adopted" if adopted else "started", dataset, made.name, run.id, run.url)

    async def _within(self, made: Submission, again: bool) -> tuple[Run, bool]:
        """`_start` in a thread, with a limit; one that outlived it is waited for before the next.

        Without that, a second submission could overtake a first that is only slow.
        """
        if self._late is not None:
            await self._ended(self._late)
        self._late = asyncio.ensure_future(asyncio.to_thread(self._start, made, again))
        await self._ended(self._late)
        return self._late.result()

    async def _ended(self, call: "asyncio.Future[tuple[Run, bool]]") -> None:
        await asyncio.wait({call}, timeout=self.settings.timeout)
        if not call.done():
            raise BackendError(
                f"{self.settings.on} did not answer within {self.settings.timeout:g} s."
            )
        call.exception()  # told to whoever waited for it

    def _entry(self, arrival: Arrival, made: Submission) -> Entry:
        return Entry(
            key=arrival.key,
            dataset=made.dataset,
            order=arrival.order,
            name=made.name,
            time=datetime.datetime.now(datetime.UTC),
        )

    def _start(self, made: Submission, maybe_started: bool) -> tuple[Run, bool]:
        """Submits, unless a crash or a lost answer left a run of this name behind."""
        if self._backend is None:
            self._backend = self._open(self.settings.on)
        if maybe_started:
            for run in self._backend.runs(RECENT):
                if run.name == made.name or run.labels.get("object") == made.labels["object"]:
                    return run, True
        request = RunRequest(
            name=made.name,
            parameters=made.parameters,
            pipeline_root=self.settings.pipeline_root,
            experiment=self.settings.experiment,
            labels=made.labels,
            service_account=self.settings.service_account,
        )
        return self._backend.submit(self._package, request), False
