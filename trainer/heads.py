"""What stands on the encoder: SimCLRv2's projection head, and the linear classifier."""

import keras
from keras import layers, ops

from trainer.config import ProjectionSettings
from trainer.normalization import batch_norm
from trainer.resnet import ReferenceVariable, parameters


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01)


class ProjectionHead(layers.Layer):
    """Dense layers without bias, each batch-normalised; all but the last have a ReLU.

    Hidden layers are as wide as the input; the last has `settings.dim` outputs and its
    normalisation no offset (Chen et al. 2020, SimCLRv2, section 2.1 and its public code).
    """

    def __init__(self, settings: ProjectionSettings, **kwargs):
        super().__init__(**kwargs)
        self._settings = settings
        self.dense: list[layers.Dense] = []
        self.norms: list[layers.BatchNormalization] = []

    def build(self, input_shape):
        """Creates the layers for an input of shape (N, D)."""
        hidden, count = input_shape[-1], self._settings.layers
        for position in range(count):
            last = position == count - 1
            width = self._settings.dim if last else hidden
            self.dense.append(
                layers.Dense(width, use_bias=False, kernel_initializer=_initializer())
            )
            self.norms.append(batch_norm(center=not last))
            self.dense[-1].build((None, hidden))
            self.norms[-1].build((None, width))
        self.built = True

    def call(self, x, training=False, depth: int | None = None):
        """Projects features.

        Args:
            x: [N, D], the encoder's `final_avg_pool`.
            training: normalise by the batch's statistics and update the moving ones.
            depth: layers to apply; None applies all.

        Returns:
            `depth + 1` tensors: the input, then each layer's output, the last [N, dim]. Index
            `ft_proj_selector` of this list is what fine-tuning classifies from.
        """
        hiddens = [x]
        last = len(self.dense) - 1
        for position in range(len(self.dense) if depth is None else depth):
            x = self.norms[position](self.dense[position](x), training=training)
            x = x if position == last else ops.relu(x)
            hiddens.append(x)
        return hiddens

    def reference_variables(self) -> list[ReferenceVariable]:
        """Where each variable of a built head stands in the public code's checkpoints."""
        return [
            ReferenceVariable(
                f"_projection_head/linear_layers/{j}/{path}/{field}",
                f"head_contrastive/nl_{j}/{name}/{field}",
                variable,
            )
            for j, (dense, norm) in enumerate(zip(self.dense, self.norms, strict=True))
            for path, name, layer in (
                ("dense", "dense", dense),
                ("bn_relu/bn", "batch_normalization", norm),
            )
            for field, variable in parameters(layer)
        ]


class SupervisedHead(layers.Dense):
    """Linear classifier: [N, D] to float32 logits [N, classes].

    Optimizers know it by its type: LARS leaves it out of layer adaptation.
    """

    def __init__(self, classes: int, **kwargs):
        # Logits stay in float32 under mixed precision: a softmax in float16 overflows.
        kwargs.setdefault("dtype", "float32")
        super().__init__(classes, kernel_initializer=_initializer(), **kwargs)

    def reference_variables(self) -> list[ReferenceVariable]:
        """Where kernel and bias of a built head stand in the public code's checkpoints."""
        return [
            ReferenceVariable(
                f"supervised_head/linear_layer/dense/{field}",
                f"head_supervised/linear_layer/dense/{field}",
                variable,
            )
            for field, variable in parameters(self)
        ]
