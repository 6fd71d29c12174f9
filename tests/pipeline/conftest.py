"""The command as a user runs it, on a phantom small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Everything real, only small: the easy phantom, a narrow ResNet, a few epochs.
TINY = (
    "data.phantom.preset=easy",
    "data.phantom.subjects=[30,30,30,30]",
    "data.phantom.slices=4",
    "pretrain.epochs=4",
    "teacher.epochs=30",
    "student.epochs=40",
    "student.alpha=0.5",
    "student.seed=1",
)


def command(*arguments: str, workspace: Path | None) -> list[str]:
    place = [] if workspace is None else ["--workspace", str(workspace)]
    return [sys.executable, "-m", "cli.main", *arguments, *place]


def assignments(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="session")
def cortexflow():
    """Runs the command in a process of its own and returns it with its output."""

    def run(*arguments: str, workspace: Path | None, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            command(*arguments, workspace=workspace),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "160"},
            timeout=900,
            check=False,
            **options,
        )

    return run
