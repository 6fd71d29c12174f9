"""Memory, told what a server knows: what was loaded, stays, and what was freed is soon used again.

Requests make garbage that reference counts free at once. A full collection would walk through all
loaded modules and models for nothing: up to 300 ms with TensorFlow loaded, in the middle of
requests. What exists after loading is therefore frozen, and the young are looked at less often.

The C library hands freed memory back to the system as soon as 128 KiB are free at the end of a
heap, and asks for it again with the next array: a page fault for every 4 KiB of the arrays that
describe a few images, which took half of that work's time.
"""

import ctypes
import gc

THRESHOLDS = (50_000, 50, 100)
_DEFAULTS = (700, 10, 10)
# Parameters of mallopt(3), from <malloc.h>, and bytes: of a heap's end that stays, and from which
# on a block is mapped by itself and unmapped when it is freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, MAPPED_BYTES = 16 << 20, 4 << 20


def keep_pages() -> None:
    """Keeps some freed memory for the next request, for the rest of the process.

    With another C library than glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def settle(*, cyclic: bool = False) -> None:
    """Freezes what exists.

    Args:
        cyclic: something frozen was dropped that is freed by the collector alone (a SavedModel):
            look through everything once.
    """
    if cyclic:
        gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def release() -> None:
    """Undoes `settle`."""
    gc.unfreeze()
    gc.set_threshold(*_DEFAULTS)
