"""One server on an engine without models, for a file of tests."""

import pytest
from memory_engine import serving


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    (folder / "registry").mkdir()
    with serving(folder / "registry") as running:
        yield running
