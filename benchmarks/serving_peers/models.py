"""A version's two kinds of model behind one call, for peers and the floor.

Both take image files and give rows of probabilities. The LiteRT file is fed by the server's own
preprocessing, so that no server is compared by how it resizes.
"""

import gc
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from serving import preprocessing

Answer = Callable[[Sequence[bytes]], np.ndarray]  # N image files → float32[N, C]
INT8 = "litert/model.int8.tflite"


def image_size(folder: Path) -> int:
    """Side of what the network sees."""
    return int(json.loads((folder / "serving.json").read_text())["input"]["image_size"])


def interpreter(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The int8 file on one thread: float32[1, S, S, 1] to float32[1, C]."""
    from ai_edge_litert.interpreter import Interpreter

    loaded = Interpreter(model_path=str(folder / INT8), num_threads=1)
    loaded.allocate_tensors()
    source = loaded.get_input_details()[0]["index"]
    target = loaded.get_output_details()[0]["index"]

    def answer(image: np.ndarray) -> np.ndarray:
        loaded.set_tensor(source, image)
        loaded.invoke()
        return loaded.get_tensor(target)

    return answer


def litert(folder: Path) -> Answer:
    """The int8 file, an interpreter for each calling thread."""
    size = image_size(folder)
    local = threading.local()

    def answer(files: Sequence[bytes]) -> np.ndarray:
        if not hasattr(local, "run"):
            local.run = interpreter(folder)
        seen = (preprocessing.preprocess(preprocessing.decode(file, 1), size) for file in files)
        return np.concatenate([local.run(image[None]) for image in seen])

    return answer


def saved_model(folder: Path, signature: str = "predict_images") -> Answer:
    """The SavedModel, which decodes in its graph; `signature` says what an instance is."""
    import tensorflow as tf

    function = tf.saved_model.load(str(folder)).signatures[signature]
    argument = "images" if signature == "predict_images" else "examples"

    def answer(files: Sequence[bytes]) -> np.ndarray:
        return function(**{argument: tf.constant(files)})["probabilities"].numpy()

    return answer


def black() -> bytes:
    """An image to warm with."""
    return preprocessing.encode(np.zeros((128, 128), np.uint8))


def load(kind: str, folder: Path) -> Answer:
    """`litert` or `savedmodel`, warmed with a black image."""
    answer = {"litert": litert, "savedmodel": saved_model}[kind](folder)
    for _ in range(3):
        answer([black()])
    return answer


def quiet() -> None:
    """What a server in Python does best after loading: freeze the heap, collect seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
