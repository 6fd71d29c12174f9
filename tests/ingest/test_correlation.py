"""Clustering and its agreement with reference implementations."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ingest import correlation
from ingest.correlation import adjusted_rand, cluster, neighbours, to_vector
from ingest.sources import SourceError


def stacks(people: int, slices: int, seed: int = 0) -> np.ndarray:
    """Unit vectors that drift a little from slice to slice around one centre per person."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, 1, 256))
    vectors = centres + 0.06 * rng.standard_normal((people, slices, 256))
    vectors = vectors.reshape(-1, 256).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vector_is_normalised():
    pixels = np.random.default_rng(0).integers(0, 255, (128, 100), np.uint8)
    vector = to_vector(pixels)
    assert vector.shape == (64 * 64,)
    assert float(vector.mean()) == pytest.approx(0, abs=1e-6)
    assert float(vector @ to_vector(pixels)) == pytest.approx(1, abs=1e-5)
    assert not to_vector(np.full((64, 64), 9, np.uint8)).any()


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_blocks_find_the_pairs_of_the_whole_matrix(monkeypatch, block):
    monkeypatch.setattr(correlation, "BLOCK", block)
    vectors = stacks(10, 6)
    i, j = np.nonzero(np.triu(vectors @ vectors.T >= 0.95, 1))
    found = [np.concatenate(part) for part in zip(*neighbours(vectors, 0.95), strict=True)]
    assert set(zip(found[0], found[1], strict=True)) == set(zip(i, j, strict=True))


def test_groups_are_the_people_in_order_of_appearance():
    order = np.random.default_rng(1).permutation(60)
    result = cluster(stacks(10, 6)[order])
    truth = order // 6
    assert adjusted_rand_score(truth, result.labels) == 1.0
    first = [int(np.flatnonzero(result.labels == label)[0]) for label in range(10)]
    assert first == sorted(first)
    assert result.plateau[0] <= result.threshold <= result.plateau[1]


def test_thinning_to_a_spanning_forest_changes_nothing(monkeypatch):
    vectors = stacks(10, 20)
    expected = cluster(vectors)
    monkeypatch.setattr(correlation, "MAX_EDGES", 50)
    monkeypatch.setattr(correlation, "BLOCK", 32)
    thinned = cluster(vectors)
    np.testing.assert_array_equal(thinned.labels, expected.labels)
    assert thinned.counts == expected.counts


@pytest.mark.parametrize(
    "vectors",
    [np.eye(40, 64, dtype=np.float32), np.ones((40, 64), np.float32) / 8],
    ids=["all different", "all equal"],
)
def test_what_tells_no_people_apart_is_refused(vectors):
    with pytest.raises(SourceError, match="cannot be told apart"):
        cluster(vectors)


def test_adjusted_rand_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 4, (2, 30))
        assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))
    assert adjusted_rand(["x", "x", "y"], [3, 3, 1]) == 1.0
