"""Pipelines compiled once, by a process that has neither network nor credentials."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ("kubeflow", "vertex")
PRESET = "quickstart"
# One process compiles both: most of the time is the import of TFX.
PROGRAM = """
import sys
from cli.main import app
for target in sys.argv[2:]:
    app(["compile", sys.argv[1], "--for", target], standalone_mode=False)
"""


def cut_off() -> list[str]:
    """What takes the network away from a command, a namespace of its own; [] if there is none."""
    unshare = shutil.which("unshare")
    command = [] if unshare is None else [unshare, "--net", "--map-root-user"]
    refused = (
        command and subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    )
    return [] if refused else command


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the files were written, by a process whose home and temporary folder is `home`."""
    place = tmp_path_factory.mktemp("compiled")
    home = place / "home"
    home.mkdir()
    done = subprocess.run(
        [*cut_off(), sys.executable, "-W", "ignore", "-c", PROGRAM, PRESET, *TARGETS],
        cwd=place,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(home),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.fixture(scope="session", params=TARGETS)
def target(request):
    return request.param


@pytest.fixture(scope="session")
def text(folder, target):
    return (folder / f"{PRESET}-{target}.yaml").read_text()


@pytest.fixture(scope="session")
def spec(text):
    return next(yaml.safe_load_all(text))
