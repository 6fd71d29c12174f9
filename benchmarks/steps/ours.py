"""Our training steps, as the stages themselves compose them, our input and our linear head.

A stage is called as in a run and stopped where its training would begin; what is timed is that
training's own step. For the step on ready views, augmentation hands back its images.

Three names of the trainer are replaced for that, since the stages have no need of such doors: what
runs a training, what makes views, and what tells whether features are kept. What is timed is not
replaced, and nothing is asserted of what is.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from benchmarks.steps import timing
from benchmarks.steps.timing import CLASSES, MODELS, Case
from schema import features
from trainer import architectures, augmentation, examples, loop
from trainer.architectures import EncoderArchitecture
from trainer.bundle import Bundle, Description
from trainer.config import (
    BackboneSettings,
    ExecutionSettings,
    FinetuneSettings,
    InputSettings,
    PretrainSettings,
    ProjectionSettings,
)
from trainer.draws import Draw
from trainer.examples import Examples
from trainer.loop import Metrics, Training, Workspace
from trainer.preprocessing import scale
from trainer.stages import finetune, pretrain

NAMES = [f"class {number}" for number in range(CLASSES)]
LINEAR_EPOCHS = 4  # the first one traces


class Began(Exception):
    """Carries a stage's training out of it."""

    def __init__(self, training: Training):
        super().__init__()
        self.training = training


def shared_settings(case: Case) -> dict[str, Any]:
    depth, size, batch = MODELS[case.model]
    return {
        "input": InputSettings(image_size=size, channels=3),
        "backbone": BackboneSettings(depth=depth, width=1.0),
        "batch_size": batch,
        "execution": ExecutionSettings(precision=case.precision),
    }


def data(case: Case) -> Examples:
    model = MODELS[case.model]
    return Examples(timing.pictures(model), timing.labels(model), None)


def call_pretrain(case: Case) -> None:
    settings = PretrainSettings(
        **shared_settings(case), augmentation="simclr", probe_every_epochs=None
    )
    pretrain.pretrain(settings, data(case), None, Workspace())


def call_finetune(case: Case) -> None:
    # Crops and flips alone, as the peers and the public code fine-tune.
    settings = FinetuneSettings(
        **shared_settings(case),
        augmentation="simclr",
        color_jitter_strength=0.0,
        use_blur=False,
    )
    finetune_with(settings, data(case), base=None)


def finetune_with(
    settings: FinetuneSettings, shown: Examples, base: Bundle | None
) -> list[Metrics]:
    held_out = shown.select(np.arange(2 * CLASSES))
    trained = finetune.finetune(
        settings, shown, held_out, classes=NAMES, base=base, workspace=Workspace()
    )
    return trained.history


def training_of(stage: Callable[[Case], Any], case: Case) -> Training:
    """The training that a stage would run."""

    def stop(training: Training, *_: Any) -> None:
        raise Began(training)

    with mock.patch.object(loop, "run", stop):
        try:
            stage(case)
        except Began as began:
            return began.training
    raise RuntimeError("The stage trained nothing")


def steps_of(training: Training) -> Callable[[], Any]:
    """Goes through a training's batches, over and over, a step at each call."""

    def forever() -> Iterator[Any]:
        random = np.random.default_rng(0)
        while True:
            for indices in training.batches(random):
                seed = tf.constant(random.integers(2**31, size=2, dtype=np.int32))
                yield training.step(tf.constant(indices), seed)["loss"].numpy()

    source = forever()
    return lambda: next(source)


def training_case(case: Case) -> dict[str, Any]:
    """The step with its input, then on ready views; the peak of memory is that of the former."""
    stage = {"pretrain": call_pretrain, "finetune": call_finetune}[case.what]
    start = time.perf_counter()
    step = steps_of(training_of(stage, case))
    step()
    first = time.perf_counter() - start
    whole = timing.clock(step, quick=case.quick)
    memory = timing.peak_memory()
    with mock.patch.object(augmentation, "of", return_value=lambda images, draw: images):
        step = steps_of(training_of(stage, case))
        update = timing.clock(step, quick=case.quick)
    return {"whole": whole, "update": update, "first": first, "memory": memory}


def views_case(case: Case) -> dict[str, Any]:
    """Both pretraining views of a batch, from bytes in memory."""
    model = MODELS[case.model]
    levels = tf.constant(timing.pictures(model))
    view = augmentation.of(PretrainSettings(augmentation="simclr"))

    @tf.function
    def views(indices, seed):
        images = scale(tf.gather(levels, indices))
        return [view(images, each) for each in Draw(seed).split(2)]

    random = np.random.default_rng(0)

    def one_batch():
        indices = random.permutation(len(levels))[: model.batch].astype(np.int32)
        views(indices, random.integers(2**31, size=2, dtype=np.int32))

    return {"whole": timing.clock(one_batch, quick=case.quick)}


def read_case(case: Case) -> dict[str, Any]:
    """PNG images in a compressed TFRecord file to bytes in memory; seconds per batch of images."""
    model = MODELS[case.model]
    settings = InputSettings(image_size=model.size, channels=3)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "data-00000-of-00001.tfrecord.gz"))
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for image, label in zip(timing.pictures(model), timing.labels(model), strict=True):
                writer.write(_example(image, label).SerializeToString())

        def read():
            examples.read([file], settings, NAMES)

        seconds = timing.clock(read, quick=case.quick)
    return {"whole": [each / timing.BATCHES for each in seconds]}


def _example(image: np.ndarray, label: int) -> tf.train.Example:
    encoded = tf.io.encode_png(image).numpy()
    values = {
        features.IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        features.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)])),
    }
    return tf.train.Example(features=tf.train.Features(feature=values))


def linear_case(case: Case) -> dict[str, Any]:
    """An epoch of a linear head on a frozen backbone: features kept, and computed at each step."""
    shared, shown = shared_settings(case), data(case)
    architecture = EncoderArchitecture(backbone=shared["backbone"], projection=ProjectionSettings())
    encoder = architectures.build("encoder", architecture, shared["input"])
    description = Description(
        kind="encoder", architecture=architecture.model_dump(), input=shared["input"]
    )
    base = Bundle(encoder, description, history=(), digest="")
    settings = FinetuneSettings(
        **shared,
        augmentation="none",
        fine_tune_after_block=finetune.WHOLE_BACKBONE,
        epochs=LINEAR_EPOCHS,
        calibrate=False,
    )

    def epochs() -> list[float]:
        return [epoch["seconds"] for epoch in finetune_with(settings, shown, base)[1:]]

    kept = epochs()
    with mock.patch.object(finetune, "features_are_constant", return_value=False):
        computed = epochs()
    return {"kept": kept, "computed": computed}


def measure(case: Case) -> dict[str, Any]:
    measured = {"views": views_case, "read": read_case, "linear": linear_case}
    return measured.get(case.what, training_case)(case)


if __name__ == "__main__":
    timing.answer(measure)
