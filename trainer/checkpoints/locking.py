"""One process at a time fills a folder; the lock goes when its process does."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, log: logging.Logger) -> Iterator[None]:
    """Holds the lock of a folder that need not exist yet; waits while another process holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that makes %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
