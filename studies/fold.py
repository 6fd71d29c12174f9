"""One fold of a cross-validation: all that is learnt, from its training people alone."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from studies import shallow
from studies.slices import Slices
from trainer.config import (
    DistilSettings,
    FinetuneSettings,
    InputSettings,
    OptimizerSettings,
    PretrainSettings,
)

if TYPE_CHECKING:
    from trainer.examples import Examples
    from trainer.loop import Workspace
    from trainer.stages.trained import Trained

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

METHODS = {
    "student": "student",
    "teacher": "teacher",
    "encoder": "SimCLR features + LR",
    "combined": "student with histogram",
    "histogram": "grey-level histogram + LR",
    "regression": "PCA + LR on slices",
    "csf": "total CSF",
    "prior": "constant prior",
}
BASELINES = ("regression", "csf", "prior")
CLASSES = ("against", "positive")

WEAK = 1e-3  # C of regressions on more numbers than there are people
QUARTERS = 4  # of a stack: ventricles, their roof and the top of the brain look different


@dataclass(frozen=True)
class Task:
    """Everybody, whom to tell from whom, and who does what in this fold.

    Attributes:
        slices: of everybody, N.
        person: int64[N], the place of each slice's person among the P, sorted by id.
        truth: int64[P], 1 with the class and 0 without.
        train, val, test: bool[P], nobody in two of them.
    """

    slices: Slices
    person: Integers
    truth: Integers
    train: Mask
    val: Mask
    test: Mask

    @property
    def known(self) -> Mask:
        """Whose labels may be used: bool[P]."""
        return self.train | self.val


@dataclass(frozen=True)
class Stages:
    """The settings of a fold's three trainings."""

    pretrain: PretrainSettings
    teacher: FinetuneSettings
    student: DistilSettings


def stages(size: int, seed: int) -> Stages:
    """The settings of a fold's trainings.

    Short and gentle: on a hundred people a teacher at thrice the rate ranked validation people
    best after its second epoch (AUC .81) and ever worse until its twelfth (.63; fold seed 100).
    """
    common: dict[str, Any] = {"input": InputSettings(image_size=size), "seed": seed}
    gentle = OptimizerSettings(
        name="adamw", learning_rate=1e-4, weight_decay=0.05, warmup_epochs=0.5
    )
    return Stages(
        PretrainSettings(**common, epochs=12, probe_every_epochs=None),
        FinetuneSettings(**common, epochs=5, optimizer=gentle),
        DistilSettings(**common, epochs=10),
    )


def measure(task: Task, settings: Stages, folder: Path) -> dict[str, Floats]:
    """Every method's probability of the class for the people who test.

    Args:
        task: the fold.
        settings: of its trainings.
        folder: where trainings keep their state, to go on after a kill; removed at the end.

    Returns:
        Method → float64 of the people who test, in order of id.
    """
    everybody = {**_without_networks(task), **_with_networks(task, settings, folder)}
    everybody["combined"] = _together(task, everybody["student"], everybody["histogram"])
    shutil.rmtree(folder, ignore_errors=True)
    return {method: everybody[method][task.test] for method in METHODS}


def _without_networks(task: Task) -> dict[str, Floats]:
    """Learnt from all people whose labels are known, since nothing chooses an epoch: float64[P]."""
    slices, known = task.slices, task.known
    grid = slices.grid()
    small, seen = shallow.halved(grid), known[task.person]
    labels = task.truth[task.person]
    of_slices = shallow.regression(small[seen], labels[seen], small, len(CLASSES))[:, 1:]
    tables = {
        "csf": (shallow.means_by_person(slices.csf_fraction()[:, None], task.person), 1.0),
        "histogram": (
            shallow.means_by_person(shallow.tissue_histograms(grid), task.person, QUARTERS),
            WEAK,
        ),
    }
    return {
        "regression": shallow.means_by_person(of_slices, task.person)[:, 0],
        "prior": np.full(len(task.truth), task.truth[known].mean()),
        **{name: _regressed(task, table, C) for name, (table, C) in tables.items()},
    }


def _regressed(task: Task, table: Floats, C: float) -> Floats:
    return shallow.person_regression(table[task.known], task.truth[task.known], table, C)


def _with_networks(task: Task, settings: Stages, folder: Path) -> dict[str, Floats]:
    """The trainer's three stages, and the frozen encoder's features, for everybody: float64[P]."""
    from trainer import representation
    from trainer.stages.distil import distil
    from trainer.stages.finetune import finetune
    from trainer.stages.pretrain import pretrain

    examples = _examples(task, settings.pretrain.input)
    train, val = examples.select(task.train[task.person]), examples.select(task.val[task.person])

    encoder = pretrain(settings.pretrain, train, None, _workspace(folder / "pretrain"))
    embeddings, _ = representation.features_of(encoder.model)(examples.images)
    teacher = finetune(
        settings.teacher,
        train,
        val,
        classes=CLASSES,
        base=encoder.as_bundle(settings.pretrain),
        workspace=_workspace(folder / "teacher"),
    )
    student = distil(
        settings.student,
        train,
        val,
        classes=CLASSES,
        base=teacher.as_bundle(settings.teacher, CLASSES),
        workspace=_workspace(folder / "student"),
    )
    return {
        "encoder": _regressed(task, shallow.means_by_person(embeddings, task.person), WEAK),
        "teacher": _of_people(task, teacher, examples),
        "student": _of_people(task, student, examples),
    }


def _examples(task: Task, settings: InputSettings) -> "Examples":
    import tensorflow as tf

    from trainer import preprocessing
    from trainer.examples import Examples

    blocks = [
        preprocessing.decode(tf.constant(task.slices.encoded[at : at + 256]), settings).numpy()
        for at in range(0, len(task.slices), 256)
    ]
    labels = task.truth[task.person].astype(np.int32)
    return Examples(np.concatenate(blocks), labels, task.slices.subjects.astype(object))


def _of_people(task: Task, trained: "Trained", examples: "Examples") -> Floats:
    """Mean probability of the class over each person's slices: float64[P]."""
    from trainer import validation

    logits = validation.predictor(trained.model)(examples.images).astype(np.float64)
    probabilities = np.exp(validation.log_softmax(logits / trained.temperature))
    return shallow.means_by_person(probabilities[:, 1:], task.person)[:, 0]


def _together(task: Task, first: Floats, second: Floats) -> Floats:
    """Mean of two log-odds, each in units of its spread over validation people: float64[P]."""
    odds = []
    for probability in (first, second):
        clipped = np.clip(probability, 1e-6, 1 - 1e-6)
        each = np.log(clipped / (1 - clipped))
        odds.append((each - each[task.val].mean()) / max(each[task.val].std(), 1e-6))
    return 1 / (1 + np.exp(-np.mean(odds, axis=0)))


def _workspace(folder: Path) -> "Workspace":
    from trainer.loop import Workspace

    return Workspace(checkpoints=folder)
