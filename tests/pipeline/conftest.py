"""The command as a user runs it, on a phantom small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Everything real, only small: the easy phantom, a narrow ResNet, a few epochs. The control, which
# trains once more, is left to the run that tests it.
TINY = (
    "data.phantom.preset=easy",
    "data.phantom.subjects=[30,30,30,30]",
    "data.phantom.slices=4",
    "pretrain.epochs=2",
    "teacher.epochs=15",
    "student.epochs=20",
    "student.alpha=0.5",
    "student.seed=1",
    "control.shuffle=false",
)

# What any model passes that has learnt something from these 42 test people, whatever the order in
# which threads add: bounds of .95 confidence lie .10 to .20 below what is measured.
LENIENT = (
    "gate.macro_auc_floor=0.5",
    "gate.class_auc_floor=0.2",
    "gate.teacher_margin=0.4",
    "gate.total_csf=report",
    "gate.resamples=1000",
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
