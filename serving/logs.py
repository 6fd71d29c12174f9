"""Structured logs: one JSON object per line on stderr, and no word of a request in any of them.

Our own modules log fixed words and numbers. Libraries do not promise that: of their records only
the template is kept, not what was filled in, and of any exception its type and the places in the
code it passed, not its message, which may quote what a stranger sent.
"""

import contextlib
import datetime
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

import orjson

OWN = ("serving", "registry", "cortexflow")  # loggers whose messages are of our own words
_FRAMES = 12

log = logging.getLogger("cortexflow.serving")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, event, fields, and an exception's type."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        own = record.name.split(".")[0] in OWN
        entry: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage() if own else str(record.msg).strip()[:200],
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = describe(record.exc_info[1])
        return orjson.dumps(entry, default=repr).decode()


def describe(error: BaseException) -> dict[str, Any]:
    """An exception without its message: type, and `file:line function` of the innermost frames."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return {
        "type": type(error).__name__,
        "at": [
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames
        ],
    }


def event(name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Logs one event of the server; fields are numbers and our own words, never a request's."""
    log.log(level, name, extra={"fields": fields})


def error(name: str, problem: BaseException, **fields: Any) -> None:
    """Logs a defect: its type and place."""
    exc_info = (type(problem), problem, problem.__traceback__)
    log.error(name, exc_info=exc_info, extra={"fields": fields})


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Sends every logger of the process to one stream, as JSON.

    Args:
        stream: stderr unless given.
        level: of our own loggers; libraries speak from WARNING on.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OWN:
        logging.getLogger(name).setLevel(level)
    # Strangers' broken requests would fill a disk: they are counted, not told.
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
        logger.setLevel(logging.ERROR)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught


@contextlib.contextmanager
def libraries_told() -> Iterator[None]:
    """Keeps what C++ libraries write to stderr while models load, and logs it as JSON afterwards.

    LiteRT and TensorFlow greet on stderr in their own ways, which no Python handler sees.
    """
    kept = os.dup(2)
    aside = os.memfd_create("stderr")
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    streams = [handler.stream for handler in handlers]
    with open(kept, "w", buffering=1, closefd=False) as direct:
        for handler in handlers:
            if handler.stream is sys.stderr:
                handler.setStream(direct)
        os.dup2(aside, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)
    with open(aside, "rb") as written:
        written.seek(0)
        for line in written.read(1 << 16).decode("utf-8", "replace").splitlines():
            event("library", line=line[:300])
    os.close(kept)


def _uncaught(kind: type[BaseException], problem: BaseException, trace: Any) -> None:
    log.critical("uncaught exception", exc_info=(kind, problem, trace))
