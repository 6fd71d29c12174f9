"""Subject-wise cross-validation: what each method is worth on people that it never saw.

Every person is tested once in each repeat. Within a fold an encoder, a teacher and a student are
trained anew on the training people alone, the encoder's pretraining included; validation people,
who choose epochs and temperature, are carved out of them. Every finished fold is kept.
"""

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.atomic import write_json
from studies import folds
from studies.slices import Slices, StudyError, read_slices

PLAN, STATE = "plan.json", "state"
VALIDATE = 5  # one training person in so many validates
Integers = NDArray[np.int64]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What decides the numbers; kept beside them, so that no two plans are ever mixed.

    Attributes:
        data: folder of images, or a dataset.
        subject_regex: names the people of a folder; None for a dataset.
        positive: the classes to be told from the others.
        folds: of each repeat.
        size: pixels of a side that the networks see.
    """

    data: str
    subject_regex: str | None
    positive: tuple[str, ...]
    folds: int
    size: int

    def document(self) -> dict[str, Any]:
        """The plan, the settings of its trainings, and the code that makes and measures them."""
        from pipeline.inputs import code_digest
        from studies import fold

        settings = vars(fold.stages(self.size, seed=0))
        return {
            "plan": asdict(self) | {"positive": list(self.positive)},
            "stages": {name: each.model_dump(mode="json") for name, each in settings.items()},
            "code": code_digest(
                "schema", "ingest", "trainer", "studies/fold.py", "studies/folds.py",
                "studies/shallow.py", "studies/slices.py", "studies/crossval.py",
            ),
        }  # fmt: skip


@dataclass(frozen=True)
class People:
    """Who is in the study: sorted ids [P], int64[P] class of each and whether it is positive."""

    ids: NDArray[np.str_]
    classes: Integers
    truth: Integers


def planned(
    data: Path,
    subject_regex: str | None,
    positive: tuple[str, ...] | None,
    count: int,
    size: int,
) -> tuple[Plan, Slices]:
    """Reads the images and settles what is to be told from what.

    Args:
        data: folder of images, or a dataset.
        subject_regex: names the people of a folder.
        positive: classes against the others; None: all but the least severe.
        count: folds.
        size: pixels of a side.

    Raises:
        StudyError: the classes are unknown or leave nothing to tell apart, there is no order of
            severity to default to, or a fold would lack people of a side.
    """
    slices = read_slices(data, subject_regex)
    if positive is None:
        if not slices.ordered:
            raise StudyError(
                f"The classes of {slices.name} have no known order of severity (received "
                f"{', '.join(slices.classes)}). Name those to be found with --positive."
            )
        positive = slices.classes[1:]
    unknown = sorted(set(positive) - set(slices.classes))
    if unknown or not positive or len(set(positive)) >= len(slices.classes):
        raise StudyError(
            f"--positive must name some but not all of {', '.join(slices.classes)} (received "
            f"{', '.join(positive) or 'none'})."
        )
    if size < 32:
        raise StudyError(f"Networks need images of 32 pixels or more (received --size {size}).")
    people = everybody(slices, positive)
    fewest = int(np.bincount(people.truth, minlength=2).min())
    if fewest < 2 * count or count < 2:
        raise StudyError(
            f"{count} folds need 2 or more people of each side in every fold, and 2 or more folds "
            f"(received {fewest} people of the smaller side). Lower --folds, or give more people."
        )
    ordered = tuple(name for name in slices.classes if name in positive)
    return Plan(
        str(Path(data).expanduser().absolute()), subject_regex, ordered, count, size
    ), slices


def everybody(slices: Slices, positive: tuple[str, ...]) -> People:
    """The people of the study, by id."""
    ids, own, _ = slices.people()
    wanted = np.isin(own, [slices.classes.index(name) for name in positive])
    return People(ids, own, wanted.astype(np.int64))


def agree(plan: Plan, out: Path) -> None:
    """Refuses to add to the numbers of another plan, or of other code.

    Raises:
        StudyError: the folder holds them.
    """
    file, wanted = out / PLAN, json.loads(json.dumps(plan.document()))
    if file.is_file():
        there = json.loads(file.read_text())
        if there != wanted:
            differing = sorted(key for key in wanted if there.get(key) != wanted[key])
            raise StudyError(
                f"{out} holds folds of another {' and '.join(differing)}: they are numbers of "
                "something else. Give another --out, or remove the folder."
            )
    write_json(file, wanted)


def result_file(out: Path, seed: int, fold: int) -> Path:
    """Where a finished fold is kept."""
    return out / f"seed-{seed}" / f"fold-{fold}.json"


def missing(plan: Plan, seeds: range, out: Path) -> list[tuple[int, int]]:
    """The folds that are not finished yet, as (seed, fold)."""
    every = ((seed, fold) for seed in seeds for fold in range(plan.folds))
    return [(seed, fold) for seed, fold in every if not result_file(out, seed, fold).is_file()]


def run(plan: Plan, seeds: range, out: Path, jobs: int, progress: Progress) -> None:
    """Makes the folds that are missing.

    Args:
        plan: agreed with what `out` holds.
        seeds: one repeat of the cross-validation each.
        out: folder of the results.
        jobs: folds at once; they share the cores.
        progress: told of each fold that is done.
    """
    left = missing(plan, seeds, out)
    total = len(seeds) * plan.folds
    if len(left) < total:
        progress(f"{total - len(left)} of {total} folds were there")
    done = total - len(left)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if jobs == 1:  # in this process, whose trainings keep their last step when it is stopped
        for seed, fold in left:
            done += 1
            progress(f"{done} of {total} folds: {make_fold(plan, seed, fold, out)}")
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(threads,),
        max_tasks_per_child=1,
    ) as pool:
        pending = [pool.submit(make_fold, plan, seed, fold, out) for seed, fold in left]
        try:
            for each in as_completed(pending):
                done += 1
                progress(f"{done} of {total} folds: {each.result()}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def make_fold(plan: Plan, seed: int, fold: int, out: Path) -> str:
    """Measures one fold, keeps it, and says in a line how it went."""
    import keras

    from studies import fold as one

    started = time.perf_counter()
    keras.backend.clear_session()  # of the fold before
    slices = read_slices(plan.data, plan.subject_regex)
    people = everybody(slices, plan.positive)
    task = dealt(plan, slices, people, seed, fold)
    state = out / STATE / f"seed-{seed}-fold-{fold}"
    scores = one.measure(task, one.stages(plan.size, _training_seed(seed, fold)), state)
    seconds = time.perf_counter() - started
    write_json(
        result_file(out, seed, fold),
        {
            "seed": seed,
            "fold": fold,
            "people": people.ids[task.test].tolist(),
            "truth": task.truth[task.test].tolist(),
            "scores": {method: each.tolist() for method, each in scores.items()},
            "trained": int(task.train.sum()),
            "validated": int(task.val.sum()),
            "seconds": round(seconds, 1),
        },
    )
    return f"seed {seed}, fold {fold + 1} in {seconds:.0f} s"


def dealt(plan: Plan, slices: Slices, people: People, seed: int, fold: int) -> Any:
    """Who trains, validates and tests in a fold (`studies.fold.Task`), each class evenly."""
    from studies.fold import Task

    groups = folds.deal(people.classes, plan.folds, seed)
    test = groups == fold
    rest = np.flatnonzero(~test)
    val = np.zeros_like(test)
    chosen = folds.deal(people.classes[rest], VALIDATE, _training_seed(seed, fold)) == 0
    val[rest[chosen]] = True
    _, _, person = slices.people()
    return Task(slices, person, people.truth, ~test & ~val, val, test)


def collected(plan: Plan, seeds: range, out: Path) -> Iterator[dict[str, Any]]:
    """The finished folds, in order.

    Raises:
        StudyError: one is missing.
    """
    left = missing(plan, seeds, out)
    if left:
        raise StudyError(f"{len(left)} folds of {out} are not finished. Run the command again.")
    for seed in seeds:
        for fold in range(plan.folds):
            yield json.loads(result_file(out, seed, fold).read_text())


def _training_seed(seed: int, fold: int) -> int:
    return 1000 * seed + fold


def _prepare(threads: int) -> None:
    """Gives a fold's process its share of the cores."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
