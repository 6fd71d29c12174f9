"""Settings of the execution made real, or refused, in one process."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.architectures import StudentArchitecture, build
from trainer.config import ExecutionSettings, InputSettings
from trainer.errors import StageError
from trainer.execution import Execution
from trainer.strategies import check_cluster

INPUTS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
INPUT = InputSettings(image_size=16)
STUDENT = StudentArchitecture(filters=(4,), dense=4, classes=2)


def regression(**settings):
    """A linear model of two weights, and its step over the first rows."""
    execution = Execution(ExecutionSettings(**settings))
    with execution.scope():
        model = keras.Sequential([keras.layers.Dense(1, use_bias=False, dtype="float32")])
        model.build((None, 3))
        model.set_weights([np.array([[0.5], [-0.5], [1.0]])])
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)

    def objective(rows):
        loss = tf.reduce_mean((model(rows, training=True) - 1.0) ** 2)
        return loss, {"largest": tf.reduce_mean(rows)}

    step = execution.compile(
        model, optimizer, objective, prepare=lambda indices, _: (tf.gather(INPUTS, indices),)
    )
    return model, step


def test_accumulated_parts_step_once_as_the_whole_batch():
    results = []
    for parts in (1, 3):
        model, step = regression(accumulate=parts)
        told = [step(tf.range(12), tf.constant([number, 0])) for number in range(3)]
        results.append([*model.get_weights(), *[list(map(float, each.values())) for each in told]])
        assert list(told[0]) == ["loss", "largest"]
    for parts, whole in zip(*results, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_a_batch_that_does_not_divide_is_refused():
    _, step = regression(accumulate=5)
    with pytest.raises(StageError, match=r"batch of 12 .* 5 accumulated part.* 10 or 15"):
        step(tf.range(12), tf.constant([0, 0]))


def test_xla_compiles_the_same_step():
    (plain, step), (compiled, fast) = regression(), regression(xla=True)
    for _ in range(2):
        told = step(tf.range(12), tf.constant([0, 0]))
        compiled_loss = fast(tf.range(12), tf.constant([0, 0]))["loss"]
        np.testing.assert_allclose(compiled_loss, told["loss"], rtol=1e-5)
    np.testing.assert_allclose(compiled.get_weights()[0], plain.get_weights()[0], rtol=1e-5)
    assert fast._slopes._jit_compile


def test_half_precision_stays_within_its_scope_and_is_not_released():
    before = keras.config.dtype_policy().name
    execution = Execution(ExecutionSettings(precision="bfloat16"))
    with execution.scope():
        model = build("student", STUDENT, INPUT)
    assert keras.config.dtype_policy().name == before
    assert {weight.dtype for weight in model.weights} == {"float32"}
    computed = {layer.compute_dtype for layer in model._flatten_layers() if layer.weights}
    assert "bfloat16" in computed
    kept = execution.release("student", STUDENT, INPUT, model)
    assert {layer.compute_dtype for layer in kept._flatten_layers()} == {"float32"}
    for weight, trained in zip(kept.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, trained)


def test_the_policy_is_restored_after_an_error():
    before = keras.config.dtype_policy().name
    scope = Execution(ExecutionSettings(precision="bfloat16")).scope()
    with pytest.raises(RuntimeError), scope:
        raise RuntimeError
    assert keras.config.dtype_policy().name == before


def test_alone_a_process_is_chief_and_hears_itself():
    execution = Execution(ExecutionSettings())
    assert execution.is_chief
    assert [execution.any_worker(flag) for flag in (True, False)] == [True, False]
    execution.agree("anything", 3)
    execution.wait_for_all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "mirrored"}, r"no GPU .* execution\.replicas"),
        ({"strategy": "mirrored", "replicas": 64}, "process of its own"),
        ({"strategy": "multi_worker"}, "TF_CONFIG, which is not set"),
        ({"strategy": "tpu"}, "found no TPU"),
    ],
)
def test_what_is_not_there_is_refused(settings, message, monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    tf.constant(0.0)  # TensorFlow has started
    with pytest.raises(StageError, match=message):
        Execution(ExecutionSettings(**settings))


CHIEF = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


@pytest.mark.parametrize(
    ("cluster", "task"),
    [
        ({"worker": ["a:1", "b:1"]}, {"type": "worker", "index": 1}),
        (CHIEF, {"type": "chief", "index": 0}),
        (CHIEF, {"type": "worker", "index": "1"}),
    ],
)
def test_clusters_of_kubeflow_and_vertex_are_accepted(cluster, task):
    check_cluster(json.dumps({"cluster": cluster, "task": task, "environment": "cloud"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not set"),
        ("{cluster", r"is malformed .*received: '\{cluster'"),
        ("[]", "is malformed"),
        (json.dumps({"cluster": CHIEF}), "malformed .*task"),
        (json.dumps({"cluster": CHIEF, "task": {"type": "worker", "index": 2}}), "worker 2"),
        (json.dumps({"cluster": CHIEF, "task": {"type": "ps", "index": 0}}), "ps 0"),
    ],
)
def test_clusters_that_cannot_meet_are_refused(text, message):
    with pytest.raises(StageError, match=message):
        check_cluster(text)
