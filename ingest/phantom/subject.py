"""One subject: latents, anatomy, tissue, scan, in that order."""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ingest.phantom.acquisition import SITES, Pose, Scanner
from ingest.phantom.anatomy import Anatomy, build_anatomy
from ingest.phantom.geometry import Part, Stack, highest
from ingest.phantom.latents import (
    ACQUISITION_STREAM,
    ANATOMY_STREAM,
    NOISE_STREAM,
    Latents,
    draw_latents,
    generator,
)
from ingest.phantom.spec import CLASSES, PhantomSpec
from ingest.phantom.tissue import paint
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY

MASKS = ("hull", "ventricles", "sulci", "hippocampus")
POSITION_UNITS = 1024  # per slice, so that positions between slices have noise of their own too


@dataclass(frozen=True)
class Subject:
    """A subject's slices and everything that is true of them.

    Attributes:
        id: `subj0001`; unique in the cohort, and the same subject in any cohort of that seed.
        label: index into `ALZHEIMER_CLASSES`.
        site: the scanner.
        latents: the numbers that carry the class.
        encoded: one JPEG file per slice.
        masks: bool[Z, size, size] each of hull, ventricles, sulci and hippocampus, lying in the
            images as acquired: the pose is applied to them too.
        vbr: float64[Z], ventricles / hull area aimed at in each slice.
        sulcal: float64[Z], sulci / hull area aimed at in each slice.
    """

    id: str
    label: int
    site: int
    latents: Latents
    encoded: tuple[bytes, ...]
    masks: dict[str, np.ndarray]
    vbr: np.ndarray
    sulcal: np.ndarray

    @property
    def class_name(self) -> str:
        """Name of the subject's class, which is also its folder's."""
        return ALZHEIMER_CLASSES[self.label]

    @cached_property
    def images(self) -> np.ndarray:
        """The slices as any reader decodes them: uint8[Z, size, size]."""
        return np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in self.encoded])


def render_subject(spec: PhantomSpec, index: int) -> Subject:
    """Renders one subject; nothing but its own number, stage and site, and the seed, shapes it.

    Args:
        spec: the cohort.
        index: 0 to len(spec) - 1.

    Raises:
        IndexError: no such subject; names the index received.
    """
    if not 0 <= index < len(spec):
        raise IndexError(f"Subject index must be 0 to {len(spec) - 1}. Received: {index}.")
    stage, rank = spec.members()[index]
    # Numbers step by the count of classes, so that more subjects of one class rename no other's.
    number = rank * CLASSES + stage
    site = spec.sites[rank % len(spec.sites)]
    stack = Stack(spec.positions, spec.size)

    latents = draw_latents(spec.seed, number, stage, spec.preset)
    rng = generator(spec.seed, ANATOMY_STREAM, number)
    anatomy = build_anatomy(latents, rng, stack)
    tissue = paint(anatomy, latents, rng, stack)
    scanner = Scanner(
        SITES[site], generator(spec.seed, ACQUISITION_STREAM, number, site), spec.size
    )
    noise = [
        generator(spec.seed, NOISE_STREAM, number, site, round(position * POSITION_UNITS))
        for position in spec.positions
    ]
    images = scanner.scan(tissue, noise)
    return Subject(
        id=f"subj{number + 1:04d}",
        label=ALZHEIMER_CLASSES.index(ALZHEIMER_SEVERITY[stage]),
        site=site,
        latents=latents,
        encoded=scanner.encode(images),
        masks=_as_seen(anatomy, scanner.pose),
        vbr=anatomy.vbr,
        sulcal=anatomy.sulcal,
    )


def _as_seen(anatomy: Anatomy, pose: Pose) -> dict[str, np.ndarray]:
    """The masks where they lie in the images.

    Turning a small mask changes its area by a few per cent; so the areas aimed at are met again.
    """
    window = anatomy.hull.window

    def whole(part: np.ndarray) -> np.ndarray:
        image = np.zeros((len(part), pose.size, pose.size), part.dtype)
        image[window.block] = part
        return image

    hull = pose.move_mask(whole(anatomy.hull.mask))
    area = hull.sum((1, 2))

    def moved(part: Part, fraction: np.ndarray, free: np.ndarray) -> np.ndarray:
        share = np.where(free, pose.move(whole(part.share)), 0)
        wanted = np.rint(fraction * area).astype(int)
        levels = [highest(values, count) for values, count in zip(share, wanted, strict=True)]
        return share >= np.array(levels)[:, None, None]

    ventricles = moved(anatomy.ventricles, anatomy.vbr, hull)
    sulci = moved(anatomy.sulci, anatomy.sulcal, hull & ~ventricles)
    hippocampus = pose.move_mask(whole(anatomy.hippocampus.mask)) & ~(ventricles | sulci)
    return dict(zip(MASKS, (hull, ventricles, sulci, hippocampus), strict=True))
