"""What fills the shape: the T1 brightness of fluid, grey and white matter, 1 = 232 grey levels."""

import numpy as np

from ingest.phantom.anatomy import Anatomy
from ingest.phantom.fields import draw_field
from ingest.phantom.geometry import PIXEL, Hull, Stack, ellipse, partial_volume
from ingest.phantom.latents import Latents

FLUID, SULCUS, RIM = 0.20, 0.30, 0.30  # folds are narrow: they are seen mixed with cortex
HIPPOCAMPUS, GREY, DEEP_GREY, WHITE = 0.64, 0.66, 0.74, 0.96
MANY_LESIONS_VBR = 0.08  # large ventricles come with more white-matter lesions
LESION = 0.16  # how much darker a white-matter lesion is
MILLIMETRES = 1.35  # per pixel of a 128-pixel slice
OBLIQUENESS = 1.45  # cortex is seldom cut at a right angle, so it looks thicker than it is
SURFACE_LAYER = 1.6  # 128-pixel-slice pixels below the surface that are never darker than RIM

# Thalamus, lentiform nucleus, caudate: centre, radii, angle on the right side; softness of the
# edge; contrast at the bottom of the stack and the height over which it is lost; peak.
NUCLEI = (
    ((0.14, 0.08), (0.10, 0.14), 0.30, 0.12, 1.15, 0.45, 1.0),
    ((0.30, -0.06), (0.07, 0.17), -0.25, 0.12, 1.00, 0.45, 1.0),
    ((0.20, -0.20), (0.04, 0.11), 0.30, 0.15, 1.20, 0.80, 0.8),
)


def paint(anatomy: Anatomy, latents: Latents, rng: np.random.Generator, stack: Stack) -> np.ndarray:
    """Gives every pixel its tissue's brightness, before any scanner.

    Args:
        anatomy: the masks.
        latents: cortical thickness is read; large ventricles bring more white-matter lesions.
        rng: texture and lesions.
        stack: where the slices are.

    Returns:
        float32[Z, size, size], 0 outside the hull, at most about 1.05 within.
    """
    frame = anatomy.hull
    grey = cortex(anatomy.sulci.mask | ~frame.mask, latents.thickness, stack.zoom)
    white = (grey < 0.5) & frame.mask
    texture = draw_field(rng, 3, 5).on(
        stack.positions, PIXEL * frame.window.y, PIXEL * frame.window.x
    )
    tissue = WHITE - (WHITE - GREY) * grey + (0.018 * texture).astype(np.float32)
    _darken_nuclei(tissue, white, frame, stack)
    lesions = _draw_lesions(rng, 1.5 + 2.5 * (latents.vbr > MANY_LESIONS_VBR))
    _darken_lesions(tissue, white, frame, lesions, stack)
    for share, level in (
        (anatomy.horns, FLUID),
        (anatomy.hippocampus.share, HIPPOCAMPUS),
        (anatomy.ventricles.share, FLUID),
        (anatomy.sulci.share, SULCUS),
    ):
        tissue += share * (level - tissue)
    np.maximum(tissue, RIM, out=tissue, where=frame.depth < SURFACE_LAYER)
    tissue *= partial_volume(frame.depth - 0.5, 1.0, stack)
    image = np.zeros((len(stack.positions), stack.size, stack.size), np.float32)
    image[frame.window.block] = tissue
    return image


def cortex(fluid: np.ndarray, thickness: float, zoom: float) -> np.ndarray:
    """Share of grey matter by distance from fluid: float32[Z, h, w] in [0, 1].

    Args:
        fluid: bool[Z, h, w], sulci and everything outside the brain.
        thickness: of the cortex in mm.
        zoom: pixels per pixel of a 128-pixel slice.
    """
    depth = OBLIQUENESS * thickness / MILLIMETRES
    # Distances count from the centres of fluid pixels, whose edge is half a pixel nearer; at
    # another image size that half is another length.
    reach = int(np.ceil((depth + 3) * zoom))
    squared = distance_squared(fluid, reach)
    distance = (np.sqrt(np.arange(2 * reach**2 + 1)) - 0.5) / zoom + 0.5
    share = 1 / (1 + np.exp((distance - depth) / 0.5))
    return share.astype(np.float32)[squared]


def distance_squared(seeds: np.ndarray, reach: int) -> np.ndarray:
    """Squared distance in the plane to the nearest seed, exact up to `reach`.

    Columns first, then rows (Saito and Toriwaki 1994, Pattern Recognition 27:1551), by shifted
    minima over whole arrays instead of a scan per line: the distances that matter are short.

    Args:
        seeds: bool[Z, h, w].
        reach: pixels, at most 150; beyond it the result is an upper bound's stand-in, > reach².

    Returns:
        uint16[Z, h, w], at most 2 reach².
    """
    dtype = np.uint8 if 2 * reach**2 < 256 else np.uint16
    far = dtype(reach**2)
    nearest = np.where(seeds, dtype(0), far)
    for axis in (1, 2):
        source = nearest.copy()
        ahead, behind = ((slice(None),) * axis for _ in range(2))
        for step in range(1, reach + 1):
            after, before = slice(step, None), slice(None, -step)
            moved = source + dtype(step**2)
            for to, origin in ((after, before), (before, after)):
                target = nearest[(*ahead, to)]
                np.minimum(target, moved[(*behind, origin)], out=target)
    return nearest


def _darken_nuclei(tissue: np.ndarray, white: np.ndarray, frame: Hull, stack: Stack) -> None:
    """Thalamus, lentiform nucleus and caudate, fading upwards."""
    core, part = frame.within(stack, (-0.60, 0.50), (-0.56, 0.56))
    width = core.x.shape[2]
    deep = np.zeros(core.x.shape)
    half, overlap = width // 2, width // 10
    for (x0, y0), radii, angle, soft, start, fall, peak in NUCLEI:
        present = np.flatnonzero(stack.t.ravel() < start * fall)
        contrast = peak * np.clip(start - stack.t[present] / fall, 0, 1)
        for side, columns in ((-1, slice(0, half + overlap)), (1, slice(half - overlap, None))):
            x, y = core.x[present][..., columns], core.y[present][..., columns]
            shape = ellipse((x, y), (side * x0, y0), radii, side * angle)
            share = contrast / (1 + np.exp(-shape / soft))
            deep[present, :, columns] = np.maximum(deep[present, :, columns], share)
    tissue[part] -= ((WHITE - DEEP_GREY) * np.minimum(deep, 1) * white[part]).astype(np.float32)


def _draw_lesions(rng: np.random.Generator, expected: float) -> list[tuple[float, float, float]]:
    """Places x, y and t of white-matter lesions, beside the ventricles' horns."""
    return [
        (
            rng.choice([-1, 1]) * (0.22 + rng.normal(0, 0.03)),
            rng.choice([-0.33, 0.30]) + rng.normal(0, 0.03),
            rng.uniform(0.3, 1),
        )
        for _ in range(rng.poisson(expected))
    ]


def _darken_lesions(
    tissue: np.ndarray,
    white: np.ndarray,
    frame: Hull,
    lesions: list[tuple[float, float, float]],
    stack: Stack,
) -> None:
    """Soft dark spots in white matter."""
    for x0, y0, t0 in lesions:
        near, part = frame.within(stack, (y0 - 0.15, y0 + 0.15), (x0 - 0.15, x0 + 0.15))
        height = np.exp(-(((stack.t - t0) / 0.12) ** 2))
        distance = (near.x - x0) ** 2 + (near.y - y0) ** 2
        shade = LESION * np.exp(-distance / (2 * 0.03**2)) * height * white[part]
        tissue[part] -= shade.astype(np.float32)
