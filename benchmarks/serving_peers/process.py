"""A server as a process group: started, stopped, laid still while others are measured."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS = 120.0
STOP_SECONDS = 10.0


class StartError(RuntimeError):
    """A server ended before it answered, or never did."""


class Process:
    """A server that runs; its output is kept in a file for when it fails."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path):
        self._log = log
        with log.open("wb") as output:
            self._started = time.perf_counter()
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._group = self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.perf_counter() - self._started

    def check(self) -> None:
        """Raises `StartError` when it has ended, or has not answered for too long."""
        if self._process.poll() is not None:
            raise StartError(f"it ended with code {self._process.returncode}: {self._last_words()}")
        if self.age > START_SECONDS:
            raise StartError(f"no answer within {START_SECONDS:.0f} s: {self._last_words()}")

    def freeze(self) -> None:
        """Stops it from running, without ending it."""
        os.killpg(self._group, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it run on."""
        os.killpg(self._group, signal.SIGCONT)

    def stop(self) -> None:
        """Ends it and its children."""
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        self._process.wait()

    def memory(self) -> float:
        """Resident memory in MiB, of all its processes: what they share counts once.

        Of a single process this is its RSS.
        """
        private, shared = 0, 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                sizes = _smaps(pid)
                own = sizes["Private_Clean"] + sizes["Private_Dirty"]
                private += own
                shared = max(shared, sizes["Rss"] - own)
        return (private + shared) / 1024

    def cpu(self) -> float:
        """Seconds of the cores that its processes have taken."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                ticks += sum(map(int, _stat(pid)[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def pids(self) -> list[int]:
        """Its processes: those of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if int(_stat(int(entry.name))[3]) == self._group:
                        found.append(int(entry.name))
        return found

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def _stat(pid: int) -> list[str]:
    """Fields of proc(5)'s `stat`, from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _smaps(pid: int) -> dict[str, int]:
    """KiB by name."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) for line in lines}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
