"""How long `cortexflow rollback` takes, from the start of its process to its end.

    python -m benchmarks.serving_rollback

A registry of a real student in two versions (as many MB as a student has) is rolled back again and
again: warm, and cold, when the files of Python and of all that the command imports are not in the
page cache (`posix_fadvise`; pages that another process has mapped stay, so this is a lower bound).
The prompt's answer is what counts, so the interpreter's start is in it. It also tells which heavy
packages the command loaded; TensorFlow must not be among them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import serving
from benchmarks.serving_peers.servers import CORTEXFLOW
from registry.local import LocalRegistry

WHY = {"reason": "benchmark", "who": "benchmarks.serving_rollback"}
HEAVY = (
    "tensorflow",
    "tfx",
    "keras",
    "apache_beam",
    "numpy",
    "pandas",
    "grpc",
    "google.cloud.storage",
)
GOAL = 1.0  # seconds
# Runs the command as its script does, then tells what it loaded.
_SPY = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
print(json.dumps({"modules": sorted(sys.modules), "files": sorted({*files, *mapped})}))
"""


def two_versions(folder: Path, models: Path, size: int) -> LocalRegistry:
    """Version 1 is a student; version 2, which is live, the same with another note beside it."""
    version = serving.version_of(size, None, models)
    registry = LocalRegistry(folder / "registry", version.model)
    for number in (1, 2):
        copy = folder / f"model{number}"
        shutil.copytree(version.folder, copy)
        (copy / "fingerprint.pb").write_bytes(bytes([number]))
        registry.push(copy, metrics={}, lineage={}, **WHY)
    return registry


def workspace_of(registry: LocalRegistry) -> list[str]:
    """The options that lead the command to a registry."""
    return ["--workspace", str(registry.root.parent)]


def evict(files: list[str]) -> None:
    """Drops files, and the bytecode beside them, from the page cache."""
    for name in files:
        path = Path(name)
        for each in (path, *(path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")):
            try:
                descriptor = os.open(each, os.O_RDONLY)
            except OSError:
                continue
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def timed(registry: LocalRegistry) -> float:
    """Seconds of one rollback; the pointer is moved forward again before it."""
    registry.promote(2, **WHY)
    command = [str(CORTEXFLOW), "rollback", *workspace_of(registry)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    live = registry.live()
    assert live is not None
    assert live.number == 1, live
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--size", type=int, default=128, help="of the student, pixels")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep made students there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry = two_versions(folder, options.models or folder, options.size)
        spied = subprocess.run(
            [sys.executable, "-c", _SPY, CORTEXFLOW, "rollback", *workspace_of(registry)],
            check=True,
            capture_output=True,
            text=True,
        )
        loaded = json.loads(spied.stdout.splitlines()[-1])
        cold, warm = [], []
        for _ in range(options.repeats):
            evict(loaded["files"])
            cold.append(timed(registry))
            warm.append(timed(registry))
    heavy = [name for name in HEAVY if name in loaded["modules"]]
    for label, seconds in (("cold", cold), ("warm", warm)):
        middle = statistics.median(seconds)
        print(f"{label}: median {middle:.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")
    print(f"{len(loaded['modules'])} modules; of the heavy ones: {', '.join(heavy) or 'none'}")
    met = statistics.median(warm) < GOAL and "tensorflow" not in heavy
    print(f"{'met' if met else 'NOT MET'}: warm below {GOAL:g} s without TensorFlow")


if __name__ == "__main__":
    main()
