"""The phantom as the public set is: its mix of classes, its 32 slices, its difficulty."""

from pathlib import Path

from ingest.phantom import PhantomSpec, generate
from ingest.phantom.spec import STACK
from studies.slices import Slices, StudyError, read_slices

PUBLIC = (100, 70, 28, 2)  # people of each stage in the public set
SUBJECT_REGEX = r"(subj\d+)"
LEAST = 20


def public_mix(people: int, seed: int, cache: Path) -> Slices:
    """Slices of a phantom with the public set's mix of stages, generated unless they are there.

    With fewer than 32 slices a person, neighbours lie further apart than they do in the public set,
    and a nearest neighbour no longer finds them.

    Args:
        people: how many in all.
        seed: of the cohort.
        cache: folder of all phantoms.

    Raises:
        StudyError: fewer people than the mix needs.
    """
    if people < LEAST:
        raise StudyError(
            f"The mix of the public set needs {LEAST} people or more (received {people}). Ask for "
            "more."
        )
    counts = shares(people)
    spec = PhantomSpec("realistic", counts, slices=STACK, size=64, seed=seed)
    return read_slices(generate(spec, cache) / "images", SUBJECT_REGEX)


def shares(people: int) -> tuple[int, int, int, int]:
    """So many people in the public set's mix, by largest remainder, one or more of each stage."""
    exact = [people * count / sum(PUBLIC) for count in PUBLIC]
    counts = [max(1, int(each)) for each in exact]
    order = sorted(range(len(PUBLIC)), key=lambda k: counts[k] - exact[k])
    for stage in order[: people - sum(counts)]:
        counts[stage] += 1
    return counts[0], counts[1], counts[2], counts[3]
