"""The record of each run: a folder with plain JSON, readable without this code."""

import datetime
import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from evaluation.outcome import Outcome
from pipeline.config import PipelineConfig, validated
from pipeline.workspace import Workspace
from schema.errors import CortexflowError

RunStatus = Literal[
    "running", "passed", "refused", "insufficient evidence", "failed", "interrupted"
]
UNFINISHED = ("failed", "interrupted")


class NodeState(BaseModel):
    """How one node of a run ended, or that it is running."""

    model_config = ConfigDict(frozen=True)

    node: str
    state: Literal["running", "ran", "cached", "failed"]
    seconds: float = 0.0
    execution_id: int | None = None


class Override(BaseModel):
    """Who put a model live that the gate had not passed, when and why."""

    model_config = ConfigDict(frozen=True)

    who: str
    reason: str
    time: datetime.datetime


class RunRecord(BaseModel):
    """`run.json`: what was asked for, how far it came, and how it ended."""

    model_config = ConfigDict(frozen=True)

    id: str
    preset: str
    pipeline: str
    status: RunStatus
    reason: str = ""
    started: datetime.datetime
    seconds: float = 0.0
    attempts: int = 1
    command: str = ""
    pid: int
    nodes: tuple[NodeState, ...] = ()
    baseline: str | None = None  # what was live when the run first started; kept when resumed
    pushed_version: int | None = None
    live_version: int | None = None  # when the run ended, or was overridden
    override: Override | None = None

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 refused, 3 insufficient evidence, 130 interrupted.

        A run that SIGTERM interrupted ends by its error instead, which has a code of its own.
        """
        if self.status in list(Outcome):
            return Outcome(self.status).exit_code
        return 130 if self.status == "interrupted" else 1

    def with_node(self, state: NodeState) -> "RunRecord":
        """The same record with this node's latest state, in order of first appearance."""
        latest = {node.node: node for node in self.nodes} | {state.node: state}
        return self.model_copy(update={"nodes": tuple(latest.values())})


class UnknownRun(CortexflowError):
    """No run has this id."""


class RunFolder:
    """Files of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.log = path / "log.txt"
        self.report = path / "report.html"
        self.evidence = path / "evidence"

    def write(self, record: RunRecord) -> None:
        """Replaces `run.json` at once."""
        _replace(self.path / "run.json", record.model_dump_json(indent=2))

    def read(self) -> RunRecord:
        """Reads `run.json`; a run whose process is gone while it was running is interrupted."""
        record = RunRecord.model_validate_json((self.path / "run.json").read_text())
        if record.status == "running" and not _alive(record.pid):
            reason = "the process ended without a word (killed?)"
            return record.model_copy(update={"status": "interrupted", "reason": reason})
        return record

    def write_config(self, config: PipelineConfig) -> None:
        """Keeps the settings, so that the run can be resumed and reproduced."""
        _replace(self.path / "config.json", config.model_dump_json(indent=2))

    def read_config(self) -> PipelineConfig:
        """The settings the run was started with."""
        return validated(json.loads((self.path / "config.json").read_text()))


def create(
    workspace: Workspace, config: PipelineConfig, preset: str, command: str
) -> tuple[RunFolder, RunRecord]:
    """Makes the folder of a new run, named after its preset and the time (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    stem = f"{preset}-{now:%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        path = workspace.runs / (stem + suffix)
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    folder = RunFolder(path)
    record = RunRecord(
        id=path.name,
        preset=preset,
        pipeline=config.name,
        status="running",
        started=now,
        command=command,
        pid=os.getpid(),
    )
    folder.write_config(config)
    folder.write(record)
    return folder, record


def reopen(folder: RunFolder) -> RunRecord:
    """Takes an unfinished run up again under its own id; its nodes will tell their state anew."""
    record = folder.read()
    record = record.model_copy(
        update={
            "status": "running",
            "reason": "",
            "nodes": (),
            "attempts": record.attempts + 1,
            "pid": os.getpid(),
        }
    )
    folder.write(record)
    return record


def listed(workspace: Workspace) -> list[RunRecord]:
    """All runs, oldest first."""
    found = [RunFolder(path.parent).read() for path in workspace.runs.glob("*/run.json")]
    return sorted(found, key=lambda record: record.started)


def find(workspace: Workspace, run_id: str) -> RunFolder:
    """The folder of a run; `latest` is the newest.

    Raises:
        UnknownRun: there is none of this id.
    """
    records = listed(workspace)
    if run_id == "latest" and records:
        run_id = records[-1].id
    if run_id not in {record.id for record in records}:
        known = ", ".join(record.id for record in records[-5:]) or "none yet"
        raise UnknownRun(
            f"No run {run_id!r} in {workspace.runs} (latest: {known}). "
            "`cortexflow runs` lists them all."
        )
    return RunFolder(workspace.runs / run_id)


def last_unfinished(workspace: Workspace, preset: str) -> RunFolder:
    """The newest run of a preset if it did not finish.

    Raises:
        UnknownRun: there is no run of this preset, or its newest one finished or is going on.
    """
    records = [record for record in listed(workspace) if record.preset == preset]
    if not records or records[-1].status not in UNFINISHED:
        state = f"the last one, {records[-1].id}, {records[-1].status}" if records else "none yet"
        raise UnknownRun(
            f"No unfinished run of {preset!r} to resume ({state}). Start one without --resume."
        )
    return RunFolder(workspace.runs / records[-1].id)


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text + "\n")
    partial.replace(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
