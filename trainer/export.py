"""A trained model as a SavedModel that takes encoded images and needs none of our code.

Two signatures share one graph: `serving_default` takes serialized `tf.Example`s, which is what the
Evaluator feeds, and `predict_images` takes PNG or JPEG files, which is what a client has. What is
evaluated is therefore what is served.

Beside the graph lies `serving.json`, which tells a server without TensorFlow what the model takes
and gives.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from schema import features
from trainer.config import InputSettings
from trainer.preprocessing import preprocess

FORMAT = 1
DESCRIPTION = "serving.json"


class Servable(tf.Module):
    """A network behind the two signatures.

    Attributes:
        class_names: `string[C]`, in the order of the outputs; empty for an encoder. It stays an
            attribute of the loaded SavedModel.
    """

    def __init__(
        self,
        model: keras.Model,
        settings: InputSettings,
        classes: Sequence[str],
        temperature: float = 1.0,
    ):
        super().__init__(name="servable")
        self._settings = settings
        self._model_call = _inference(model, temperature)
        # Keras' wrappers stay behind: what is saved holds plain variables only.
        self.weights = [weight.value for weight in model.weights]
        self.class_names = tf.Variable(
            tf.constant(list(classes), tf.string, shape=(len(classes),)), trainable=False
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_default(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized `tf.Example`s with the feature `image`, `string[N]`, to the outputs."""
        wanted = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
        return self._answer(tf.io.parse_example(examples, wanted)[features.IMAGE])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="images")])
    def predict_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """PNG or JPEG files, `string[N]`, to the outputs."""
        return self._answer(images)

    def _answer(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._model_call(preprocess(encoded, self._settings))


def save(
    folder: Path,
    model: keras.Model,
    settings: InputSettings,
    classes: Sequence[str] = (),
    temperature: float = 1.0,
) -> None:
    """Writes the SavedModel and, of a classifier, `serving.json`.

    A classifier gives `logits` and `probabilities`, which are `softmax(logits / temperature)`, both
    `float32[N, C]`; an encoder gives `embeddings: float32[N, D]`.

    Args:
        folder: written beside its place and renamed there, replacing what was there.
        model: of any kind in `trainer.architectures.KINDS`.
        settings: what the network sees.
        classes: class names in the order of the outputs; empty for an encoder.
        temperature: of the softmax (`trainer.calibration`), above 0.
    """
    servable = Servable(model, settings, classes, temperature)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(
        servable,
        str(partial),
        signatures={
            "serving_default": servable.serving_default,
            "predict_images": servable.predict_images,
        },
    )
    if classes:
        description = {
            "format": FORMAT,
            "classes": list(classes),
            "input": settings.model_dump(mode="json"),
            "temperature": temperature,
            "ops": _operations(partial),
        }
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _operations(folder: Path) -> list[str]:
    """Names of all operations of a SavedModel, in its graph and in its functions, sorted."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in saved.meta_graphs]
    functions = [function for graph in graphs for function in graph.library.function]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for function in functions for node in function.node_def]
    return sorted({node.op for node in nodes})


def _inference(model: keras.Model, temperature: float):
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(images, training=False)
        if isinstance(outputs, dict):
            return {"embeddings": outputs["embeddings"]}
        logits = tf.cast(outputs, tf.float32)
        return {"probabilities": tf.nn.softmax(logits / temperature), "logits": logits}

    return answer
