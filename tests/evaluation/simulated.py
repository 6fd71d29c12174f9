"""Studies on people drawn from the phantom's latents, without images.

The classifier knows the latents' distributions, and is wrong about a person as a whole and about
each slice: so slices of one person agree, as they do in life.
"""

import functools

import numpy as np

from evaluation.predictions import SplitTable
from ingest.phantom import latents as phantom

CLASSES = ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented")
TABLES = (phantom.LOG_VBR, phantom.SULCI, phantom.HIPPOCAMPUS, phantom.THICKNESS)
SIGNS = np.array([1, 1, -1, -1])  # hippocampus and cortex shrink
PERSON, SLICE = 1.0, 2.0  # standard deviations of the classifier's errors, in log-odds


def draw_latents(rng: np.random.Generator, stages: np.ndarray, preset: str) -> np.ndarray:
    """Log VBR, sulci, hippocampus, thickness of many people: float64[S, 4]."""
    noise = rng.standard_normal((len(stages), 5))
    share = phantom.COMMON_VARIANCE
    deviates = np.sqrt(share) * noise[:, :1] + np.sqrt(1 - share) * noise[:, 1:]
    rows = np.zeros_like(stages) if preset == "null" else stages
    means, deviations = (np.stack([table[part] for table in TABLES], axis=1) for part in (0, 1))
    return means[rows] + phantom.SPREAD[preset] * deviations[rows] * deviates * SIGNS


def answers(
    rng: np.random.Generator,
    latents: np.ndarray,
    preset: str,
    slices: int,
    person: float = PERSON,
    each: float = SLICE,
) -> np.ndarray:
    """Probabilities float64[S, slices, 4] of a classifier with errors by person and by slice."""
    means, deviations = (np.stack([table[part] for table in TABLES], axis=1) for part in (0, 1))
    share = phantom.COMMON_VARIANCE
    correlation = (share + (1 - share) * np.eye(4)) * np.outer(SIGNS, SIGNS)
    away = (latents[:, None] - means) / (deviations * phantom.SPREAD[preset])
    distance = np.einsum("nci,ij,ncj->nc", away, np.linalg.inv(correlation), away)
    logits = -distance / 2 - np.log(deviations).sum(axis=1)
    logits = logits + person * rng.standard_normal(logits.shape)
    logits = logits[:, None] + each * rng.standard_normal((len(latents), slices, 4))
    raised = np.exp(logits - logits.max(axis=2, keepdims=True))
    return raised / raised.sum(axis=2, keepdims=True)


def study(
    seed, people=(21, 21, 21, 21), preset: str = "standard", slices: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Stages int64[S] and probabilities float64[S, slices, 4] of one study."""
    rng = np.random.default_rng(seed)
    stages = np.repeat(np.arange(4), people)
    return stages, answers(rng, draw_latents(rng, stages, preset), preset, slices)


@functools.cache
def population(preset: str = "standard", slices: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A study of 40,000 people, from which the truth is read."""
    return study(99, (10_000,) * 4, preset, slices)


def table(
    seed,
    people=(21, 21, 21, 21),
    preset: str = "standard",
    *,
    slices: int = 8,
    prefix: str = "t",
    skill: float = 1.0,
) -> SplitTable:
    """A split whose student and teacher answer as above; `skill` 0 makes the student ignorant."""
    rng = np.random.default_rng(seed)
    stages = np.repeat(np.arange(4), people)
    latents = draw_latents(rng, stages, preset)
    student = answers(rng, latents, preset, slices) ** skill
    student = (student / student.sum(axis=2, keepdims=True)).reshape(-1, 4)
    if skill == 0:
        student = rng.dirichlet(np.ones(4), len(student))
    count = len(stages)
    # Half a stage's information is lost between truth and one hand-made number.
    csf = np.exp(latents[:, 0]) + latents[:, 1] + 0.03 * rng.standard_normal(count)
    return SplitTable(
        labels=stages.repeat(slices),
        subjects=np.array([f"{prefix}{person:04d}" for person in range(count)]).repeat(slices),
        slice_index=np.tile(np.arange(slices), count),
        sites=np.full(count * slices, ""),
        sha256=np.array([f"{prefix}{row:063x}" for row in range(count * slices)]),
        csf_fraction=csf.repeat(slices) + 0.01 * rng.standard_normal(count * slices),
        probabilities={"student": student, "teacher": student},
    )
