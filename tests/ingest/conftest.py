"""Small sources for the importers, made of the phantom and of noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """22 phantom people × 32 slices at 64 px: ten, seven, three and two of each stage."""
    from ingest.phantom import PhantomSpec, generate

    spec = PhantomSpec("realistic", (10, 7, 3, 2), 32, 64, 0, 3)
    return generate(spec, tmp_path_factory.mktemp("phantoms"), workers=1)


@pytest.fixture(scope="session")
def layouts(phantom, tmp_path_factory) -> Callable[[str], tuple[Path, dict]]:
    """Name of a layout → (its folder, path → (subject, slice)), each written once."""
    from ingest.phantom import export

    written: dict[str, tuple[Path, dict]] = {}

    def find(layout: str) -> tuple[Path, dict]:
        if layout not in written:
            folder = tmp_path_factory.mktemp(layout)
            written[layout] = folder, export(phantom, layout, folder)
        return written[layout]

    return find


@pytest.fixture
def noise() -> Callable[..., Path]:
    """Writes class folders of small random pictures: `a/s01_slice00.png` …"""

    def write(
        folder: Path, classes=("a", "b"), people: int = 4, slices: int = 3, seed: int = 0
    ) -> Path:
        rng = np.random.default_rng(seed)
        for name in classes:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for person in range(people):
                for index in range(slices):
                    pixels = rng.integers(0, 255, (20, 24), np.uint8)
                    file = folder / name / f"{name}{person + 100 * seed:02d}_slice{index:02d}.png"
                    Image.fromarray(pixels).save(file)
        return folder

    return write
