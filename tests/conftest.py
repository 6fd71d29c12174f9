"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
# As the image has it (kubeflow/Dockerfile): what a program says last stands last in its log.
os.environ.setdefault("PYTHONUNBUFFERED", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden numbers, which is not part of the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"real data and golden numbers are absent ({folder.name}/ beside the project)")
    return folder


def pytest_collection_modifyitems(items):
    """Whole runs of the pipeline first: a file stays on one worker, and the longest would else be
    started last and leave the other workers idle."""
    items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "pipeline"))
