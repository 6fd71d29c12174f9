"""SavedModel: what has no LiteRT file, such as a teacher. The only module here with TensorFlow.

The graph decodes and resizes by itself. It gets the admitted pixels encoded anew: TensorFlow's
decoders never see a stranger's bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.runtime import Card, Images, LoadError, Outputs
from trainer.golden import SAVED_MODEL, TOLERANCES

SIGNATURE = "predict_images"


class SavedModel:
    """A SavedModel of ours (`trainer.export`), shared by all workers.

    Args:
        folder: of the version, verified by the caller.
        card: what the version says about itself; None for one from before `serving.json`.
        max_batch: most images in one call.

    Raises:
        LoadError: it cannot be loaded, or is no classifier of ours.
    """

    name = "savedmodel"
    golden = SAVED_MODEL
    tolerance = TOLERANCES[SAVED_MODEL]
    outputs: Sequence[str] = ("probabilities", "logits")
    batches = True
    cyclic = True

    def __init__(self, folder: Path, card: Card | None, max_batch: int):
        import tensorflow as tf

        try:
            loaded = tf.saved_model.load(str(folder))
            signature = loaded.signatures[SIGNATURE]
            stored = tuple(name.decode() for name in loaded.class_names.numpy())
        except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
            raise LoadError(
                f"The SavedModel cannot be loaded ({type(error).__name__}: {error})."
            ) from error
        missing = set(self.outputs) - set(signature.structured_outputs)
        if missing or not stored or (card is not None and card.classes != stored):
            raise LoadError(
                f"The SavedModel is not the classifier that is expected (outputs: "
                f"{', '.join(signature.structured_outputs)}; classes: {', '.join(stored)}"
                + (f"; serving.json: {', '.join(card.classes)})." if card else ").")
            )
        self.classes: Sequence[str] = stored
        self.channels = card.channels if card else _channels(signature)
        self._max_batch = max_batch
        self._loaded: Any = loaded  # keeps the variables
        self._signature: Any = signature
        self._constant = tf.constant

    def run(self, worker: int, requests: Sequence[Images]) -> Outputs:
        """Answers up to `max_batch` images per call of the graph; see `Runtime.run`."""
        files = [file for images in requests for file in images.encoded()]
        batches = [
            self._signature(images=self._constant(files[start : start + self._max_batch]))
            for start in range(0, len(files), self._max_batch)
        ]
        return {
            name: np.concatenate([batch[name].numpy() for batch in batches])
            for name in self.outputs
        }

    def close(self) -> None:
        """Lets the graph and its variables go; the garbage collector then frees them."""
        self._loaded = self._signature = None


def _channels(signature: Any) -> int:
    """Channels that the graph's decoder gives."""
    definition = signature.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    found = {node.attr["channels"].i for node in nodes if node.op == "DecodePng"}
    if found not in ({1}, {3}):
        raise LoadError(
            f"The graph decodes to {sorted(found) or 'no'} channels; 1 or 3 are served."
        )
    return int(found.pop())
