"""Masks of 64 × 64 pixels as 64 numbers of 64 bits, a row each: shifts move a whole mask at once.

Bit j of a row is its column j. A mask is then 512 bytes in place of 4,096, and what is a pass over
all pixels on an array of bool is one operation on 64 numbers.
"""

import numpy as np
from numpy.typing import NDArray

SIDE = 64

Lines = NDArray[np.uint64]  # uint64[N, SIDE]

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)


def pack(mask: NDArray[np.bool_]) -> Lines:
    """bool[N, SIDE, SIDE] → uint64[N, SIDE]."""
    return np.packbits(mask, axis=2, bitorder="little").view("<u8")[:, :, 0]


def unpack(lines: Lines) -> NDArray[np.uint8]:
    """uint64[N, SIDE] → uint8[N, SIDE, SIDE] of 0 and 1; its `view(bool)` is the mask."""
    flat = np.unpackbits(np.ascontiguousarray(lines).view(np.uint8), axis=None, bitorder="little")
    return flat.reshape(len(lines), SIDE, SIDE)


def bits(lines: Lines) -> NDArray[np.uint8]:
    """One row each, uint64[N, 1] → uint8[N, SIDE] of 0 and 1."""
    return np.unpackbits(lines.view(np.uint8), axis=1, bitorder="little")


def area(lines: Lines) -> NDArray[np.int64]:
    """How many pixels: int64[N]."""
    counts = _BITS[np.ascontiguousarray(lines).view(np.uint8)]
    return np.add.reduce(counts, axis=1, dtype=np.int64)


def filled(lines: Lines) -> Lines:
    """Adds what lies between the first and the last pixel of both its row and its column."""
    above = np.bitwise_or.accumulate(lines, axis=1)
    below = np.bitwise_or.accumulate(lines[:, ::-1], axis=1)[:, ::-1]
    # From the first pixel of each row on: minus x has its lowest bit, and others above it than x.
    after = lines | np.negative(lines)
    before, moved = lines.copy(), np.empty_like(lines)
    for step in (1, 2, 4, 8, 16, 32):
        np.right_shift(before, np.uint64(step), out=moved)
        before |= moved
    after &= before
    after &= above
    after &= below
    return after


def opened(lines: Lines) -> Lines:
    """Removes what is thinner than two pixels: what no square of 2 × 2 within the mask covers."""
    pairs = lines & (lines >> np.uint64(1))
    core = pairs[:, 1:] & pairs[:, :-1]
    core |= core << np.uint64(1)
    found = np.zeros_like(lines)
    found[:, 1:] = core
    found[:, :-1] |= core
    return found


def eroded(lines: Lines) -> Lines:
    """Pixels whose 3 × 3 neighbourhood lies inside the mask, and the frame."""
    inner = lines & (lines >> np.uint64(1))
    inner &= lines << np.uint64(1)
    found = np.zeros_like(lines)
    middle = found[:, 1:-1]
    np.bitwise_and(inner[:, 2:], inner[:, :-2], out=middle)
    middle &= inner[:, 1:-1]
    return found
