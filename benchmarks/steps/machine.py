"""What the machine gives at most: its rate of matrix products, and the products a model needs."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import Any

import tensorflow as tf

from benchmarks.steps import timing
from benchmarks.steps.timing import CLASSES, MODELS, Case
from trainer import architectures
from trainer.architectures import EncoderArchitecture, TeacherArchitecture
from trainer.config import BackboneSettings, InputSettings, ProjectionSettings

SIDES = (2048, 4096)


def rate(precision: str, *, quick: bool) -> float:
    """Floating-point operations per second of the best of several square matrix products."""
    multiply = tf.function(tf.matmul)
    best = 0.0
    for side in SIDES[:1] if quick else SIDES:
        matrix = tf.cast(tf.random.uniform((side, side)), precision)
        seconds = timing.clock(lambda matrix=matrix: multiply(matrix, matrix), quick=quick)
        best = max(best, 2 * side**3 / min(seconds))
    return best


def work(model: str, stage: str) -> float:
    """Floating-point operations that one image's training takes, in convolutions and products.

    The backward pass takes those of the forward pass twice, for the gradients of inputs and of
    weights, but for the first layer, whose input needs none. Zeros of the padding are counted.
    Pretraining works on two views of an image. Optimizer, normalisation and loss are not counted.
    """
    depth, size, _ = MODELS[model]
    backbone = BackboneSettings(depth=depth, width=1.0)
    if stage == "pretrain":
        kind, views = "encoder", 2
        chosen = EncoderArchitecture(backbone=backbone, projection=ProjectionSettings())
    else:
        kind, views = "teacher", 1
        chosen = TeacherArchitecture(backbone=backbone, classes=CLASSES)
    network = architectures.build(kind, chosen, InputSettings(image_size=size, channels=3))
    image = tf.TensorSpec((1, size, size, 3))
    forward = tf.function(lambda x: network(x, training=False)).get_concrete_function(image)
    counts = [_operations(node) for node in forward.graph.get_operations()]
    products = [count for count in counts if count]
    return float(views * (3 * sum(products) - products[0]))


def _operations(node: tf.Operation) -> int:
    if node.type == "Conv2D":
        rows, columns, inputs, _ = node.inputs[1].shape
        return 2 * node.outputs[0].shape.num_elements() * rows * columns * inputs
    if node.type == "MatMul":
        return 2 * node.outputs[0].shape.num_elements() * node.inputs[1].shape[0]
    return 0


def measure(case: Case) -> dict[str, Any]:
    if case.what == "work":
        return {stage: work(case.model, stage) for stage in ("pretrain", "finetune")}
    return {"rate": rate(case.precision, quick=case.quick)}


if __name__ == "__main__":
    timing.answer(measure)
