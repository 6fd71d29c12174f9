"""Data that the trainer's tests share."""

from types import SimpleNamespace

import pytest
from blob_dataset import blob_split


@pytest.fixture(scope="session")
def blobs(tmp_path_factory) -> SimpleNamespace:
    """Patterns of the splits `train`, `val` and `unlabelled`."""
    folder = tmp_path_factory.mktemp("blobs")
    return SimpleNamespace(
        train=blob_split(folder, "train", 30),
        val=blob_split(folder, "val", 15),
        unlabelled=blob_split(folder, "unlabelled", 9, labelled=False),
    )
