"""What every measured case shares: its name, its images, its clock and its peak of memory.

A case runs in a process of its own, so that its peak of memory and its tracing are its own. This
module needs NumPy alone: peers import it from their own environment.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CLASSES = 4
BATCHES = 8  # an epoch, as far as the cases go through the images
BLOCK = 2  # steps timed together


class Model(NamedTuple):
    """A ResNet on square images of three channels, and the images of one step."""

    depth: int
    size: int
    batch: int


MODELS = {"r18@64": Model(18, 64, 128), "r50@128": Model(50, 128, 16)}


class Case(NamedTuple):
    """One thing to measure.

    Attributes:
        who: "ours", "reference", "lightly" or "machine".
        what: "pretrain", "finetune", "views", "read", "linear", "gemm" or "work".
        model: a key of `MODELS`; empty where it has no part.
        precision: "float32" or "bfloat16".
        quick: few steps: shows that it works, not how quick it is.
    """

    who: str
    what: str
    model: str = ""
    precision: str = "float32"
    quick: bool = False


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


# PyTorch's loader keeps two batches per worker by default; the bound for `tf.data`, which tunes its
# own queue, is the same.
AHEAD = 2 * cores()


def pictures(model: Model) -> np.ndarray:
    """Noise to work on, as the work does not depend on it: `uint8[BATCHES · batch, S, S, 3]`."""
    random = np.random.default_rng(0)
    shape = (BATCHES * model.batch, model.size, model.size, 3)
    return random.integers(0, 256, shape, np.uint8)


def labels(model: Model) -> np.ndarray:
    """A class for each of the pictures, all equally often: `int32[BATCHES · batch]`."""
    return np.arange(BATCHES * model.batch, dtype=np.int32) % CLASSES


def clock(step: Callable[[], object], *, quick: bool, ahead: int = 0) -> list[float]:
    """Times a step.

    Args:
        step: what to time.
        quick: few steps.
        ahead: batches that another process or thread may have ready (`AHEAD`). The warm-up takes
            as many, and each block as many again. A queue that falls behind then serves the first
            block at most, of which the median knows nothing.

    Returns:
        Seconds per step, a figure for each of five blocks; of one, if quick.
    """
    warm_up, blocks, block = (1, 1, BLOCK) if quick else (max(3, ahead), 5, max(BLOCK, ahead))
    for _ in range(warm_up):
        step()
    seconds = []
    for _ in range(blocks):
        start = time.perf_counter()
        for _ in range(block):
            step()
        seconds.append((time.perf_counter() - start) / block)
    return seconds


def peak_memory() -> float:
    """MiB that this process has held at most; processes it started are not in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(measure: Callable[[Case], dict[str, Any]]) -> None:
    """Measures the case that the command line names; the last line printed is the result."""
    print(json.dumps(measure(Case(*json.loads(sys.argv[1])))))
