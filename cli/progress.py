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
from rich.markup import escape
from rich.text import Text

from pipeline.runs import NodeState, RunFolder

SPARSE_SECONDS = 30.0  # between two lines of progress where output is no terminal
MARKS = {"ran": ("✓", "green"), "cached": ("=", "blue"), "failed": ("✗", "red")}


@contextmanager
def running(folder: RunFolder) -> Iterator[Callable[[NodeState], None]]:
    """Shows one line per node while everything that libraries print goes to the run's log."""
    with _output_to(folder.log) as console:
        console.print(f"[bold]{folder.path.name}[/]  [dim]log: {os.path.relpath(folder.log)}[/]")
        board = _Board(console)
        kept = logging.FileHandler(folder.log)
        kept.setLevel(logging.INFO)
        handlers = [_DetailLine(board), kept]
        if not console.is_terminal:
            handlers.append(_SparseLines(console))
        with (
            _listening("trainer", *handlers),
            _listening("ingest", _DetailLine(board)),
            Live(board, console=console, refresh_per_second=4, transient=True),
        ):
            yield board.update


@contextmanager
def _listening(room: str, *handlers: logging.Handler) -> Iterator[None]:
    """Hands what a room logs to the handlers; what changes by the second is logged as DEBUG."""
    logger = logging.getLogger(room)
    before, level = logger.handlers[:], logger.level
    logger.handlers, logger.propagate = [*handlers], False
    logger.setLevel(logging.DEBUG)
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
        super().__init__(logging.DEBUG)
        self.board = board

    def emit(self, record: logging.LogRecord) -> None:
        self.board.detail = record.getMessage()


class _SparseLines(logging.Handler):
    """Prints what is being done where no line can be redrawn: warnings, and a line now and then."""

    def __init__(self, console: Console):
        super().__init__(logging.INFO)
        self.console = console
        self.next = time.monotonic() + SPARSE_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if record.levelno < logging.WARNING and now < self.next:
            return
        self.next = now + SPARSE_SECONDS
        self.console.print(f"    [dim]{escape(record.getMessage())}[/]")


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
