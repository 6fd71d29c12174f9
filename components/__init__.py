"""One file per custom TFX component.

A compiled pipeline names an artifact's class as `components.NAME`, which is all that a pipeline
spec has room for; the classes load TFX, so they are looked up when they are asked for.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if not name[:1].isupper():
        raise AttributeError(f"module 'components' has no attribute {name!r}")
    return getattr(importlib.import_module("components.artifacts"), name)
