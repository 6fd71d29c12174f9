"""What a half-made training must have in common with the one that goes on with it."""

import contextlib
import json

from blob_dataset import CLASSES, fn_args

from trainer import examples
from trainer.checkpointing import fingerprint
from trainer.config import (
    DistilSettings,
    ExecutionSettings,
    FinetuneSettings,
    LiteRTSettings,
    PretrainSettings,
)
from trainer.run_fn import _checkpoints, read_job


def test_it_is_the_same_for_other_replicas_unless_bits_count(blobs):
    def mark(**execution):
        settings = FinetuneSettings(execution=ExecutionSettings(**execution))
        return fingerprint(settings, [], None, None, CLASSES)

    rounding = ({"strategy": "mirrored", "replicas": 2}, {"strategy": "tpu"}, {"xla": True})
    assert {mark(), *(mark(**execution) for execution in rounding)} == {mark()}
    exact = [mark(deterministic=True, **execution) for execution in ({}, *rounding)]
    assert len({*exact, mark(), mark(precision="bfloat16"), mark(accumulate=2)}) == 7


def test_it_changes_with_whatever_changes_the_result(blobs):
    inputs = examples.identity([blobs.train])
    known = {"inputs": inputs, "base_digest": "base", "code_digest": "code", "classes": CLASSES}
    mark = fingerprint(DistilSettings(), **known)
    for harmless in (
        DistilSettings(checkpoint_every_epochs=7),
        DistilSettings(checkpoint_every_seconds=7),
        DistilSettings(litert=LiteRTSettings(calibration_images=9, int8_min_agreement=0.5)),
    ):
        assert fingerprint(harmless, **known) == mark
    others = (
        {"base_digest": "other base"},
        {"base_digest": None},
        {"code_digest": "other code"},
        {"code_digest": None},
        {"inputs": examples.identity([blobs.val])},
        {"classes": CLASSES[::-1]},
    )
    marks = {fingerprint(DistilSettings(), **(known | other)) for other in others}
    marks |= {mark, fingerprint(DistilSettings(epochs=99), **known)}
    assert len(marks) == 8


def test_what_pretraining_only_measures_does_not_begin_it_anew(tmp_path, blobs):
    def state(settings, train, held_out, **config):
        config["checkpoint_root"] = str(tmp_path)
        job = read_job(fn_args(tmp_path, settings, [train], [held_out], **config))
        with contextlib.ExitStack() as scratch:
            return _checkpoints(job, None, scratch)

    mark = state(PretrainSettings(), blobs.train, blobs.val)
    same = state(
        PretrainSettings(probe_every_epochs=3), blobs.train, blobs.train,
        classes=json.dumps(["x", "y", "z"]),
    )  # fmt: skip
    assert same == mark
    assert state(PretrainSettings(), blobs.val, blobs.val) != mark
    # What a classifier's best epoch is chosen by, and what its outputs mean, both count.
    judged = state(FinetuneSettings(), blobs.train, blobs.val)
    assert state(FinetuneSettings(), blobs.train, blobs.train) != judged
    renamed = json.dumps(["x", "y", "z"])
    assert state(FinetuneSettings(), blobs.train, blobs.val, classes=renamed) != judged
