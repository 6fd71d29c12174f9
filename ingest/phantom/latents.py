"""The four numbers through which a stage of disease shapes a brain; all else is nuisance.

Class means are measured on the public four-class set (ventricles, sulci) and taken from the
literature (hippocampus: Shi et al. 2009, Hippocampus 19:1055; cortex: Dickerson et al. 2009).
"""

from typing import NamedTuple

import numpy as np

from ingest.phantom.spec import Preset

LATENT_STREAM, ANATOMY_STREAM, ACQUISITION_STREAM, NOISE_STREAM = 1, 2, 3, 4

# Means and standard deviations in order of severity: normal, very mild, mild, moderate.
LOG_VBR = np.log([0.056, 0.079, 0.097, 0.110]), np.array([0.44, 0.36, 0.25, 0.22])
SULCI = np.array([0.150, 0.175, 0.192, 0.205]), np.array([0.032, 0.029, 0.024, 0.022])
HIPPOCAMPUS = np.array([1.00, 0.89, 0.79, 0.70]), np.array([0.11, 0.11, 0.11, 0.11])
THICKNESS = np.array([2.45, 2.36, 2.24, 2.10]), np.array([0.11, 0.11, 0.12, 0.12])

COMMON_VARIANCE = 0.55  # of each latent: atrophy is one process seen in four places

SPREAD: dict[Preset, float] = {
    "realistic": 1.0,
    "moderate": 0.8,
    "standard": 0.65,
    "easy": 0.35,
    "null": 1.0,
}


class Latents(NamedTuple):
    """What is true of a subject by construction.

    Attributes:
        vbr: ventricles / brain area, mean over the 32 slices, in [0.015, 0.24].
        sulci: sulcal fluid / brain area, in [0.07, 0.30].
        hippocampus: area relative to the normal mean, in [0.45, 1.35].
        thickness: cortical thickness in mm, in [1.7, 2.9].
    """

    vbr: float
    sulci: float
    hippocampus: float
    thickness: float


def generator(seed: int, stream: int, *key: int) -> np.random.Generator:
    """A random stream of its own per subject (and site, and slice), whatever else is drawn.

    Args:
        seed: the cohort's.
        stream: what is drawn: latents, anatomy, acquisition or noise.
        *key: the subject's number, then the site, then the slice, as far as they matter.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, *key])))


def draw_latents(seed: int, subject: int, stage: int, preset: Preset) -> Latents:
    """Draws a subject's latents.

    Under `null` every stage has the normal means and, just as needed, the normal standard
    deviations: with equal means alone the deviations would still tell the stages apart.

    Args:
        seed: the cohort's.
        subject: the subject's number.
        stage: 0 (normal) to 3 (moderate), the order of severity.
        preset: sets how widely subjects of one stage differ.
    """
    noise = generator(seed, LATENT_STREAM, subject).standard_normal(5)
    share = np.sqrt(COMMON_VARIANCE) * noise[0] + np.sqrt(1 - COMMON_VARIANCE) * noise[1:]
    row = 0 if preset == "null" else stage
    spread = SPREAD[preset]

    def latent(table: tuple[np.ndarray, np.ndarray], deviate: float) -> float:
        mean, deviation = table
        return float(mean[row] + spread * deviation[row] * deviate)

    return Latents(
        vbr=float(np.clip(np.exp(latent(LOG_VBR, share[0])), 0.015, 0.24)),
        sulci=float(np.clip(latent(SULCI, share[1]), 0.07, 0.30)),
        hippocampus=float(np.clip(latent(HIPPOCAMPUS, -share[2]), 0.45, 1.35)),
        thickness=float(np.clip(latent(THICKNESS, -share[3]), 1.7, 2.9)),
    )
