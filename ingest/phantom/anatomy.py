"""The shape of a brain: hull, ventricles, sulci and hippocampus, as exact masks.

Ventricles and sulci have their areas by construction: the k highest pixels of a smooth potential
are taken, k being the target fraction of the hull. So the truth is known, whatever the shape.
"""

from typing import NamedTuple

import numpy as np

from ingest.phantom.fields import draw_field
from ingest.phantom.geometry import PIXEL, Hull, Part, Stack, ellipse, highest, partial_volume
from ingest.phantom.latents import Latents
from ingest.phantom.spec import STACK
from ingest.phantom.sulci import carve_sulci

HALF_HEIGHT, HALF_WIDTH = 0.90, 0.86  # the hull stays within, with its largest displacements
ROUNDNESS = 2.25  # exponent of the superellipse
EDGE_SLOPE = 0.14  # of the ellipses' potential, per pixel of a 128-pixel slice

# Ventricles / brain over the 32 slices, relative to the subject's mean (public set, smoothed).
# fmt: off
VENTRICLE_PROFILE = np.array([
    .039, .045, .051, .057, .062, .065, .069, .071, .072, .072, .072, .073, .074, .075, .077, .079,
    .082, .085, .088, .092, .096, .100, .102, .102, .101, .098, .093, .087, .079, .071, .061, .051,
])
# fmt: on
VENTRICLE_PROFILE /= VENTRICLE_PROFILE.mean()


class Anatomy(NamedTuple):
    """A subject's shape in the stack; arrays lie in the window of `hull`.

    Attributes:
        hull: the brain with everything in it.
        ventricles, sulci: the fluid that carries the stage of disease.
        hippocampus: grey matter in the lowest slices.
        horns: float32[Z, h, w], share of the hippocampus and the fluid around it.
        vbr, sulcal: float64[Z], areas of ventricles and sulci aimed at, as fractions of the hull's.
    """

    hull: Hull
    ventricles: Part
    sulci: Part
    hippocampus: Part
    horns: np.ndarray
    vbr: np.ndarray
    sulcal: np.ndarray


def build_anatomy(latents: Latents, rng: np.random.Generator, stack: Stack) -> Anatomy:
    """Builds one subject's masks.

    Args:
        latents: the four numbers that carry the stage of disease.
        rng: everything else: outline, asymmetry, folding.
        stack: where to sample.
    """
    frame = build_hull(rng, stack)
    jitter = 1 + 0.12 * _wandering(rng)
    profile = np.clip(latents.vbr * VENTRICLE_PROFILE * jitter, 0.006, 0.30)
    vbr = np.interp(stack.positions, np.arange(STACK), profile)
    ventricles = carve_ventricles(frame, vbr, rng, stack)
    sulcal = latents.sulci * (1 + 0.10 * (0.5 - stack.t.ravel()))
    sulci = carve_sulci(frame, ventricles.mask, sulcal, rng, stack)
    hippocampus, horns = place_hippocampus(frame, latents.hippocampus, stack)
    hippocampus.mask[...] &= ~(ventricles.mask | sulci.mask)
    return Anatomy(frame, ventricles, sulci, hippocampus, horns, vbr, sulcal)


def build_hull(rng: np.random.Generator, stack: Stack) -> Hull:
    """A superellipse, narrower in front and towards the top, gently displaced.

    Depth is measured along the ray to the centre, which for so round a shape is the distance to the
    surface to within 2 %. Half a pixel is added so that it counts from the first pixel outside.
    """
    t = stack.t
    tilt = rng.normal(0, 0.008)
    window = stack.window((-HALF_HEIGHT, HALF_HEIGHT), (-HALF_WIDTH, HALF_WIDTH))
    places = stack.positions, PIXEL * window.y, PIXEL * window.x
    x = window.x + 0.012 * draw_field(rng, 6, 14).on(*places)
    y = window.y[:, None] + 0.012 * draw_field(rng, 6, 14).on(*places)
    width = 0.755 + 0.005 * rng.standard_normal() - 0.030 * t**2
    height = 0.805 + 0.005 * rng.standard_normal() - 0.035 * t**2
    across = np.abs(x - tilt * y) / (width * (1 - 0.10 * np.maximum(-y, 0)))
    gauge = (across**ROUNDNESS + (np.abs(y) / height) ** ROUNDNESS) ** (1 / ROUNDNESS)
    mask = gauge < 1
    depth = PIXEL * np.sqrt(x**2 + y**2) * (1 / np.maximum(gauge, 1e-6) - 1) + 0.5
    return Hull(window, x, y, mask, depth, mask.sum((1, 2)))


def carve_ventricles(
    frame: Hull, fraction: np.ndarray, rng: np.random.Generator, stack: Stack
) -> Part:
    """Lateral ventricles (frontal horn, body, atrium on either side) and the third ventricle.

    Args:
        frame: the hull.
        fraction: float64[Z], ventricles / hull area to be met in each slice.
        rng: asymmetry and the outline's irregularity.
        stack: where to sample.

    Returns:
        The structure in the frame's window.
    """
    asymmetry = 1 + 0.12 * rng.standard_normal()
    outline = draw_field(rng, 5, 6)
    core, cut = frame.within(stack, (-0.70, 0.66), (-0.56, 0.56))
    x, y, t = core.x, core.y, stack.t
    potential = ellipse((x, y), (0.0, 0.08), (0.028, 0.16), 0.0) - 0.15 - 1.6 * t  # the third
    half, overlap = x.shape[2] // 2, x.shape[2] // 8
    for side, girth, near in (
        (-1, 1 / asymmetry, np.s_[:, :, : half + overlap]),
        (1, asymmetry, np.s_[:, :, half - overlap :]),
    ):
        lateral = _lateral_ventricle(x[near], y[near], t, side, girth)
        np.maximum(potential[near], lateral, out=potential[near])
    potential -= 0.5 * (np.abs(x) < 0.010 * np.clip(3 * t, 0, 1))  # the septum between the two
    potential += 0.10 * outline.on(stack.positions, PIXEL * core.window.y, PIXEL * core.window.x)
    potential -= 5.0 * (core.depth < 14)

    wanted = np.rint(fraction * frame.area).astype(int)
    levels = [highest(values, count) for values, count in zip(potential, wanted, strict=True)]
    height = potential - np.array(levels)[:, None, None]
    found = Part(np.zeros(frame.mask.shape, bool), np.zeros(frame.mask.shape, np.float32))
    found.mask[cut] = height >= 0
    found.share[cut] = partial_volume(height, EDGE_SLOPE, stack)
    return found


def _lateral_ventricle(
    x: np.ndarray, y: np.ndarray, t: np.ndarray, side: int, girth: float
) -> np.ndarray:
    """Potential of one side's frontal horn, body and atrium."""
    low = 1 / (1 + np.exp((t - 0.42) / 0.06))  # bodies and atria lie above the basal slices
    horn = ellipse(
        (x, y),
        centre=(side * (0.17 - 0.09 * t), -0.30 + 0.06 * t),
        radii=(0.10 * girth, 0.19),
        angle=side * (0.50 - 0.30 * t),
    )
    body = ellipse(
        (x, y),
        centre=(side * (0.075 + 0.03 * t), 0.02 * t),
        radii=(0.085 * girth, 0.22 + 0.06 * t),
        angle=-side * 0.10,
    )
    atrium = ellipse(
        (x, y),
        centre=(side * (0.11 - 0.02 * t), 0.20 - 0.02 * t),
        radii=(0.085 * girth, 0.19),
        angle=side * (0.40 - 0.25 * t),
    )
    body += 0.15 * t - 1.3 * low
    atrium -= 0.45 * low
    return np.maximum(np.maximum(horn, body, out=horn), atrium, out=horn)


def place_hippocampus(frame: Hull, factor: float, stack: Stack) -> tuple[Part, np.ndarray]:
    """Hippocampus and the temporal horn around it, in the lowest 30 % of the stack only.

    Args:
        frame: the hull.
        factor: the hippocampus' area relative to normal.
        stack: where to sample.

    Returns:
        The hippocampus, and the share float32[Z, h, w] of horn and hippocampus together, in the
        frame's window.
    """
    hippocampus = Part(np.zeros(frame.mask.shape, bool), np.zeros(frame.mask.shape, np.float32))
    horns = np.zeros(frame.mask.shape, np.float32)
    present = np.flatnonzero(stack.t.ravel() < 0.28)
    x, y = frame.x[present], frame.y[present]
    reach = 1 - stack.t[present] / 0.30
    scale = np.sqrt(factor)
    for side in (-1, 1):
        radii = 0.075 * scale, 0.135 * scale
        body = ellipse((x, y), (side * 0.33, 0.16), radii, side * 0.35) - (1 - reach)
        horn = ellipse((x, y), (side * 0.335, 0.15), (0.10, 0.16), side * 0.35)
        hippocampus.mask[present] |= body > 0
        hippocampus.share[present] += partial_volume(body, EDGE_SLOPE, stack)
        horns[present] += partial_volume(horn - (1 - 0.98 * reach), EDGE_SLOPE, stack)
    hippocampus.mask[...] &= frame.mask
    return hippocampus, horns


def _wandering(rng: np.random.Generator) -> np.ndarray:
    """White noise over the 32 slices smoothed by four slices, mirrored at the ends: float64[32]."""
    noise = np.pad(rng.standard_normal(STACK), 16, "symmetric")
    kernel = np.exp(-0.5 * (np.arange(-16, 17) / 4.0) ** 2)
    return np.convolve(noise, kernel / kernel.sum(), "valid")
