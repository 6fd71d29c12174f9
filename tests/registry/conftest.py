"""What tests of registries start from: a registry, and a folder for thousands of small files."""

import os
import tempfile
from pathlib import Path

import pytest
from crashes import model, push

from registry.local import LocalRegistry


@pytest.fixture
def quick(tmp_path):
    """A folder in memory where the system has one, else on the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def registry(tmp_path):
    """A local registry of `student` that holds nothing yet."""
    return LocalRegistry(tmp_path / "registry", "student")


@pytest.fixture
def three(registry, tmp_path):
    """A registry with versions 1, 2, 3; 3 is live."""
    for number in (1, 2, 3):
        push(registry, model(tmp_path / f"model-{number}", f"graph {number}"))
    return registry
