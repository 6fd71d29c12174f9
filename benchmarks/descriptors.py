"""How many images per second `schema.descriptors.describe` measures on one core.

Run: `OMP_NUM_THREADS=1 python -m benchmarks.descriptors`. Noise-textured discs stand in for slices:
the work does not depend on the content. Goal: 1,000 images/s at 128 px.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time

import numpy as np

from schema.descriptors import describe

IMAGES = 1024
REPEATS = 5


def slices(size: int) -> np.ndarray:
    """Discs of noise on black: uint8[IMAGES, size, size]."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size)
    disc = axis[:, None] ** 2 + axis[None, :] ** 2 < 0.65
    return rng.integers(30, 255, (IMAGES, size, size), np.uint8) * disc


def main() -> None:
    """Prints the median rate for three sizes."""
    for size in (64, 128, 224):
        images = slices(size)
        describe(images[:64])
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            describe(images)
            seconds.append(time.perf_counter() - start)
        print(f"{size:4d} px  {IMAGES / statistics.median(seconds):7.0f} images/s")


if __name__ == "__main__":
    main()
