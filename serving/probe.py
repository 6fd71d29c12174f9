"""Whether a model may be loaded by a server: tried out in a process of its own, with limits.

The process that asks never loads the model. The one that is asked starts empty (no environment, no
user's Python path, no network where the system allows that), may write no file, and may take so
much memory and time; what it dies of is a reason to refuse the model. `serving.probe_child` holds
the questions.

    python -m serving.probe FOLDER
"""

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from schema.errors import CortexflowError
from serving.config import ProbeSettings

ROOT = Path(__file__).resolve().parent.parent
# Isolated mode leaves the project's folder out of the path where it is not installed.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from serving import probe_child as c; c.main()"
)
_THREADS = 2  # of inference: each takes address space
# Names of `serving.config.ProbeSettings` in a run's settings, for who has a large model.
_TIME, _MEMORY = "(serving.timeout_seconds sets this)", "(serving.memory_bytes sets this)"
_TAIL = 4096  # bytes of the error stream that are kept


class ModelRefused(CortexflowError):
    """A model that no server may load; the message has the reasons."""

    exit_code = 2  # that of a gate's refusal


@dataclasses.dataclass(frozen=True)
class Finding:
    """One question and its answer.

    Attributes:
        name: the question, in a few words.
        passed: its answer.
        detail: in words: the reason where it did not pass, else what was measured.
    """

    name: str
    passed: bool
    detail: str


@dataclasses.dataclass(frozen=True)
class ProbeReport:
    """What became of a trial.

    Attributes:
        findings: in the order of the questions; none is asked after one that did not pass.
        digest: `registry.manifest.content_digest` of what was tried out; "" where its files were
            refused unread.
        isolated: no network could be reached.
        seconds: wall time.
        memory_bytes: the most memory that was held at once, TensorFlow's own included.
    """

    findings: tuple[Finding, ...]
    digest: str
    isolated: bool
    seconds: float
    memory_bytes: int

    @property
    def passed(self) -> bool:
        """Whether every question was asked and answered well."""
        return all(finding.passed for finding in self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not; empty when it passed."""
        return tuple(f"{it.name}: {it.detail}" for it in self.findings if not it.passed)


def probe(
    folder: str | os.PathLike[str],
    *,
    timeout: float = ProbeSettings().timeout_seconds,
    memory_bytes: int = ProbeSettings().memory_bytes,
) -> ProbeReport:
    """Tries a model out.

    Args:
        folder: an exported model, as it would be pushed.
        timeout: seconds after which the process is killed.
        memory_bytes: address space that the model may take beside TensorFlow's own.

    Returns:
        The findings. A crash, a model that never ends or that needs too much is a finding; nothing
        is raised for it.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cortexflow-probe-") as place:
        arguments = [str(ROOT), os.fspath(Path(folder).absolute()), str(memory_bytes)]
        arguments += [str(int(timeout * _THREADS) + 1), str(_THREADS)]
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _START, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=place,
            env=_environment(place),
            start_new_session=True,  # so that it can be killed with all that it may start
        )
        try:
            told, tail, late = _listen(process, started + timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    return _report(told, tail, process.returncode, timeout if late else None, started, memory_bytes)


def require(folder: str | os.PathLike[str], settings: ProbeSettings | None = None) -> ProbeReport:
    """Tries a model out and returns what was found.

    Args:
        folder: an exported model.
        settings: limits; the defaults where None.

    Raises:
        ModelRefused: it must not be loaded.
    """
    limits = settings or ProbeSettings()
    report = probe(folder, timeout=limits.timeout_seconds, memory_bytes=limits.memory_bytes)
    if not report.passed:
        raise ModelRefused(
            f"{folder} must not be served: {'; '.join(report.reasons)}. "
            "Push a model that this project has exported, unchanged."
        )
    return report


def _environment(place: str) -> dict[str, str]:
    """All that the process is told; keys and addresses of the caller are not among it."""
    kept = {
        "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH")
    }  # without which Python may not start
    return {name: value for name, value in kept.items() if value} | {
        "HOME": place,
        "TMPDIR": place,
        "LANG": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "-1",  # golden answers were given by a CPU
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": str(_THREADS),
        "MALLOC_ARENA_MAX": "2",  # an arena reserves address space, which is limited
    }


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool]:
    """What the process writes until it ends: answers, the end of its errors, and whether late."""
    out, tail = b"", b""
    for stream, block in _blocks(process, deadline):
        if stream is process.stdout:
            out += block
        else:
            tail = (tail + block)[-_TAIL:]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(0.0, deadline - time.monotonic()))
    return out, tail, process.returncode is None


def _blocks(
    process: subprocess.Popen[bytes], deadline: float
) -> Iterator[tuple[IO[bytes] | None, bytes]]:
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                block = os.read(key.fd, 1 << 16)
                if not block:
                    selector.unregister(key.fileobj)
                yield key.fileobj, block  # type: ignore[misc]


def _report(
    told: bytes, tail: bytes, code: int, late: float | None, started: float, memory: int
) -> ProbeReport:
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    asked = "start"
    for line in told.splitlines():
        try:
            message = json.loads(line)
        except ValueError:  # cut off by its death
            break
        if "begin" in message:
            asked = message["begin"]
        elif "name" in message:
            findings.append(Finding(**message))
        else:
            facts |= message
    if "memory_bytes" not in facts:  # its last word
        why = f"it took more than {late:g} seconds {_TIME}" if late else _cause(code, tail, memory)
        findings.append(Finding(asked, False, why))
    return ProbeReport(
        tuple(findings),
        facts.get("digest", ""),
        facts.get("isolated", False),
        time.monotonic() - started,
        facts.get("memory_bytes", 0),
    )


def _cause(code: int, tail: bytes, memory: int) -> str:
    """What the process died of, in words."""
    if b"bad_alloc" in tail or b"MemoryError" in tail:
        return f"it needs more than {memory / (1 << 30):g} GiB of memory {_MEMORY}"
    if code == -signal.SIGXCPU:
        return "it used up its processor time"
    last = tail.decode("utf-8", "replace").strip().splitlines()[-1:]
    said = "".join(letter for letter in "".join(last)[:200] if letter.isprintable())
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return f"the process {how}" + (f" ({said})" if said else "")


def _main() -> None:
    report = probe(sys.argv[1])
    print(json.dumps(dataclasses.asdict(report), indent=2))
    sys.exit(0 if report.passed else ModelRefused.exit_code)


if __name__ == "__main__":
    _main()
