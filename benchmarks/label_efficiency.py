"""What pretraining is worth where few people are labelled, on people that no training saw.

    python -m benchmarks.label_efficiency [--jobs 2]
    python -m benchmarks.label_efficiency --data FOLDER --subject-regex '(subj\\d+)' --test 0.35

For each seed, with a split and a training of its own: the encoder learns from all training images
without labels; the teacher is fine-tuned from it on the labels of a fraction of the people; the
same network learns the same labels from scratch; the student learns from the teacher on all
training images, those without a label too. Total CSF, one hand-made number, learns the same labels.
Each is measured by its macro AUC over test people (mean probability of a person's slices; classes
of five test people or more).

The fraction is of each class's people, two at least, of those who train and of those who validate
alike: labels that choose an epoch are labels used (Oliver et al. 2018, section 4.6). With
`--all-validate` every validation person's label chooses, whatever the fraction: report both.

On the phantom every seed is a cohort of its own, so the paired intervals (Student's t over seeds)
speak of new people. In a folder the people are the same ones, divided anew: there they speak of
new splits and trainings only, and are too narrow for new people.

Scratch has a schedule of its own, the best of those tried. Settings were chosen on the people of
seeds 100 to 103, cohorts of their own; the seeds reported start at 0.

Every finished seed and fraction is kept in `--out`; a repeated command does the rest only. Does
bfloat16 keep the metrics? Seed by seed:
    python -m benchmarks.label_efficiency --out bf16 --precision bfloat16 --against f32
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.reporting.paired import compared, draw, summary, table
from ingest.atomic import write_json, write_text
from trainer.config import (
    DistilSettings,
    ExecutionSettings,
    FinetuneSettings,
    InputSettings,
    OptimizerSettings,
    PretrainSettings,
    StageSettings,
)

if TYPE_CHECKING:
    from trainer.bundle import Bundle
    from trainer.examples import Examples
    from trainer.stages.trained import Trained

ARMS = ("teacher", "scratch", "student", "total CSF")
PAIRS = (("teacher", "scratch"), ("student", "teacher"), ("teacher", "total CSF"))
LEAST_PEOPLE = 2  # labelled per class, where there are as many
EVALUABLE = 5  # test people of a class whose AUC counts
ALL = 10**9  # images: as many as need no more epochs than the settings name

# Beyond the defaults of trainer/config.py, and the least steps of each training. At a tenth of the
# labels: a pretrained teacher wants small steps (LARS at 2 undoes the pretraining), a network from
# scratch large ones and more of them (at 0.5 it hardly begins to learn).
TEACHER: dict[str, Any] = {
    "optimizer": OptimizerSettings(
        name="adamw", learning_rate=3e-4, weight_decay=0.01, warmup_epochs=0.5
    )
}
SCRATCH: dict[str, Any] = {
    "epochs": 20,
    "optimizer": OptimizerSettings(learning_rate=2.0, warmup_epochs=0.5),
}
STUDENT: dict[str, Any] = {}
TEACHER_STEPS, SCRATCH_STEPS = 90, 300


@dataclass(frozen=True)
class Plan:
    """What decides the numbers; kept beside them, so that no two plans are ever mixed.

    Attributes:
        data: "phantom", or a folder of images.
        subject_regex: reads a person's id from a file name; of a folder.
        people: of each class of the phantom.
        val: share of the people who validate.
        test: share of the people who test.
        size: pixels of a side.
        all_validate: whether the epoch is chosen on all validation people, not on the fraction.
        precision: of all trainings.
    """

    data: str
    subject_regex: str
    people: int
    val: float
    test: float
    size: int
    all_validate: bool
    precision: str

    def stages(self, seed: int, images: int) -> dict[str, StageSettings]:
        """The settings of one seed's trainings, where so many images are labelled."""
        common: dict[str, Any] = {
            "input": InputSettings(image_size=self.size),
            "execution": ExecutionSettings(precision=self.precision),
            "seed": seed,
        }
        pretrain = PretrainSettings(**common, probe_every_epochs=None)
        teacher = FinetuneSettings(**common, **TEACHER)
        scratch = FinetuneSettings(**common, **SCRATCH, backbone=pretrain.backbone)
        return {
            "pretrain": pretrain,
            "teacher": _long_enough(teacher, images, TEACHER_STEPS),
            "scratch": _long_enough(scratch, images, SCRATCH_STEPS),
            "student": DistilSettings(**common, **STUDENT),
        }

    def document(self) -> dict[str, Any]:
        """The plan, the settings of its trainings, and the code that makes and measures them."""
        from pipeline.inputs import code_digest

        stages = self.stages(0, images=ALL).items()
        settings = {name: stage.model_dump(mode="json") for name, stage in stages}
        return {
            "plan": vars(self),
            "stages": settings,
            "least_steps": [TEACHER_STEPS, SCRATCH_STEPS],
            "least_people": LEAST_PEOPLE,
            "evaluable": EVALUABLE,
            "code": code_digest("schema", "ingest", "trainer", "evaluation/baselines.py"),
        }


def _long_enough(settings: FinetuneSettings, images: int, steps: int) -> FinetuneSettings:
    """More epochs where few images make an epoch so short that the training would be over."""
    epochs = -(-steps * settings.batch_size // images)
    return settings.model_copy(update={"epochs": max(settings.epochs, epochs)})


def measure_seed(plan: Plan, seed: int, fractions: list[float], out: Path) -> None:
    """Trains and measures everything of one seed that is not measured yet."""
    folder = out / f"seed-{seed}"
    left = [fraction for fraction in fractions if not result_file(folder, fraction).is_file()]
    if not left:
        return
    splits, classes = people(plan, seed, out)
    encoder = pretrained(plan, seed, splits, folder)
    for fraction in left:
        start = time.perf_counter()
        result = measure(plan, seed, fraction, splits, classes, encoder)
        result["seconds"] = time.perf_counter() - start
        write_json(result_file(folder, fraction), result)


def result_file(folder: Path, fraction: float) -> Path:
    """Where the numbers of one seed and fraction are kept."""
    return folder / f"labels-{fraction:g}.json"


def people(plan: Plan, seed: int, out: Path) -> tuple[dict[str, "Examples"], tuple[str, ...]]:
    """Imports the seed's people, and reads the three splits and the class names."""
    import ingest
    from ingest.datasets import read_dataset
    from ingest.phantom import PhantomSpec, generate
    from trainer import examples

    source, regex = Path(plan.data), plan.subject_regex
    if plan.data == "phantom":
        spec = PhantomSpec("standard", (plan.people,) * 4, size=64, seed=1000 + seed)
        source, regex = generate(spec, out / "phantoms", workers=1) / "images", r"(subj\d+)"
    path = out / f"seed-{seed}" / "dataset"
    if not (path / "dataset.json").is_file():
        ingest.import_dataset(
            source, path, val=plan.val, test=plan.test, seed=seed, subject_regex=regex
        )
    settings, classes = InputSettings(image_size=plan.size), read_dataset(path).info.classes
    splits = {
        split: examples.read([str(path / "*" / split / "*")], settings, classes)
        for split in ("train", "val", "test")
    }
    return splits, classes


def pretrained(plan: Plan, seed: int, splits: dict[str, "Examples"], folder: Path) -> "Bundle":
    """The seed's encoder: trained once, then read back."""
    from trainer import bundle
    from trainer.stages.pretrain import pretrain

    path, settings = folder / "encoder", plan.stages(seed, ALL)["pretrain"]
    if not path.is_dir():
        trained = pretrain(settings, splits["train"], splits["val"], quiet())
        made = trained.as_bundle(settings)
        bundle.save(path, made.model, made.description, list(made.history))
    return bundle.load(path, kind="encoder")


def measure(
    plan: Plan,
    seed: int,
    fraction: float,
    splits: dict[str, "Examples"],
    classes: tuple[str, ...],
    encoder: "Bundle",
) -> dict[str, Any]:
    """The macro AUC of every arm over test people, and how much each had to learn from."""
    from trainer import validation
    from trainer.stages.distil import distil
    from trainer.stages.finetune import finetune

    train, random = splits["train"], np.random.default_rng([seed, 1])
    known = labelled(train, fraction, random)
    few = train.select(known)
    stages = plan.stages(seed, len(few))
    choosing = 1.0 if plan.all_validate else fraction
    held_out = splits["val"].select(labelled(splits["val"], choosing, random))
    hidden = type(train)(train.images, np.where(known, train.labels, -1), train.subjects)
    auc, epochs = {}, {}

    def trained(name: str, stage: Callable[..., "Trained"], base: "Bundle | None", on: "Examples"):
        result = stage(stages[name], on, held_out, classes=classes, base=base, workspace=quiet())
        auc[name] = subject_auc(probabilities(result, splits["test"]), splits["test"])
        scores = [epoch["val_macro_auc"] for epoch in result.history]
        chosen = validation.choice(stages[name], held_out)["score"] is not None
        epochs[name] = int(np.argmax(scores)) + 1 if chosen else len(scores)
        return result

    teacher = trained("teacher", finetune, encoder, few)
    trained("scratch", finetune, None, few)
    trained("student", distil, teacher.as_bundle(stages["teacher"], classes), hidden)
    auc["total CSF"] = subject_auc(csf_baseline(few, splits["test"], classes), splits["test"])
    return {
        "seed": seed,
        "fraction": fraction,
        "auc": auc,
        "kept_epoch": epochs,
        "people": {
            "train": count(train),
            "labelled": count(few),
            "validating": count(held_out),
            "test": count(splits["test"]),
        },
    }


def labelled(examples: "Examples", fraction: float, random: np.random.Generator) -> np.ndarray:
    """Which images keep their label: bool[N], those of a fraction of each class's people."""
    kept: list[str] = []
    for label in np.unique(examples.labels):
        there = random.permutation(np.unique(examples.subjects[examples.labels == label]))
        kept += list(there[: max(LEAST_PEOPLE, round(fraction * len(there)))])
    return np.isin(examples.subjects, kept)


def count(examples: "Examples") -> int:
    """How many people."""
    return len(np.unique(examples.subjects))


def probabilities(trained: "Trained", examples: "Examples") -> np.ndarray:
    """A classifier's probabilities: float64[N, C]."""
    from trainer import validation

    logits = validation.predictor(trained.model)(examples.images).astype(np.float64)
    return np.exp(validation.log_softmax(logits / trained.temperature))


def subject_auc(probabilities: np.ndarray, examples: "Examples") -> float:
    """Macro AUC over people, each the mean of its slices."""
    from trainer import metrics

    _, means, labels = metrics.aggregate_by_subject(
        probabilities, examples.labels, examples.subjects
    )
    return metrics.macro_auc(means, labels, min_per_class=EVALUABLE)


def csf_baseline(train: "Examples", test: "Examples", classes: tuple[str, ...]) -> np.ndarray:
    """The total-CSF baseline of the pipeline, learnt from the same labels."""
    from evaluation.baselines import total_csf
    from evaluation.predictions import SplitTable
    from schema.descriptors import describe as descriptors

    def table(examples: "Examples") -> SplitTable:
        nothing = np.full(len(examples), "")
        return SplitTable(
            labels=examples.labels.astype(np.int64),
            subjects=examples.subjects.astype(str),
            slice_index=np.full(len(examples), -1),
            sites=nothing,
            sha256=nothing,
            csf_fraction=descriptors(examples.images)["csf_fraction"].astype(np.float64),
        )

    return total_csf(table(train), table(test), len(classes))


def quiet():
    """A workspace that keeps no state and tells nobody."""
    from trainer.loop import Workspace

    return Workspace(progress=lambda stage, epoch, epochs, metrics: None)


def prepare_process(threads: int) -> None:
    """Gives a worker its share of the cores."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def agree(plan: Plan, out: Path) -> None:
    """Refuses to add to the numbers of another plan, or of other code."""
    file, wanted = out / "plan.json", json.loads(json.dumps(plan.document()))
    if file.is_file() and json.loads(file.read_text()) != wanted:
        raise SystemExit(
            f"{file} tells of other settings or code: its numbers are of something else. Give "
            f"another --out, or remove {out}."
        )
    write_json(file, wanted)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phantom", help="`phantom`, or a folder of class folders")
    parser.add_argument("--subject-regex", default="", help="finds a person's id in a file's name")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=100, help="of each class of the phantom")
    parser.add_argument("--val", type=float, default=0.1, help="share of the people")
    parser.add_argument("--test", type=float, default=0.6, help="share of the people")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--all-validate", action="store_true", help="let all choose the epoch")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--against", type=Path, metavar="OUT", help="pair with another --out")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once")
    parser.add_argument("--out", type=Path, default=Path("workspace/label_efficiency"))
    return parser.parse_args()


def main() -> None:
    """Measures what is missing, then prints and draws all of it."""
    given = arguments()
    plan = Plan(**{field.name: getattr(given, field.name) for field in fields(Plan)})
    out = given.out / Path(given.data).name
    agree(plan, out)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    with ProcessPoolExecutor(
        given.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=prepare_process,
        initargs=(threads,),
        max_tasks_per_child=1,
    ) as pool:
        pending = [pool.submit(measure_seed, plan, seed, given.fractions, out) for seed in seeds]
        for done, each in enumerate(as_completed(pending), start=1):
            each.result()
            print(f"{done} of {len(pending)} seeds", flush=True)

    def results(folder: Path, fraction: float) -> list[dict[str, Any]]:
        return [json.loads(result_file(folder / f"seed-{s}", fraction).read_text()) for s in seeds]

    summaries = [summary(results(out, f), ARMS, PAIRS) for f in given.fractions]
    text = "\n\n".join(map(table, summaries))
    for f in given.fractions if given.against else ():
        other = results(given.against / Path(given.data).name, f)
        text += "\n\n" + compared(results(out, f), other, ARMS, str(given.against))
    print(f"\n{text}")
    write_json(out / "summary.json", summaries)
    write_text(out / "table.txt", text + "\n")
    draw(summaries, out / "label_efficiency.svg")
    print(f"\n{out}: summary.json, table.txt, label_efficiency.svg")


if __name__ == "__main__":
    main()
