"""LiteRT: the student's `.tflite` file, one interpreter of one thread per worker.

Two threads inside one interpreter make a small network slower, not faster, so parallelism is that
of the workers. The interpreter lets go of Python's lock while it computes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving import preprocessing
from serving.runtime import Card, Images, LoadError, Outputs
from trainer.golden import TOLERANCES

FILES = {"litert-int8": "litert/model.int8.tflite", "litert-float": "litert/model.float.tflite"}


class LiteRT:
    """A `.tflite` file that takes float32[1, S, S, C] in [0, 1] and gives float32[1, classes].

    Args:
        content: the file, verified by the caller.
        card: what the version says about itself.
        name: a key of `FILES`.
        workers: how many threads will call `run`.

    Raises:
        LoadError: the file is damaged, or does not fit the card.
    """

    batches = False
    cyclic = False
    outputs: Sequence[str] = ("probabilities",)

    def __init__(self, content: bytes, card: Card, name: str, workers: int):
        self.name = name
        self.golden = name.removeprefix("litert-")
        self.tolerance = TOLERANCES[self.golden]
        self.classes: Sequence[str] = card.classes
        self.channels = card.channels
        self._size = card.image_size
        self._interpreters = [_Interpreter(content, card) for _ in range(workers)]

    def run(self, worker: int, requests: Sequence[Images]) -> Outputs:
        """Answers the images one by one; see `Runtime.run`."""
        answer = self._interpreters[worker].answer
        size = self._size
        rows = [
            answer(preprocessing.preprocess(pixels, size))
            for images in requests
            for pixels in images.pixels
        ]
        return {"probabilities": np.concatenate(rows)}

    def close(self) -> None:
        """Frees the interpreters."""
        self._interpreters = []


class _Interpreter:
    def __init__(self, content: bytes, card: Card):
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
            [source] = self._interpreter.get_input_details()
            [target] = self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise LoadError(f"The LiteRT file cannot be loaded: {error}.") from error
        taken, given = tuple(source["shape"]), tuple(target["shape"])
        size = card.image_size
        wanted = (1, size, size, card.channels), (1, len(card.classes))
        if (taken, given) != wanted or {source["dtype"], target["dtype"]} != {np.float32}:
            raise LoadError(
                f"The LiteRT file takes {list(map(int, taken))} and gives {list(map(int, given))}; "
                f"by serving.json it takes {list(wanted[0])} and gives {list(wanted[1])}, float32."
            )
        self._source, self._target = source["index"], target["index"]

    def answer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[S, S, C] to float32[1, classes]."""
        interpreter = self._interpreter
        interpreter.set_tensor(self._source, image[None])
        interpreter.invoke()
        return interpreter.get_tensor(self._target)
