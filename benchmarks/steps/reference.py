"""SimCLRv2's training step transcribed to plain TensorFlow, composed as its public code is.

One operation after the other: batch normalisation from means and variances, blur as a depthwise
convolution inside the step, one sigma for the batch; crop, flip and colour image by image in
`tf.data`; LARS variable by variable, exclusions by name; NT-Xent of one replica. The reference's
linear probe beside pretraining is left out, which is to its advantage. The depthwise convolution
of 15 taps and more crashes oneDNN on some processors: up to 149 pixels there are 13 at most.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import functools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from benchmarks.steps import timing
from benchmarks.steps.timing import CLASSES, MODELS, Case

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
TEMPERATURE = 0.1
RATE, MOMENTUM, DECAY, EETA = 0.3, 0.9, 1e-4, 0.001
EXCLUDED = re.compile("batch_normalization|bias|head_supervised")


class Convolution(tf.Module):
    def __init__(self, inputs: int, filters: int, kernel: int, strides: int = 1):
        super().__init__(name="conv2d")
        deviation = (1 / (kernel * kernel * inputs)) ** 0.5
        shape = (kernel, kernel, inputs, filters)
        self.kernel = tf.Variable(
            tf.random.truncated_normal(shape, stddev=deviation), name="kernel"
        )
        self.size, self.strides = kernel, strides

    def __call__(self, x):
        if self.strides == 1:
            return tf.nn.conv2d(x, self.kernel, 1, "SAME")
        before = (self.size - 1) // 2
        sides = [before, self.size - 1 - before]
        return tf.nn.conv2d(tf.pad(x, [[0, 0], sides, sides, [0, 0]]), self.kernel, 2, "VALID")


class Normalization(tf.Module):
    def __init__(self, width: int, *, zero: bool = False, center: bool = True):
        super().__init__(name="batch_normalization")
        start = tf.zeros if zero else tf.ones
        self.gamma = tf.Variable(start(width), name="batch_normalization/gamma")
        self.beta = (
            tf.Variable(tf.zeros(width), name="batch_normalization/beta") if center else None
        )
        self.mean = tf.Variable(tf.zeros(width), trainable=False)
        self.variance = tf.Variable(tf.ones(width), trainable=False)

    def __call__(self, x):
        mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        for moving, batch in ((self.mean, mean), (self.variance, variance)):
            moving.assign_sub((moving - batch) * 0.1)
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, 1e-5)


class Block(tf.Module):
    def __init__(self, inputs: int, filters: int, strides: int, *, bottleneck: bool, project: bool):
        super().__init__()
        self.width = 4 * filters if bottleneck else filters
        self.shortcut = None
        if project:
            self.shortcut = (Convolution(inputs, self.width, 1, strides), Normalization(self.width))
        if bottleneck:
            shapes = [(filters, 1, 1), (filters, 3, strides), (self.width, 1, 1)]
        else:
            shapes = [(filters, 3, strides), (filters, 3, 1)]
        self.parts = []
        for position, (width, kernel, stride) in enumerate(shapes):
            last = position == len(shapes) - 1
            convolution = Convolution(inputs, width, kernel, stride)
            self.parts.append((convolution, Normalization(width, zero=last)))
            inputs = width

    def __call__(self, x):
        skip = x
        if self.shortcut is not None:
            convolution, norm = self.shortcut
            skip = norm(convolution(x))
        for position, (convolution, norm) in enumerate(self.parts):
            x = norm(convolution(x))
            if position < len(self.parts) - 1:
                x = tf.nn.relu(x)
        return tf.nn.relu(x + skip)


class ResNet(tf.Module):
    def __init__(self, depth: int):
        super().__init__()
        self.stem, self.norm = Convolution(3, 64, 7, 2), Normalization(64)
        self.blocks, width = [], 64
        for group, count in enumerate(BLOCKS[depth]):
            for position in range(count):
                first = position == 0
                strides = 2 if first and group else 1
                filters = 64 * 2**group
                block = Block(width, filters, strides, bottleneck=depth >= 50, project=first)
                self.blocks.append(block)
                width = block.width
        self.features = width

    def __call__(self, images):
        x = tf.nn.relu(self.norm(self.stem(images)))
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        for block in self.blocks:
            x = block(x)
        return tf.reduce_mean(x, [1, 2])


class ProjectionHead(tf.Module):
    def __init__(self, width: int):
        super().__init__()
        self.kernels, self.norms = [], []
        for outputs in (width, width, 128):
            values = tf.random.normal((width, outputs), stddev=0.01)
            self.kernels.append(tf.Variable(values, name="dense/kernel"))
            self.norms.append(Normalization(outputs, center=outputs != 128))

    def __call__(self, x):
        for position, (kernel, norm) in enumerate(zip(self.kernels, self.norms, strict=True)):
            x = norm(tf.matmul(x, kernel))
            x = x if position == 2 else tf.nn.relu(x)
        return x


class SupervisedHead(tf.Module):
    def __init__(self, width: int):
        super().__init__()
        values = tf.random.normal((width, CLASSES), stddev=0.01)
        self.kernel = tf.Variable(values, name="head_supervised/kernel")
        self.bias = tf.Variable(tf.zeros(CLASSES), name="head_supervised/bias")

    def __call__(self, x):
        return tf.matmul(x, self.kernel) + self.bias


def nt_xent(hidden):
    first, second = tf.split(tf.math.l2_normalize(hidden, -1), 2)
    count = tf.shape(first)[0]
    targets, itself = tf.one_hot(tf.range(count), 2 * count), tf.one_hot(tf.range(count), count)

    def direction(some, others):
        same = tf.matmul(some, some, transpose_b=True) / TEMPERATURE - itself * 1e9
        cross = tf.matmul(some, others, transpose_b=True) / TEMPERATURE
        logits = tf.concat([cross, same], 1)
        return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    return tf.reduce_mean(direction(first, second) + direction(second, first))


class LARS:
    def __init__(self, variables):
        self.slots = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]

    def apply(self, gradients, variables) -> None:
        for gradient, variable, slot in zip(gradients, variables, self.slots, strict=True):
            trust = 1.0
            if not EXCLUDED.search(variable.name):
                gradient += DECAY * variable  # noqa: PLW2901
                weight, slope = tf.norm(variable), tf.norm(gradient)
                ratio = tf.where(slope > 0, EETA * weight / slope, 1.0)
                trust = tf.where(weight > 0, ratio, 1.0)
            slot.assign(MOMENTUM * slot + RATE * trust * gradient)
            variable.assign_sub(slot)


def blur(images, size: int):
    """The batch's blur: one sigma, then each image takes it or not."""
    radius = int((size // 10) / 2)
    reach = tf.range(-radius, radius + 1, dtype=tf.float32)
    weights = tf.exp(-tf.square(reach) / (2 * tf.square(tf.random.uniform([], 0.1, 2.0))))
    weights /= tf.reduce_sum(weights)
    taps = 2 * radius + 1
    down = tf.tile(tf.reshape(weights, [taps, 1, 1, 1]), [1, 1, 3, 1])
    across = tf.tile(tf.reshape(weights, [1, taps, 1, 1]), [1, 1, 3, 1])
    blurred = images
    for kernel in (across, down):
        blurred = tf.nn.depthwise_conv2d(blurred, kernel, [1, 1, 1, 1], "SAME")
    chosen = tf.cast(tf.random.uniform([tf.shape(images)[0], 1, 1, 1]) < 0.5, tf.float32)
    return tf.clip_by_value(blurred * chosen + images * (1 - chosen), 0.0, 1.0)


def crop_and_flip(image, size: int):
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    start, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        whole,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    top, left, _ = tf.unstack(start)
    height, width, _ = tf.unstack(extent)
    box = tf.image.crop_to_bounding_box(image, top, left, height, width)
    box = tf.image.resize(box, (size, size), "bicubic")
    return tf.image.random_flip_left_right(tf.ensure_shape(box, (size, size, 3)))


def colour(image):
    steps = [
        lambda x: x * tf.random.uniform([], 0.2, 1.8),
        lambda x: tf.image.random_contrast(x, 0.2, 1.8),
        lambda x: tf.image.random_saturation(x, 0.2, 1.8),
        lambda x: tf.image.random_hue(x, 0.2),
    ]

    def jitter(x):
        order = tf.random.shuffle(tf.range(4))
        for turn in range(4):
            chosen = [lambda step=step, x=x: step(x) for step in steps]
            x = tf.clip_by_value(tf.switch_case(order[turn], chosen), 0.0, 1.0)
        return x

    image = tf.cond(tf.random.uniform([]) < 0.8, lambda: jitter(image), lambda: image)
    grey = tf.random.uniform([]) < 0.2
    return tf.cond(
        grey, lambda: tf.tile(tf.image.rgb_to_grayscale(image), [1, 1, 3]), lambda: image
    )


def batches(case: Case) -> Iterator[Any]:
    """Views side by side and labels: `float32[batch, S, S, 3 · views]`, `int32[batch]`."""
    _, size, batch = model = MODELS[case.model]
    alone = case.what == "finetune"

    def prepare(levels, label):
        image = tf.image.convert_image_dtype(levels, tf.float32)
        views = [crop_and_flip(image, size) for _ in range(1 if alone else 2)]
        if not alone:
            views = [colour(tf.clip_by_value(view, 0.0, 1.0)) for view in views]
        return tf.clip_by_value(tf.concat(views, -1), 0.0, 1.0), label

    data = tf.data.Dataset.from_tensor_slices((timing.pictures(model), timing.labels(model)))
    data = data.shuffle(batch * 4).repeat().map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(data.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


def training_step(case: Case) -> Callable[[Any, Any, bool], tf.Tensor]:
    """The compiled update: views with channels side by side, labels, and whether to blur."""
    depth, size, _ = MODELS[case.model]
    network = ResNet(depth)
    contrastive = case.what == "pretrain"
    head = (ProjectionHead if contrastive else SupervisedHead)(network.features)
    variables = [*network.trainable_variables, *head.trainable_variables]
    optimizer = LARS(variables)

    @tf.function
    def step(images, truth, blurred: bool):
        views = tf.split(images, images.shape[-1] // 3, -1)
        if blurred:
            views = [blur(view, size) for view in views]
        with tf.GradientTape() as tape:
            outputs = head(network(tf.concat(views, 0)))
            if contrastive:
                loss = nt_xent(outputs)
            else:
                targets = tf.one_hot(truth, CLASSES)
                losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
                loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step


def view_maker(case: Case) -> Callable[[Any], list[tf.Tensor]]:
    """The part of the input that is done in the step: two views, blurred."""
    size = MODELS[case.model].size

    @tf.function
    def views(images):
        return [blur(view, size) for view in tf.split(images, 2, -1)]

    return views


def measure(case: Case) -> dict[str, Any]:
    start = time.perf_counter()
    source = batches(case)
    clock = functools.partial(timing.clock, quick=case.quick, ahead=timing.AHEAD)
    if case.what == "views":
        views = view_maker(case)
        return {"whole": clock(lambda: views(next(source)[0]))}
    step = training_step(case)
    blurred = case.what == "pretrain"

    def next_step():
        return step(*next(source), blurred).numpy()

    next_step()
    first = time.perf_counter() - start
    whole = clock(next_step)
    memory = timing.peak_memory()
    ready = next(source)
    source = None  # else it would go on making batches
    update = timing.clock(lambda: step(*ready, False).numpy(), quick=case.quick)
    return {"whole": whole, "update": update, "first": first, "memory": memory}


if __name__ == "__main__":
    timing.answer(measure)
