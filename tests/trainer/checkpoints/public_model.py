"""The public SimCLR model in plain TensorFlow, saved as its code saves it.

A transcription apart from ours: same names, same object paths, same calling convention. Weights
follow the rule of the golden numbers, so that what it answers can be held against them.
"""

import shutil
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


@dataclass(frozen=True)
class Variant:
    depth: int = 18
    filters: int = 64  # 64 × width
    sk_ratio: float = 0.0
    cifar: bool = False
    projection: tuple[int, ...] | None = (1, 1, 128)  # 1: as wide as the input
    classes: int | None = 10
    selector: int = 0
    first_number: int = 0  # of layers made before in the same process


NARROW = Variant(depth=18, filters=8, projection=(1, 1, 16), classes=3)


def value(name: str, shape) -> np.ndarray:
    noise = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    fan_in = np.prod(shape[:-1])
    scaled = {
        "kernel": noise * np.sqrt(2 / fan_in),
        "gamma": 1 + 0.1 * noise,
        "moving_variance": 1 + 0.1 * np.abs(noise),
    }.get(name.rsplit("/", 1)[1], 0.1 * noise)
    return scaled.astype(np.float32)


@dataclass
class Weights:
    """Variables by object path, made when they are first asked for, with their two names."""

    variant: Variant
    graph: bool = False  # TensorFlow 1
    variables: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)
    numbers: Counter = field(default_factory=Counter)

    def numbered(self, kind: str) -> str:
        number = self.numbers[kind] + (self.variant.first_number if kind == "conv2d" else 0)
        self.numbers[kind] += 1
        return f"{kind}_{number}" if number else kind

    def get(self, path: str, name: str, name_1: str, shape, trainable=True):
        if path not in self.variables:
            self.names[path] = (name, name_1)
            initial = value(name, shape)
            if self.graph:
                self.variables[path] = tf.compat.v1.get_variable(
                    name_1, initializer=initial, trainable=trainable, use_resource=False
                )
            else:
                self.variables[path] = tf.Variable(initial, trainable=trainable, name=name)
        return self.variables[path]


def conv(w: Weights, path, scope, x, size, filters, stride=1, plain=False):
    layer = w.numbered("conv2d")
    wrapper = "" if plain else w.numbered("conv2d_fixed_padding") + "/"
    shape = (size, size, x.shape[-1], filters)
    kernel = w.get(f"{path}/kernel", f"{scope}{wrapper}{layer}/kernel",
                   f"base_model/{layer}/kernel", shape)  # fmt: skip
    if stride > 1:
        before = (size - 1) // 2
        x = tf.pad(x, [[0, 0], [before, size - 1 - before], [before, size - 1 - before], [0, 0]])
    return tf.nn.conv2d(x, kernel, stride, "VALID" if stride > 1 else "SAME")


def norm(w: Weights, path, scope, x, training, relu=True, scope_1="", center=True):
    wrapper, layer = w.numbered("batch_norm_relu"), w.numbered("sync_batch_normalization")
    name = f"{scope}{wrapper}/{layer}"
    name_1 = scope_1 or f"base_model/{layer.removeprefix('sync_')}"
    gamma, beta, mean, variance = (
        w.get(f"{path}/{f}", f"{name}/{f}", f"{name_1}/{f}", x.shape[-1:], not f.startswith("mov"))
        if f != "beta" or center
        else None
        for f in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    if training:
        # By sums of squares, as its synchronised layer does: the golden bits depend on it.
        axes = list(range(x.shape.rank - 1))
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        mean = tf.reduce_sum(x, axes) / count
        variance = tf.reduce_sum(tf.square(x), axes) / count - tf.square(mean)
    x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-5)
    return tf.nn.relu(x) if relu else x


def shortcut(w, path, scope, x, filters, stride, training):
    index = 0
    if w.variant.sk_ratio:
        if stride > 1:
            x = tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]])
            index += 1
        x = tf.nn.avg_pool2d(x, 2, stride, "VALID" if stride > 1 else "SAME")
        index += 1
        stride = 1
    x = conv(w, f"{path}/{index}/conv2d", scope, x, 1, filters, stride)
    return norm(w, f"{path}/{index + 1}/bn", scope, x, training, relu=False)


def selective(w, path, scope, x, filters, stride, training):
    scope += w.numbered("sk__conv2d") + "/"
    x = conv(w, f"{path}/conv2d_fixed_padding/conv2d", scope, x, 3, 2 * filters, stride)
    x = norm(w, f"{path}/batch_norm_relu/bn", scope, x, training)
    streams = tf.stack(tf.split(x, 2, axis=3))
    pooled = tf.reduce_mean(tf.reduce_sum(streams, 0), [1, 2], keepdims=True)
    reduced = max(int(filters * w.variant.sk_ratio), 32)
    pooled = conv(w, f"{path}/conv2d_0", scope, pooled, 1, reduced, plain=True)
    pooled = norm(w, f"{path}/batch_norm_relu_1/bn", scope, pooled, training)
    mix = conv(w, f"{path}/conv2d_1", scope, pooled, 1, 2 * filters, plain=True)
    mix = tf.nn.softmax(tf.stack(tf.split(mix, 2, axis=3)), axis=0)
    return tf.reduce_sum(streams * mix, 0)


def block(w, path, group, x, filters, stride, project, training):
    bottleneck = w.variant.depth >= 50
    scope = f"resnet/block_group{group + 1}/"
    scope += w.numbered("bottleneck_block" if bottleneck else "residual_block") + "/"
    width, skip = filters * (4 if bottleneck else 1), x
    if project:
        kind = "projection_layers" if bottleneck else "shortcut_layers"
        skip = shortcut(w, f"{path}/{kind}", scope, x, width, stride, training)
    if not bottleneck:
        main = f"{path}/conv2d_bn_layers"
        x = conv(w, f"{main}/0/conv2d", scope, x, 3, filters, stride)
        x = norm(w, f"{main}/1/bn", scope, x, training)
        x = conv(w, f"{main}/2/conv2d", scope, x, 3, filters)
        return tf.nn.relu(norm(w, f"{main}/3/bn", scope, x, training, relu=False) + skip)
    main = f"{path}/conv_relu_dropblock_layers"
    x = conv(w, f"{main}/0/conv2d", scope, x, 1, filters)
    x = norm(w, f"{main}/1/bn", scope, x, training)
    if w.variant.sk_ratio:
        x = selective(w, f"{main}/3", scope, x, filters, stride, training)
        last = 5
    else:
        x = conv(w, f"{main}/3/conv2d", scope, x, 3, filters, stride)
        x = norm(w, f"{main}/4/bn", scope, x, training)
        last = 6
    x = conv(w, f"{main}/{last}/conv2d", scope, x, 1, width)
    return tf.nn.relu(norm(w, f"{main}/{last + 1}/bn", scope, x, training, relu=False) + skip)


def stem(w, x, training):
    path, base = "resnet_model/initial_conv_relu_max_pool", w.variant.filters
    if w.variant.cifar:
        layers = [(3, base, 1)]
    elif w.variant.sk_ratio:
        layers = [(3, base // 2, 2), (3, base // 2, 1), (3, base, 1)]
    else:
        layers = [(7, base, 2)]
    for position, (size, filters, stride) in enumerate(layers):
        last = position == len(layers) - 1
        initial = conv(w, f"{path}/{2 * position}/conv2d", "resnet/", x, size, filters, stride)
        x = norm(w, f"{path}/{2 * position + 1 + last}/bn", "resnet/", initial, training)
    return initial, x if w.variant.cifar else tf.nn.max_pool2d(x, 3, 2, "SAME")


def network(w: Weights, images, training: bool) -> dict:
    """All endpoints of the public model."""
    w.numbers.clear()
    outputs = {}
    outputs["initial_conv"], x = stem(w, images, training)
    outputs["initial_max_pool"] = x
    for group, count in enumerate(BLOCKS[w.variant.depth]):
        for position in range(count):
            path = f"resnet_model/block_groups/{group}/layers/{position}"
            stride = 2 if group and not position else 1
            filters = w.variant.filters * 2**group
            x = block(w, path, group, x, filters, stride, position == 0, training)
        outputs[f"block_group{group + 1}"] = x
    hiddens = [tf.reduce_mean(x, [1, 2])]
    outputs["final_avg_pool"] = outputs["proj_head_input"] = hiddens[0]
    for j, width in enumerate(w.variant.projection or ()):
        last = j == len(w.variant.projection) - 1
        x, scope = hiddens[-1], f"head_contrastive/nl_{j}"
        path = f"_projection_head/linear_layers/{j}"
        shape = (x.shape[-1], x.shape[-1] if width == 1 else width)
        name = f"projection_head/nl_{j}/"
        kernel = w.get(f"{path}/dense/kernel", f"{name}{w.numbered('dense')}/kernel",
                       f"{scope}/dense/kernel", shape)  # fmt: skip
        x = norm(w, f"{path}/bn_relu/bn", name, x @ kernel, training, not last,
                 f"{scope}/batch_normalization", center=not last)  # fmt: skip
        hiddens.append(x)
    if len(hiddens) > 1:
        outputs["proj_head_output"] = hiddens[-1]
    if w.variant.classes:
        x, path = hiddens[w.variant.selector], "supervised_head/linear_layer/dense"
        name, name_1 = f"head_supervised/linear_layer/{w.numbered('dense')}", "dense"
        name_1 = f"head_supervised/linear_layer/{name_1}"
        shape = (x.shape[-1], w.variant.classes)
        kernel = w.get(f"{path}/kernel", f"{name}/kernel", f"{name_1}/kernel", shape)
        bias = w.get(f"{path}/bias", f"{name}/bias", f"{name_1}/bias", shape[1:])
        outputs["logits_sup"] = x @ kernel + bias
    return outputs


class PublicModel(tf.Module):
    """What `tf.saved_model.save` is given: `__call__(inputs, trainable)`, and no signatures."""

    def __init__(self, variant: Variant, *, as_objects: bool = True, give_head: bool = True):
        super().__init__()
        self._weights = weights = Weights(variant)
        network(weights, tf.zeros([1, 64, 64, 3]), False)
        self._hidden = () if give_head else ("proj_head_input", "proj_head_output")
        if as_objects:
            self.model = objects(weights.variables)
            self.trainable_variables_list = [v for v in weights.variables.values() if v.trainable]
        else:
            self.all_of_them = list(weights.variables.values())

    @property
    def paths(self) -> dict:
        return self._weights.variables

    @property
    def names(self) -> dict:
        return self._weights.names

    @tf.function
    def __call__(self, inputs, trainable):
        outputs = network(self._weights, inputs, trainable)
        return {name: x for name, x in outputs.items() if name not in self._hidden}

    def save(self, folder: Path) -> Path:
        specification = tf.TensorSpec([None, None, None, 3], tf.float32, name="inputs")
        for trainable in (True, False):
            self.__call__.get_concrete_function(specification, trainable=trainable)
        # The plain dict of variables is not part of what the public code saves.
        tf.saved_model.save(self, str(folder))
        return folder


def objects(variables: dict) -> tf.Module:
    """The tree of objects that the paths describe; unused places of a list hold nothing."""
    root: dict = {}
    for path, variable in variables.items():
        *steps, leaf = path.split("/")
        node = root
        for step in steps:
            node = node.setdefault(step, {})
        node[leaf] = variable

    def grown(node):
        if not isinstance(node, dict):
            return node
        if node and all(key.isdigit() for key in node):
            return [grown(node.get(str(i), {})) for i in range(max(map(int, node)) + 1)]
        made = tf.Module()
        for key, child in node.items():
            setattr(made, key, grown(child))
        return made

    return grown(root)


def save_checkpoint(model: PublicModel, prefix: Path) -> Path:
    """As the public code's training writes it."""
    step = tf.Variable(7, dtype=tf.int64, name="global_step")
    saved = tf.train.Checkpoint(model=model.model, global_step=step).write(str(prefix))
    return Path(saved)


def save_tf1(variant: Variant, folder: Path, *, prefix: str = "") -> Path:
    """A TensorFlow 1 module: two graphs, names in place of objects; and a raw checkpoint beside."""
    v1 = tf.compat.v1
    shutil.rmtree(folder, ignore_errors=True)
    builder = v1.saved_model.Builder(str(folder))
    for training in (False, True):
        with tf.Graph().as_default(), v1.Session() as session, v1.variable_scope(prefix or None) if prefix else tf.name_scope(""):  # fmt: skip  # noqa: E501
            images = v1.placeholder(tf.float32, [None, None, None, 3], "images")
            outputs = network(Weights(variant, graph=True), images, training)
            v1.get_variable("global_step", initializer=np.int64(7), trainable=False)
            outputs["default"] = outputs["final_avg_pool"]
            signature = v1.saved_model.predict_signature_def({"images": images}, outputs)
            session.run(v1.global_variables_initializer())
            described = {"signature_def_map": {"default": signature}}
            if training:
                builder.add_meta_graph(["train"], **described)
            else:
                builder.add_meta_graph_and_variables(session, [], **described)
                v1.train.Saver().save(session, str(folder.parent / "model.ckpt-7"))
    builder.save()
    return folder
