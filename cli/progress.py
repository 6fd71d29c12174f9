"""The terminal during a run: a line per node, everything else into the run's log."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.runs import NodeState, RunFolder

MARKS = {"ran": ("✓", "green"), "cached": ("=", "blue"), "failed": ("✗", "red")}


@contextmanager
def running(folder: RunFolder) -> Iterator[Callable[[NodeState], None]]:
    """Shows one line per node while everything that libraries print goes to the run's log."""
    with _output_to(folder.log) as console:
        console.print(f"[bold]{folder.path.name}[/]  [dim]log: {os.path.relpath(folder.log)}[/]")
        board = _Board(console)
        with (
            _listening("trainer", _DetailLine(board), logging.FileHandler(folder.log)),
            _listening("ingest", _DetailLine(board)),
            Live(board, console=console, refresh_per_second=4, transient=True),
        ):
            yield board.update


@contextmanager
def _listening(room: str, *handlers: logging.Handler) -> Iterator[None]:
    """Hands what a room logs to the handlers."""
    logger = logging.getLogger(room)
    before, level = logger.handlers[:], logger.level
    logger.handlers, logger.propagate = [*handlers], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, True
        logger.setLevel(level)


class _Board:
    """The running node's line, redrawn; nodes that ended are printed above it for good."""

    def __init__(self, console: Console):
        self.console = console
        self.node = ""
        self.detail = ""
        self.started = 0.0

    def update(self, state: NodeState) -> None:
        if state.state == "running":
            self.node, self.detail, self.started = state.node, "", time.monotonic()
            return
        self.node = ""
        mark, colour = MARKS[state.state]
        self.console.print(
            f"  [{colour}]{mark}[/] {state.node:<16} [dim]{state.state:<7}{state.seconds:7.1f} s[/]"
        )

    def __rich__(self) -> Text:
        if not self.node:
            return Text()
        seconds = time.monotonic() - self.started
        return Text(f"  … {self.node:<16} running{seconds:7.0f} s  {self.detail}", style="cyan")


class _DetailLine(logging.Handler):
    """Puts what is being done beside the running node."""

    def __init__(self, board: _Board):
        super().__init__(logging.INFO)
        self.board = board

    def emit(self, record: logging.LogRecord) -> None:
        self.board.detail = record.getMessage()


@contextmanager
def _output_to(path: Path) -> Iterator[Console]:
    """Sends the process's own stdout and stderr to a file; the console keeps the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield Console(file=terminal)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
            terminal.close()


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's start-up chatter off the terminal; errors still show."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    err = os.dup(2)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(err, 2)
            os.close(err)
