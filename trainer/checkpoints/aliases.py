"""Short names of the public SimCLR checkpoints: where each lies and which network it holds.

Figures are those of the public README (ImageNet top-1 accuracy in percent, parameters of the
backbone in millions); see Chen et al. 2020, "Big Self-Supervised Models are Strong
Semi-Supervised Learners", table 1.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trainer.checkpoints.errors import UnknownCheckpoint
from trainer.config import BackboneSettings

TF2_BUCKET = "gs://simclr-checkpoints-tf2"
TF1_BUCKET = "gs://simclr-checkpoints"
SK_RATIO = 0.0625  # of every published network with selective kernels
STAGES = ("pretrained", "finetuned_1pct", "finetuned_10pct", "finetuned_100pct", "supervised")
DISTILLED = ("distill_1pct", "distill_10pct")
FIRST_VERSION = ("pretrain", "finetune_10pct", "finetune_100pct")
SAVED_MODEL, HUB = "saved_model", "hub"


class Figures(NamedTuple):
    """One row of the published table; accuracies in the order of `STAGES`."""

    depth: int
    width: int
    selective: bool
    parameters: int  # millions
    accuracies: tuple[float, float, float, float, float]

    @property
    def architecture(self) -> str:
        """The name that the buckets use, such as `r50_1x_sk0`."""
        return f"r{self.depth}_{self.width}x_sk{int(self.selective)}"


TABLE = (
    Figures(50, 1, False, 24, (71.7, 57.9, 68.4, 76.3, 76.6)),
    Figures(50, 1, True, 35, (74.6, 64.5, 72.1, 78.7, 78.5)),
    Figures(50, 2, False, 94, (75.6, 66.3, 73.9, 79.1, 77.8)),
    Figures(50, 2, True, 140, (77.7, 70.6, 77.0, 81.3, 79.3)),
    Figures(101, 1, False, 43, (73.6, 62.1, 71.4, 78.2, 78.0)),
    Figures(101, 1, True, 65, (76.3, 68.3, 75.1, 80.6, 79.6)),
    Figures(101, 2, False, 170, (77.0, 69.1, 75.8, 80.7, 78.9)),
    Figures(101, 2, True, 257, (79.0, 73.2, 78.8, 82.4, 80.1)),
    Figures(152, 1, False, 58, (74.5, 64.0, 73.0, 79.3, 78.3)),
    Figures(152, 1, True, 89, (77.2, 70.0, 76.5, 81.3, 79.9)),
    Figures(152, 2, False, 233, (77.4, 70.2, 76.6, 81.1, 79.1)),
    Figures(152, 2, True, 354, (79.4, 74.2, 79.4, 82.9, 80.4)),
    Figures(152, 3, True, 795, (79.8, 74.9, 80.1, 83.1, 80.5)),
)
FIGURES = {row.architecture: row for row in TABLE}
_WIDTHS = (1, 2, 4)  # of version 1, all of depth 50


@dataclass(frozen=True)
class Published:
    """A public checkpoint.

    Attributes:
        alias: its short name, with the format.
        url: folder in a public bucket.
        backbone: the network that the name promises.
        accuracy: published ImageNet top-1 in percent, where the name alone tells it.
    """

    alias: str
    url: str
    backbone: BackboneSettings
    accuracy: float | None = None


def names() -> list[str]:
    """Every alias, without the formats that may be appended."""
    return [
        *(f"simclrv2/{stage}/{row.architecture}" for stage in STAGES for row in TABLE),
        *(f"simclrv2/{share}/r152_3x_sk1/r152_3x_sk1" for share in DISTILLED),
        *(f"simclrv1/{stage}/{width}x" for stage in FIRST_VERSION for width in _WIDTHS),
    ]


def find(text: str) -> Published:
    """The checkpoint that an alias or its bucket's address stands for.

    Args:
        text: such as `simclrv2/pretrained/r50_1x_sk0`, perhaps with `/saved_model` (the default)
            or `/hub` (the TensorFlow 1 module), or the `gs://` address of either.

    Raises:
        UnknownCheckpoint: nothing is published under this name; names the nearest ones.
    """
    alias, suffix = _split(text)
    published = _second_version(alias, suffix) or _first_version(alias, suffix)
    if published is None:
        near = difflib.get_close_matches(alias, names(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UnknownCheckpoint(
            f"No checkpoint is published as {text!r}.{hint} All of them: "
            "`cortexflow checkpoint list`."
        )
    return published


def looks_like_one(text: str) -> bool:
    """Whether a text is meant as an alias: it begins like one, or is nearly one."""
    if "://" in text or text.startswith(("/", "~", ".")):
        return False
    return text.startswith("simclr") or bool(
        difflib.get_close_matches(text, names(), n=1, cutoff=0.8)
    )


def known(text: str) -> Published | None:
    """What is published under what a user names; None for a path, or somebody else's address.

    Raises:
        UnknownCheckpoint: there is neither such a file nor such an alias; names the nearest.
    """
    if "://" in text:
        return of_address(text)
    path = Path(text).expanduser()
    if path.exists() or Path(f"{path}.index").is_file():
        return None
    if looks_like_one(text):
        return find(text)
    raise UnknownCheckpoint(
        f"No checkpoint at {path.resolve()}, and {text!r} is no alias of a published one. Give a "
        "folder, an address (gs://, https://), or one of `cortexflow checkpoint list`."
    )


def of_address(url: str) -> Published | None:
    """The published checkpoint at a `gs://` address; None when it is somebody else's."""
    if not url.startswith((f"{TF2_BUCKET}/", f"{TF1_BUCKET}/")):
        return None
    try:
        return find(url)
    except UnknownCheckpoint:
        return None


def backbone_of(architecture: str) -> BackboneSettings | None:
    """The network that a name such as `r50_1x_sk0` stands for; None when it is no such name."""
    parts = re.fullmatch(r"r(18|34|50|101|152|200)_(\d)x_sk([01])", architecture)
    if parts is None or int(parts[2]) == 0:
        return None
    return BackboneSettings.model_validate(
        {
            "depth": int(parts[1]),
            "width": int(parts[2]),
            "sk_ratio": SK_RATIO if parts[3] == "1" else 0.0,
        }
    )


def architecture_of(backbone: BackboneSettings) -> str:
    """The name of a network as the buckets would spell it, such as `r50_1x_sk0`."""
    stem = "_cifar" if backbone.stem == "cifar" else ""
    return f"r{backbone.depth}_{backbone.width:g}x_sk{int(backbone.sk_ratio > 0)}{stem}"


def _split(text: str) -> tuple[str, str]:
    """The bare alias, and the format that its address or its ending asks for."""
    text = text.rstrip("/")
    suffix = ""
    for bucket, form in ((TF2_BUCKET, SAVED_MODEL), (TF1_BUCKET, HUB)):
        if text.startswith(f"{bucket}/"):
            text, suffix = text.removeprefix(f"{bucket}/"), form
    for form in (SAVED_MODEL, HUB):
        if text.endswith(f"/{form}"):
            text, suffix = text.removesuffix(f"/{form}"), form
    return text, suffix or SAVED_MODEL


def _second_version(alias: str, suffix: str) -> Published | None:
    parts = alias.split("/")
    if len(parts) < 3 or parts[0] != "simclrv2" or parts[-1] not in FIGURES:
        return None
    stage, row = parts[1], FIGURES[parts[-1]]
    distilled = len(parts) == 4 and stage in DISTILLED and parts[2] in FIGURES
    if not distilled and (len(parts) != 3 or stage not in STAGES):
        return None
    bucket = TF2_BUCKET if suffix == SAVED_MODEL else TF1_BUCKET
    backbone = backbone_of(row.architecture)
    assert backbone is not None
    accuracy = None if distilled else row.accuracies[STAGES.index(stage)]
    return Published(f"{alias}/{suffix}", f"{bucket}/{alias}/{suffix}", backbone, accuracy)


def _first_version(alias: str, suffix: str) -> Published | None:
    parts = re.fullmatch(rf"simclrv1/({'|'.join(FIRST_VERSION)})/([124])x", alias)
    if parts is None or suffix != SAVED_MODEL:
        return None
    backbone = BackboneSettings(depth=50, width=int(parts[2]))
    return Published(f"{alias}/{suffix}", f"{TF2_BUCKET}/{alias}/{suffix}", backbone)
