"""SimCLR's ResNet: the encoder that pretraining learns and fine-tuning starts from.

ResNet v1 with post-activation, stride on the 3 × 3 convolution, fixed padding, and, for
`sk_ratio > 0`, the ResNet-D stem and shortcuts with selective kernels in the bottlenecks (Chen et
al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners", and its public code).
Reproduces that code's outputs for equal weights, so that its checkpoints can be read: see
`reference_variables`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import keras
from keras import layers, ops

from trainer.config import BackboneSettings
from trainer.normalization import batch_norm

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
BASIC_DEPTHS = (18, 34)
SMALLEST_SELECTION = 32  # least width of a selective kernel's bottleneck

NamedLayer = tuple[str, layers.Layer]


class ReferenceVariable(NamedTuple):
    """One variable and where the public SimCLR code keeps its counterpart.

    Attributes:
        path: object path in a TF2 checkpoint, below `model/`, without the
            `/.ATTRIBUTES/VARIABLE_VALUE` suffix.
        name: name in a TF1 checkpoint.
        variable: ours; shapes are equal on both sides.
    """

    path: str
    name: str
    variable: keras.Variable


def parameters(layer: layers.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """Yields a convolution's, dense layer's or batch normalisation's `(field, variable)` pairs."""
    fields = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    for field in fields:
        variable = getattr(layer, field, None)
        if variable is not None:
            yield field, variable


class FixedPaddingConvolution(layers.Conv2D):
    """Convolution without bias whose padding does not depend on the input's size.

    With a stride, `(kernel - 1) // 2` zeros go before and the rest after; TensorFlow's "SAME"
    would pad even and odd sizes differently.
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding="valid" if strides > 1 else "same",
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(),
            **kwargs,
        )
        before = (kernel_size - 1) // 2
        self._zeros = (before, kernel_size - 1 - before) if strides > 1 else (0, 0)

    def call(self, images):
        """Convolves `[N, H, W, C]`."""
        if any(self._zeros):
            images = ops.pad(images, ((0, 0), self._zeros, self._zeros, (0, 0)))
        return super().call(images)

    def compute_output_shape(self, input_shape):
        """Shape after padding and convolving `input_shape` (N, H, W, C)."""
        batch, *size, channels = input_shape
        padded = (None if side is None else side + sum(self._zeros) for side in size)
        return super().compute_output_shape((batch, *padded, channels))


class Shortcut(layers.Layer):
    """Projection on the skip connection of each group's first block.

    Strided 1 × 1 convolution; with `pooled` (ResNet-D, He et al. 2019) an average pool does the
    striding, and for odd sizes its padding row of zeros is averaged in, as in the public code.
    """

    def __init__(self, filters: int, strides: int, *, pooled: bool, **kwargs):
        super().__init__(**kwargs)
        # A 2 × 2 pool of stride 1 with "same" padding stays in groups that do not stride.
        padding = "valid" if strides > 1 else "same"
        self.pool = layers.AveragePooling2D(2, strides, padding) if pooled else None
        self._zero_edge = pooled and strides > 1
        self.conv = FixedPaddingConvolution(filters, 1, 1 if pooled else strides)
        self.norm = batch_norm()

    def call(self, x, training=False):
        """Maps `[N, H, W, C]` to `[N, H / strides, W / strides, filters]`."""
        if self._zero_edge:
            x = ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
        if self.pool is not None:
            x = self.pool(x)
        return self.norm(self.conv(x), training=training)

    def reference_layers(self) -> Iterator[NamedLayer]:
        """Yields the parts in the public code's creation order."""
        before = (self.pool is not None) + self._zero_edge  # the public code's layers before it
        yield f"{before}/conv2d", self.conv
        yield f"{before + 1}/bn", self.norm


class SelectiveKernel(layers.Layer):
    """Two 3 × 3 streams mixed by a softmax over their pooled sum (Li et al. 2019).

    Both streams are plain 3 × 3 convolutions, as in SimCLRv2 (the paper's second is dilated).
    """

    def __init__(self, filters: int, strides: int, sk_ratio: float, **kwargs):
        super().__init__(**kwargs)
        reduced = max(int(filters * sk_ratio), SMALLEST_SELECTION)
        self.conv = FixedPaddingConvolution(2 * filters, 3, strides)
        self.norm = batch_norm()
        self.reduce = FixedPaddingConvolution(reduced, 1)
        self.reduce_norm = batch_norm()
        self.expand = FixedPaddingConvolution(2 * filters, 1)

    def call(self, x, training=False):
        """Maps `[N, H, W, C]` to `[N, H / strides, W / strides, filters]`."""
        x = ops.relu(self.norm(self.conv(x), training=training))
        first, second = ops.split(x, 2, axis=-1)
        pooled = ops.mean(first + second, axis=(1, 2), keepdims=True)
        pooled = ops.relu(self.reduce_norm(self.reduce(pooled), training=training))
        mix_first, mix_second = ops.split(self.expand(pooled), 2, axis=-1)
        share = ops.sigmoid(mix_first - mix_second)  # a softmax over two
        return share * first + (1 - share) * second

    def reference_layers(self) -> Iterator[NamedLayer]:
        """Yields the parts in the public code's creation order."""
        yield "conv2d_fixed_padding/conv2d", self.conv
        yield "batch_norm_relu/bn", self.norm
        yield "conv2d_0", self.reduce
        yield "batch_norm_relu_1/bn", self.reduce_norm
        yield "conv2d_1", self.expand


class Block(layers.Layer):
    """Residual block: basic (3 × 3, 3 × 3) or bottleneck (1 × 1, 3 × 3 or selective, 1 × 1)."""

    def __init__(
        self, filters: int, strides: int, *, bottleneck: bool, sk_ratio: float, project: bool, **kw
    ):
        super().__init__(**kw)
        self._bottleneck = bottleneck
        self._selective = bottleneck and sk_ratio > 0
        width = 4 * filters if bottleneck else filters
        self.shortcut = Shortcut(width, strides, pooled=sk_ratio > 0) if project else None
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        self.convs, self.norms = [], []
        for position, kernel in enumerate(kernels):
            last = position == len(kernels) - 1
            # Stride sits on the 3 × 3 convolution of a bottleneck, on the first of a basic block.
            stride = strides if position == len(kernels) - 2 else 1
            if kernel == 3 and self._selective:
                self.convs.append(SelectiveKernel(filters, stride, sk_ratio))
                self.norms.append(None)
                continue
            self.convs.append(FixedPaddingConvolution(width if last else filters, kernel, stride))
            self.norms.append(batch_norm(zero_gamma=last))

    def call(self, x, training=False):
        """Maps `[N, H, W, C]` to `[N, H / strides, W / strides, width]`, not negative."""
        skip = x if self.shortcut is None else self.shortcut(x, training=training)
        for position, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if norm is None:
                x = conv(x, training=training)
                continue
            x = norm(conv(x), training=training)
            if position < len(self.convs) - 1:
                x = ops.relu(x)
        return ops.relu(x + skip)

    def reference_layers(self) -> Iterator[NamedLayer]:
        """Yields the parts in the public code's creation order: shortcut first."""
        shortcuts = "projection_layers" if self._bottleneck else "shortcut_layers"
        main = "conv_relu_dropblock_layers" if self._bottleneck else "conv2d_bn_layers"
        if self.shortcut is not None:
            for path, layer in self.shortcut.reference_layers():
                yield f"{shortcuts}/{path}", layer
        index = 0
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if norm is None:
                for path, layer in conv.reference_layers():
                    yield f"{main}/{index}/{path}", layer
                index += 2  # the selective kernel and a DropBlock that is off
                continue
            yield f"{main}/{index}/conv2d", conv
            yield f"{main}/{index + 1}/bn", norm
            index += 3 if self._bottleneck else 2  # bottlenecks count a DropBlock that is off


class Stem(layers.Layer):
    """What comes before the residual groups: 7 × 7, three 3 × 3 (ResNet-D), or CIFAR's 3 × 3."""

    def __init__(self, filters: int, *, kind: str, deep: bool, **kwargs):
        super().__init__(**kwargs)
        self._pooled = kind == "imagenet"
        self._deep = deep and self._pooled
        half = max(filters // 2, 1)
        if self._deep:
            shapes = [(half, 3, 2), (half, 3, 1), (filters, 3, 1)]
        else:
            shapes = [(filters, 7, 2) if self._pooled else (filters, 3, 1)]
        self.convs = [FixedPaddingConvolution(*shape) for shape in shapes]
        self.norms = [batch_norm() for _ in shapes]
        self.pool = layers.MaxPooling2D(3, 2, "same") if self._pooled else None

    def call(self, images, training=False):
        """Returns the last convolution before its normalisation, and the stem's output."""
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            initial_conv = conv(x)
            x = ops.relu(norm(initial_conv, training=training))
        return initial_conv, x if self.pool is None else self.pool(x)

    def reference_layers(self) -> Iterator[NamedLayer]:
        """Yields the parts in the public code's creation order."""
        last = len(self.convs) - 1
        for position, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            yield f"{2 * position}/conv2d", conv
            # An identity that names the endpoint `initial_conv` sits before the last one.
            yield f"{2 * position + 1 + (position == last)}/bn", norm


class ResNet(keras.Model):
    """The encoder. Built for 1 or 3 channels on its first call.

    Attributes:
        features: width of `final_avg_pool`.
    """

    def __init__(self, settings: BackboneSettings, **kwargs):
        super().__init__(**kwargs)
        bottleneck = settings.depth not in BASIC_DEPTHS
        base = max(round(64 * settings.width), 1)
        self.stem = Stem(base, kind=settings.stem, deep=settings.sk_ratio > 0)
        self.groups = [
            [
                Block(
                    base * 2**group,
                    strides=2 if group > 0 and position == 0 else 1,
                    bottleneck=bottleneck,
                    sk_ratio=settings.sk_ratio,
                    project=position == 0,
                )
                for position in range(count)
            ]
            for group, count in enumerate(BLOCKS[settings.depth])
        ]
        self.features = base * 8 * (4 if bottleneck else 1)
        self._frozen_groups = -1

    def call(self, images, training=False):
        """Encodes images.

        Args:
            images: float32[N, H, W, C] in [0, 1], C of 1 or 3, sides of 32 or more.
            training: normalise by the batch's statistics and update the moving ones.

        Returns:
            Endpoints by name: `initial_conv` (before normalisation), `initial_max_pool`,
            `block_group1` … `block_group4`, all [N, h, w, c], and `final_avg_pool` [N, features].
        """
        endpoints = {}
        endpoints["initial_conv"], x = self.stem(images, training=training)
        x = self._cut(x, 0)
        endpoints["initial_max_pool"] = x
        for number, group in enumerate(self.groups, start=1):
            for block in group:
                x = block(x, training=training)
            x = self._cut(x, number)
            endpoints[f"block_group{number}"] = x
        endpoints["final_avg_pool"] = ops.mean(x, axis=(1, 2))
        return endpoints

    def freeze(self, after_block: int) -> None:
        """Keeps the first parts as they are, in training too: weights and moving statistics.

        A frozen part normalises by its moving statistics, and no gradient is computed below the
        last of them. (The public TF2 code lets frozen parts update their statistics.)

        Args:
            after_block: -1 freezes nothing, 0 the stem, 1 to 4 the stem and as many groups.
        """
        self._frozen_groups = after_block
        if after_block >= 0:
            blocks = (block for group in self.groups[:after_block] for block in group)
            for layer in (self.stem, *blocks):
                layer.trainable = False

    def _cut(self, x, number: int):
        return ops.stop_gradient(x) if number == self._frozen_groups else x

    def reference_layers(self) -> Iterator[NamedLayer]:
        """Yields `(TF2 object path, layer)` in the public code's creation order."""
        for path, layer in self.stem.reference_layers():
            yield f"resnet_model/initial_conv_relu_max_pool/{path}", layer
        for group, blocks in enumerate(self.groups):
            for position, block in enumerate(blocks):
                for path, layer in block.reference_layers():
                    yield f"resnet_model/block_groups/{group}/layers/{position}/{path}", layer

    def reference_variables(self) -> list[ReferenceVariable]:
        """Where each variable of a built encoder stands in the public code's checkpoints.

        TF1 names count convolutions and normalisations separately, in creation order.
        """
        counts = {"conv2d": 0, "batch_normalization": 0}
        found = []
        for path, layer in self.reference_layers():
            kind = "conv2d" if isinstance(layer, layers.Conv2D) else "batch_normalization"
            suffix = f"_{counts[kind]}" if counts[kind] else ""
            counts[kind] += 1
            found += [
                ReferenceVariable(f"{path}/{field}", f"base_model/{kind}{suffix}/{field}", variable)
                for field, variable in parameters(layer)
            ]
        return found
