"""Where near the weights the loss is worst: sharpness-aware minimisation and its adaptive form.

A flat minimum is one whose neighbourhood is good too. Each step looks for the worst point of a ball
around the weights and follows the gradient found there (Foret, Kleiner, Mobahi & Neyshabur 2021,
arXiv:2010.01412). The adaptive ball is wide where weights are large, so that rescaling a layer does
not change its sharpness (Kwon, Kim, Park & Choi 2021, arXiv:2102.11600).
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.config import OptimizerSettings

_RHO = 0.05  # where settings leave it out: Foret et al., section 3.1, and most of their tables
_ETA = 0.01  # Kwon et al., section 4.3: keeps weights near zero from standing still


def worst_point(
    settings: OptimizerSettings,
    variables: Sequence[keras.Variable],
    gradients: Sequence[tf.Tensor | None],
) -> list[tf.Tensor]:
    """First-order estimate of the worst weights at distance `rho`.

    `sam`: w + rho g / ‖g‖. `asam`: w + rho T² g / ‖T g‖, with T = |w| + 0.01 for kernels and 1 for
    biases and normalisation. Norms run over all variables together.

    Args:
        settings: `sharpness`, `sam` or `asam`, and `rho`, which is 0.05 where it is left out.
        variables: what is trained.
        gradients: of the whole batch, one for each variable; `None` counts as zero.

    Returns:
        One float32 tensor for each variable; the variables stay as they are.
    """
    weights = [tf.convert_to_tensor(variable.value) for variable in variables]
    slopes = [
        tf.zeros_like(weight) if gradient is None else gradient
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    adaptive = settings.sharpness == "asam"
    scales = [
        tf.abs(weight) + _ETA if adaptive and len(weight.shape) > 1 else tf.ones_like(weight)
        for weight in weights
    ]
    steps = [scale * slope for scale, slope in zip(scales, slopes, strict=True)]
    reach = tf.math.divide_no_nan(settings.rho or _RHO, tf.linalg.global_norm(steps))
    return [
        weight + reach * scale * step
        for weight, scale, step in zip(weights, scales, steps, strict=True)
    ]
