"""Which network a checkpoint holds, told by the shapes of its variables."""

from collections.abc import Sequence

from trainer.checkpoints.aliases import SK_RATIO
from trainer.config import BackboneSettings
from trainer.resnet import BASIC_DEPTHS, BLOCKS, SMALLEST_SELECTION

Shape = tuple[int, ...]


def convolution_count(depth: int, selective: bool) -> int:
    """Convolutions of a backbone: 53 of a plain ResNet-50. `selective` is `sk_ratio > 0`."""
    shortcuts, stem = len(BLOCKS[depth]), 3 if selective else 1
    bottleneck = 5 if selective else 3
    per_block = 2 if depth in BASIC_DEPTHS else bottleneck
    return stem + shortcuts + per_block * sum(BLOCKS[depth])


def normalisation_count(depth: int, selective: bool) -> int:
    """Batch normalisations of a backbone; a selective kernel's last convolution has none."""
    bare = sum(BLOCKS[depth]) if selective and depth not in BASIC_DEPTHS else 0
    return convolution_count(depth, selective) - bare


def layer_counts() -> frozenset[int]:
    """How many convolutions or normalisations a whole backbone may have."""
    return frozenset(
        count(depth, selective)
        for count in (convolution_count, normalisation_count)
        for depth in BLOCKS
        for selective in (False, True)
    )


def infer(kernels: Sequence[Shape]) -> BackboneSettings | None:
    """The network whose convolutions these are, or the nearest when some are missing.

    Args:
        kernels: shapes (height, width, in, out) in the order of creation: the stem, then each block
            with its shortcut first.

    Returns:
        Depth, width, stem and `sk_ratio`; None when there are too few to tell.
    """
    if len(kernels) < 4 or any(len(kernel) != 4 for kernel in kernels):
        return None
    deep = all(kernel[0] == 3 for kernel in kernels[:3]) and kernels[2][3] == 2 * kernels[0][3]
    filters = kernels[2 if deep else 0][3]
    basic = kernels[-1][0] == 3
    depth = min(
        (depth for depth in BLOCKS if (depth in BASIC_DEPTHS) == basic),
        key=lambda depth: abs(convolution_count(depth, deep) - len(kernels)),
    )
    return BackboneSettings.model_validate(
        {
            "depth": depth,
            "width": max(filters, 1) / 64,
            "sk_ratio": _sk_ratio(kernels, basic) if deep else 0.0,
            "stem": "imagenet" if deep or kernels[0][0] == 7 else "cifar",
        }
    )


def _sk_ratio(kernels: Sequence[Shape], basic: bool) -> float:
    """The published ratio when it gives these widths, else the one that the last block shows."""
    if basic:
        return SK_RATIO  # basic blocks have no selective kernel that could tell
    *_, filters, reduced = kernels[-3]
    if reduced == max(int(filters * SK_RATIO), SMALLEST_SELECTION):
        return SK_RATIO
    return min(reduced / max(filters, 1), 1.0)
