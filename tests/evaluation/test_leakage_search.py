"""The search against plain NumPy, at any size of block, and in little memory."""

import tracemalloc

import numpy as np
import pytest

from evaluation import leakage_search as search


@pytest.fixture
def pictures():
    """Two sets of 8×8 pictures, some of the second close to some of the first, one blank each."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (60, 8, 8), np.uint8)
    near = np.clip(a[:25].astype(int) + rng.integers(-40, 41, (25, 8, 8)), 0, 255)
    b = np.concatenate([near.astype(np.uint8), rng.integers(0, 256, (20, 8, 8), np.uint8)])
    a[7], b[30] = 9, 200
    return a, b


def matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of every pair, 0 where it is not defined."""
    both = np.concatenate([a, b]).reshape(len(a) + len(b), -1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.corrcoef(both)[: len(a), len(a) :])


@pytest.mark.parametrize("block", [1, 7, 32, 1000])
def test_pairs_are_those_of_the_whole_matrix(monkeypatch, pictures, block):
    monkeypatch.setattr(search, "BLOCK", block)
    expected = matrix(*pictures)
    found = search.look_alikes(*pictures, 0.9, keep=1000)
    i, j = np.nonzero(expected >= 0.9)
    assert found.number == len(i) > 10
    assert set(zip(found.i, found.j, strict=True)) == set(zip(i, j, strict=True))
    np.testing.assert_allclose(found.correlation, expected[found.i, found.j], atol=1e-5)
    np.testing.assert_array_equal(found.flagged, (expected >= 0.9).any(0))
    assert found.highest == pytest.approx(expected.max(), abs=1e-5)
    assert (np.diff(found.correlation) <= 1e-5).all()


@pytest.mark.parametrize("block", [7, 1000])
def test_all_are_counted_and_the_most_alike_kept(monkeypatch, pictures, block):
    monkeypatch.setattr(search, "BLOCK", block)
    expected = matrix(*pictures)
    found = search.look_alikes(*pictures, 0.5, keep=5)
    assert found.number == (expected >= 0.5).sum() > 5
    np.testing.assert_allclose(found.correlation, np.sort(expected.ravel())[:-6:-1], atol=1e-5)


def test_equal_images_reach_a_threshold_of_one(pictures):
    a, _ = pictures
    found = search.look_alikes(a, a, 1.0, keep=100)
    np.testing.assert_array_equal(found.i, found.j)
    assert found.number == len(a) - 1  # all but the blank one
    assert found.highest == 1.0


def test_blank_images_correlate_with_nothing():
    blank = np.full((3, 8, 8), 17, np.uint8)
    vectors = search.unit_vectors(blank)
    assert vectors.dtype == np.float32
    assert not vectors.any()
    found = search.look_alikes(blank, blank, 0.01, keep=10)
    assert (found.number, found.highest) == (0, 0.0)


def test_the_matrix_is_never_held(monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 64)
    images = np.random.default_rng(0).integers(0, 256, (1500, 4, 4), np.uint8)
    tracemalloc.start()
    found = search.look_alikes(images, images, 0.2, keep=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.number > 100_000
    assert peak < 1500 * 1500 * 4 / 10


def test_progress_reaches_all_pairs(monkeypatch, pictures):
    monkeypatch.setattr(search, "BLOCK", 16)
    seen = []
    search.look_alikes(*pictures, 0.9, 10, lambda *done: seen.append(done))
    assert seen[-1] == (60 * 45, 60 * 45)
    assert seen == sorted(seen)


def test_halved_is_the_rounded_mean():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    means = images.reshape(5, 4, 2, 4, 2).mean((2, 4))
    np.testing.assert_array_equal(search.halved(images), np.floor(means + 0.5))
    repeated = np.repeat(np.repeat(images, 2, 1), 2, 2)
    np.testing.assert_array_equal(search.halved(repeated), images)


def test_equal_entries_are_those_of_two_loops():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (rng.integers(0, 12, size).astype(str) for size in (15, 9))
        pairs = [(x, y) for x in range(15) for y in range(9) if a[x] == b[y]]
        number, i, j = search.equal_entries(a, b)
        assert number == len(pairs)
        assert a[i].tolist() == b[j].tolist() == sorted(set(a) & set(b))
        assert all((x, y) in pairs for x, y in zip(i, j, strict=True))


def test_copies_and_contradictions():
    digests = np.array(["a", "b", "a", "c", "b", "d", "d", "a"])
    labels = np.array([0, 1, 2, 1, 1, -1, 3, 0])
    assert search.copies(digests) == 4
    assert search.contradictions(digests, labels).tolist() == [0]
    assert search.contradictions(digests[:0], labels[:0]).tolist() == []


def test_own_look_alikes_are_a_share_of_images():
    """Two people: one of three equal pictures, one of two unlike; a third has a single picture."""
    rng = np.random.default_rng(0)
    one, *other = rng.integers(0, 256, (4, 8, 8), np.uint8)
    images = np.stack([one, one, one, *other])
    names = np.array(["p", "p", "p", "q", "q", "r"])
    assert search.own_look_alikes(images, names, 0.95, 10) == pytest.approx(3 / 5)
    assert search.own_look_alikes(images, np.array([""] * 6), 0.95, 10) is None
    assert search.own_look_alikes(images[5:], names[5:], 0.95, 10) is None
