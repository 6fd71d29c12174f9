"""Runs of this machine's workspace, behind the same calls as those of a cluster."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pipeline import runs
from pipeline.backends.interface import ENDED, BackendError, Run, RunStatus, Task
from pipeline.backends.outcome import told_by
from pipeline.runs import RunFolder, RunRecord
from pipeline.workspace import Workspace

LOOK = 0.5  # seconds between two looks at a file
CONSOLE = "console.txt"  # of a run that was started in the background, in its folder
_STATES: dict[str, Literal["running", "ran", "cached", "failed"]] = {
    "running": "running",
    "ran": "ran",
    "cached": "cached",
    "failed": "failed",
}


class LocalBackend:
    """The runs of one workspace."""

    uri = "local"

    def __init__(self, workspace: Workspace):
        self._workspace = workspace

    def start(self, arguments: Sequence[str]) -> Run:
        """Starts `cortexflow run` in the background and waits until it has a run.

        Args:
            arguments: of `cortexflow run`, the workspace apart.

        Raises:
            BackendError: it ended before; with its last words.
        """
        self._workspace.runs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "cli.main", "run", *arguments]
        handle, name = tempfile.mkstemp(prefix=".submitted-", dir=self._workspace.runs)
        console = Path(name)
        try:
            with os.fdopen(handle, "w") as output:
                process = subprocess.Popen(
                    [*command, "--workspace", str(self._workspace.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # the terminal may go
                )
            while True:
                ended = process.poll() is not None
                for record in runs.listed(self._workspace):
                    if record.pid == process.pid:
                        console.rename(self._workspace.runs / record.id / CONSOLE)
                        return _run(record)
                if ended:
                    said = console.read_text(errors="replace").strip().splitlines()
                    raise BackendError((said or ["cortexflow run said nothing."])[-1])
                time.sleep(LOOK)
        finally:
            console.unlink(missing_ok=True)

    def get(self, run_id: str) -> Run:
        """One run with its nodes."""
        return _run(runs.find(self._workspace, run_id).read())

    def runs(self, limit: int = 50) -> list[Run]:
        """Runs, newest first, without their nodes."""
        found = runs.listed(self._workspace)[::-1][:limit]
        return [_run(record).model_copy(update={"tasks": ()}) for record in found]

    def logs(self, run_id: str, task: str | None = None, *, follow: bool = False) -> Iterator[str]:
        """Lines of a run's log, which is one for all nodes."""
        folder = runs.find(self._workspace, run_id)
        if task is not None:
            raise BackendError(
                f"A run on this machine keeps one log for all nodes (received {task}): "
                f"{folder.log}. Leave the node out."
            )
        yield from _lines(folder, follow=follow)

    def stop(self, run_id: str) -> None:
        """Interrupts a run as Ctrl-C does; a training keeps its state, `--resume` goes on."""
        record = runs.find(self._workspace, run_id).read()
        if record.status != "running":
            raise BackendError(f"The run {record.id} has ended already: {record.status}.")
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)


def _run(record: RunRecord) -> Run:
    status: RunStatus = "stopped" if record.status == "interrupted" else record.status
    tasks = tuple(
        Task(
            name=node.node,
            state=_STATES[node.state],
            seconds=node.seconds,
            error=told_by(record.reason) if node.state == "failed" else "",
        )
        for node in record.nodes
    )
    return Run(
        id=record.id,
        name=record.preset,
        pipeline=record.pipeline,
        status=status,
        reason=record.reason,
        started=record.started,
        seconds=record.seconds if status in ENDED else None,
        tasks=tasks,
    )


def _lines(folder: RunFolder, *, follow: bool) -> Iterator[str]:
    """Lines of the log, and with `follow` those that come until the run has ended."""
    if not folder.log.is_file() and not follow:
        raise BackendError(f"There is no log at {folder.log} yet.")
    while follow and not folder.log.is_file():
        time.sleep(LOOK)
    rest = ""
    with folder.log.open(errors="replace") as file:
        while True:
            ended = not follow or folder.read().status != "running"
            *whole, rest = (rest + file.read()).split("\n")
            yield from whole
            if ended:
                break
            time.sleep(LOOK)
    if rest:
        yield rest
