"""From the names and object paths of stored variables to the places of our network's variables.

Three ways of naming are read. Object paths (TensorFlow 2) are taken as they are. Names of
TensorFlow 1 (`base_model/conv2d_3/kernel`) and of TensorFlow 2
(`resnet/block_group1/…/conv2d_3/kernel:0`) number the layers alike, and both become the first form;
numbers count on over all models that a process made, so they are counted from the smallest.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from trainer.checkpoints.inference import layer_counts

FIELDS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
BACKBONE, PROJECTION, SUPERVISED = "base_model", "head_contrastive", "head_supervised"
_SCOPES = {
    "resnet": BACKBONE,
    "base_model": BACKBONE,
    "projection_head": PROJECTION,
    "head_contrastive": PROJECTION,
    "head_supervised": SUPERVISED,
    "supervised_head": SUPERVISED,
}
_LAYER = re.compile(r"(?:sync_)?(conv2d|batch_normalization|dense)(?:_v\d)?(?:_(\d+))?")
_PATH = re.compile(
    r"resnet_model|initial_conv_relu_max_pool|block_groups|layers|\d+|projection_layers"
    r"|shortcut_layers|conv_relu_dropblock_layers|conv2d_bn_layers|conv2d(_[01])?|bn"
    r"|conv2d_fixed_padding|batch_norm_relu(_1)?|_projection_head|linear_layers|dense|bn_relu"
    rf"|supervised_head|linear_layer|{'|'.join(FIELDS)}"
)


class _Parsed(NamedTuple):
    part: str
    layer: str
    number: int
    field: str
    nonlinear: str  # `nl_0` and so on in the projection head


def is_step(name: str) -> bool:
    """Whether the reference's object paths have a step of this name."""
    return _PATH.fullmatch(name) is not None


def places(names: Iterable[str]) -> dict[str, str]:
    """Where each variable belongs, as TensorFlow 1 would name it: `{name: place}`.

    Names that belong to no part of the network (optimizer slots, counters) are left out. Two names
    may get one place, when a file holds two networks.
    """
    parsed = {name: found for name in names if (found := _parse(name)) is not None}
    ranks = {
        layer: _ranks({p.number for p in parsed.values() if (p.part, p.layer) == (BACKBONE, layer)})
        for layer in ("conv2d", "batch_normalization")
    }
    return {name: _place(found, ranks) for name, found in parsed.items()}


def creation_order(place: str) -> tuple[tuple[int, int], ...]:
    """Sorts object paths of the backbone's kernels as the reference creates the layers."""
    first = {"initial_conv_relu_max_pool": 0, "block_groups": 1}
    shortcut = {"projection_layers": 0, "shortcut_layers": 0}
    selective = {"conv2d_fixed_padding": 0, "conv2d_0": 1, "conv2d_1": 2}
    order = first | shortcut | selective
    return tuple(
        (0, int(step)) if step.isdigit() else (1, order.get(step, 3)) for step in place.split("/")
    )


def number(place: str) -> int:
    """The number of a layer in a TensorFlow 1 name: 3 for `base_model/conv2d_3/kernel`."""
    found = _LAYER.fullmatch(place.split("/")[-2])
    return int(found[2] or 0) if found else 0


def _parse(name: str) -> _Parsed | None:
    *scopes, layer, field = ("/" + name.partition(":")[0]).split("/")
    found = _LAYER.fullmatch(layer)
    parts = [_SCOPES[scope] for scope in scopes if scope in _SCOPES]
    if field not in FIELDS or found is None or not parts:
        return None
    nonlinear = next((scope for scope in scopes if re.fullmatch(r"nl_\d+", scope)), "")
    if (parts[-1] == PROJECTION) != bool(nonlinear):
        return None
    return _Parsed(parts[-1], found[1], int(found[2] or 0), field, nonlinear)


def _place(parsed: _Parsed, ranks: dict[str, dict[int, int]]) -> str:
    if parsed.part == PROJECTION:
        return f"{PROJECTION}/{parsed.nonlinear}/{parsed.layer}/{parsed.field}"
    if parsed.part == SUPERVISED:
        return f"{SUPERVISED}/linear_layer/{parsed.layer}/{parsed.field}"
    rank = ranks.get(parsed.layer, {}).get(parsed.number, parsed.number)
    return f"{BACKBONE}/{parsed.layer}{f'_{rank}' if rank else ''}/{parsed.field}"


def _ranks(numbers: set[int]) -> dict[int, int]:
    """Numbers counted from 0. A whole network's close their gaps; else a gap is a missing layer."""
    if len(numbers) in layer_counts():
        return {number: rank for rank, number in enumerate(sorted(numbers))}
    return {number: number - min(numbers) for number in numbers}
