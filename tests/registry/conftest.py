"""A folder for tests that make thousands of small files."""

import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def quick(tmp_path):
    """A folder in memory where the system has one, else on the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
