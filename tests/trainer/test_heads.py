import numpy as np
import pytest
import tensorflow as tf

from trainer.config import ProjectionSettings
from trainer.heads import ProjectionHead, SupervisedHead


def projected(features, layers=3, dim=8):
    head = ProjectionHead(ProjectionSettings(layers=layers, dim=dim))
    return head, head(features)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_hiddens_run_from_the_input_to_the_projection(layers):
    features = tf.random.normal([6, 16])
    head, hiddens = projected(features, layers)
    assert hiddens[0] is features
    assert [tuple(hidden.shape) for hidden in hiddens] == [(6, 16)] * layers + [(6, 8)]
    for hidden in hiddens[1:-1]:
        assert float(tf.reduce_min(hidden)) >= 0
    assert float(tf.reduce_min(hiddens[-1])) < 0
    assert [dense.bias for dense in head.dense] == [None] * layers
    assert [norm.beta is None for norm in head.norms] == [False] * (layers - 1) + [True]


def test_training_equals_a_numpy_transcription():
    features = np.random.default_rng(0).normal(size=(10, 12)).astype(np.float32)
    head, _ = projected(features)
    x = features
    for dense, norm in zip(head.dense, head.norms, strict=True):
        x = x @ dense.kernel.numpy()
        x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
        x = x if norm.beta is None else np.maximum(x, 0)
    np.testing.assert_allclose(head(features, training=True)[-1], x, atol=1e-4)


def test_depth_stops_early():
    features = tf.random.normal([4, 16])
    head, hiddens = projected(features)
    for depth in range(4):
        shorter = head(features, depth=depth)
        assert len(shorter) == depth + 1
        np.testing.assert_array_equal(shorter[-1], hiddens[depth])


def test_parameters_of_a_resnet_50_head():
    """8.66 M: 4,198,400 twice and 262,272 (the public model's)."""
    head, _ = projected(tf.zeros([1, 2048]), dim=128)
    count = sum(int(np.prod(v.shape)) for v in head.trainable_variables)
    assert count == 2 * 4_198_400 + 262_272


def test_names_in_a_checkpoint_are_unique_and_whole():
    head, _ = projected(tf.zeros([1, 16]))
    found = head.reference_variables()
    assert len({each.path for each in found}) == len({each.name for each in found}) == 14
    assert {id(each.variable) for each in found} == {id(v) for v in head.variables}
    assert found[-1].name == "head_contrastive/nl_2/batch_normalization/moving_variance"
    assert found[0].path == "_projection_head/linear_layers/0/dense/kernel"


def test_supervised_head_starts_near_chance():
    head = SupervisedHead(4)
    logits = head(tf.random.normal([32, 512]))
    assert head.kernel.shape == (512, 4)
    assert 0.008 < np.std(head.kernel) < 0.012
    np.testing.assert_allclose(tf.nn.softmax(logits), np.full((32, 4), 0.25), atol=0.25)
