"""The settings of a stage that people sweep: each one a parameter of a compiled pipeline.

A compiled pipeline carries every setting of a stage as one JSON text, which no screen can edit in
parts; these few override it, one by one, when a run is started.
"""

import json
from collections.abc import Mapping
from typing import Any

# Name → path in the stage's settings, and type.
KNOBS: dict[str, tuple[tuple[str, ...], type]] = {
    "epochs": (("epochs",), int),
    "batch_size": (("batch_size",), int),
    "learning_rate": (("optimizer", "learning_rate"), float),
    "weight_decay": (("optimizer", "weight_decay"), float),
    "augmentation": (("augmentation",), str),
    "seed": (("seed",), int),
    "temperature": (("temperature",), float),
    "alpha": (("alpha",), float),
    "label_smoothing": (("label_smoothing",), float),
    "imbalance": (("imbalance",), str),
}


def knobs_of(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that a stage has, with their present values.

    Args:
        stage: settings of one stage as a document.
    """
    found = {}
    for name, (path, _) in KNOBS.items():
        node: Any = stage
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None:
            found[name] = node
    return found


def turned(stage: str, values: Mapping[str, Any]) -> str:
    """A stage's settings, as JSON, with some knobs turned.

    Args:
        stage: settings as JSON. The result is not validated; whoever parses it says what is wrong.
        values: knob → value; what is no knob is ignored, and so is None.
    """
    document = json.loads(stage)
    for name, value in values.items():
        if name not in KNOBS or value is None:
            continue
        path, kind = KNOBS[name]
        *parents, leaf = path
        node = document
        for key in parents:
            node = node[key]
        node[leaf] = kind(value)
    return json.dumps(document)
