"""Measures against analytic values and plain loops; the watch on encoders that we break."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import hyp0f1

from trainer import representation
from trainer.errors import RepresentationCollapsed, TrainingDiverged
from trainer.examples import Examples
from trainer.representation import alignment, effective_rank, spread, uniformity


def sphere(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    return representation.unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)))


@pytest.mark.parametrize("dimension", [2, 16, 128])
def test_uniform_features_have_the_uniformity_and_spread_of_the_sphere(dimension):
    features = sphere(2000, dimension)
    assert uniformity(features) == pytest.approx(-4 + np.log(hyp0f1(dimension / 2, 4)), abs=0.02)
    assert spread(features) == pytest.approx(1, abs=0.01)


def test_uniformity_equals_a_loop_over_pairs_at_any_length():
    features = np.random.default_rng(1).normal(size=(7, 3)) * 5
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    potentials = [np.exp(-3 * np.sum((unit[i] - unit[j]) ** 2)) for i in range(7) for j in range(i)]
    assert uniformity(features, t=3) == pytest.approx(np.log(np.mean(potentials)))


def test_opposite_poles_are_as_uniform_as_a_pair_can_be():
    assert uniformity([[0, 2.0], [0, -1.0]]) == pytest.approx(-8)


def test_alignment_is_zero_for_one_view_two_for_strangers_four_for_opposites():
    features = sphere(500, 256)
    assert alignment(features, 3 * features) == pytest.approx(0, abs=1e-12)
    assert alignment(features, sphere(500, 256, seed=1)) == pytest.approx(2, abs=0.02)
    assert alignment(features, -features) == pytest.approx(4)


def test_alignment_of_turned_features_is_that_of_the_angle():
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    features = sphere(50, 2)
    assert alignment(features, features @ turn) == pytest.approx(2 - 2 * np.cos(angle))


def test_effective_rank_counts_equal_directions():
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 40)))[0]
    for rank in (1, 5, 40):
        assert effective_rank(basis[:, :rank] @ basis[:rank]) == pytest.approx(rank)
    assert effective_rank(np.ones((30, 8))) == pytest.approx(1)


def test_what_is_the_same_for_all_images_measures_as_nothing():
    for same in (np.zeros((9, 4)), np.full((9, 4), 3.0)):
        assert spread(same) == pytest.approx(0, abs=1e-12)
        assert uniformity(same) == pytest.approx(0, abs=1e-12)
    assert effective_rank(np.zeros((9, 4))) == 0


def watched(features, count: int = 200):
    """What the watch tells of an encoder given by its features."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    examples = Examples(images, np.full(count, -1, np.int32), None)

    def both(levels):
        flat = levels.reshape(len(levels), -1) / 255 - 0.5
        return features(flat), features(flat)

    def view(shown, draw):
        return tf.clip_by_value(shown + draw.uniform(tf.shape(shown), -0.1, 0.1), 0, 1)

    return representation.watcher(both, examples, view, seed=0)()


def test_an_encoder_that_tells_images_apart_raises_no_warning():
    measured = watched(lambda flat: flat)
    assert set(measured) == {"embedding_std", "effective_rank", "alignment", "uniformity"}
    assert measured["embedding_std"] > 0.9
    assert 0.01 < measured["alignment"] < 0.3
    assert measured["uniformity"] < -3
    assert measured["effective_rank"] > 40


@pytest.mark.parametrize("size", [0.0, 1e-7, 1e-3])
def test_an_encoder_that_answers_alike_is_warned_of(caplog, size):
    with caplog.at_level(logging.WARNING, "trainer"):
        measured = watched(lambda flat: 1 + size * flat)
    assert measured["embedding_std"] < representation.SUSPECT
    assert measured["effective_rank"] < 1.1
    assert "Lower optimizer.learning_rate" in measured["warning"]
    assert caplog.messages == [measured["warning"]]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_features_that_are_not_numbers_end_the_training(broken):
    """The last update can break the weights after the last loss was well."""
    with pytest.raises(TrainingDiverged, match="Lower optimizer.learning_rate"):
        watched(lambda flat: np.where(np.arange(len(flat))[:, None] == 3, broken, flat))


def test_only_an_encoder_that_ends_collapsed_is_refused():
    def history(*values):
        return [{"epoch": n + 1, "embedding_std": value} for n, value in enumerate(values)]

    representation.refuse_collapsed(history(0.0001, 0.0, 0.1))
    representation.refuse_collapsed(history(0.2, 0.01))
    with pytest.raises(RepresentationCollapsed, match=r"2e-05 after epoch 3, .* in 2 of 3 epochs"):
        representation.refuse_collapsed(history(0.0001, 0.2, 0.00002))
    with pytest.raises(RepresentationCollapsed, match="nan after epoch 2"):
        representation.refuse_collapsed(history(0.2, float("nan")))
