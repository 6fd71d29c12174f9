"""Python's cyclic garbage collector, told what a server knows: what was loaded, stays.

Requests make garbage that reference counts free at once. A full collection would walk through all
loaded modules and models for nothing: up to 300 ms with TensorFlow loaded, in the middle of
requests. What exists after loading is therefore frozen, and the young are looked at less often.
"""

import gc

THRESHOLDS = (50_000, 50, 100)
_DEFAULTS = (700, 10, 10)


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
