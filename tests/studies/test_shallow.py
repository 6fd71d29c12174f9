import numpy as np
import pytest

from studies import shallow

RANDOM = np.random.default_rng(0)


def test_the_nearest_is_the_most_correlated():
    train, test = RANDOM.random((40, 8, 8), np.float32), RANDOM.random((7, 8, 8), np.float32)
    table = np.corrcoef(test.reshape(7, -1), train.reshape(40, -1))[:7, 7:]
    found = shallow.nearest(shallow.unit_vectors(train), shallow.unit_vectors(test), block=3)
    assert (found == table.argmax(axis=1)).all()


def test_a_flat_image_is_like_nothing():
    assert not shallow.unit_vectors(np.full((1, 4, 4), 7, np.float32)).any()


def test_regression_learns_what_is_there_and_gives_absent_classes_nothing():
    labels = np.repeat([0, 2], 60)
    images = RANDOM.normal(size=(120, 30)).astype(np.float32)
    images[:, 0] += 3 * labels
    answers = shallow.regression(images[::2], labels[::2], images[1::2], classes=3)
    assert (answers.argmax(axis=1) == labels[1::2]).mean() > 0.9
    assert not answers[:, 1].any()
    np.testing.assert_allclose(answers.sum(axis=1), 1)


def test_person_regression_ignores_what_does_not_vary():
    labels = np.tile([0, 1], 20)
    table = np.stack([labels + RANDOM.normal(0, 0.1, 40), np.ones(40)], axis=1)
    found = shallow.person_regression(table[:30], labels[:30], table[30:])
    assert ((found > 0.5) == labels[30:]).all()


def test_histograms_are_shares_of_the_brain_whatever_the_gain(few):
    grid = few.grid()[:12]
    found = shallow.tissue_histograms(grid)
    assert found.shape == (12, shallow.BINS)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    darker = shallow.tissue_histograms(grid * 0.5)
    assert np.abs(found - darker).sum(axis=1).max() < 0.3
    assert not shallow.tissue_histograms(np.zeros((1, 64, 64), np.float32)).any()


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_means_by_person_and_part(parts):
    sizes = [6, 12, 18]
    person = np.repeat(np.arange(3), sizes)
    table = RANDOM.normal(size=(36, 2))
    found = shallow.means_by_person(table, person, parts)
    expected = [
        np.concatenate([part.mean(axis=0) for part in np.array_split(table[person == p], parts)])
        for p in range(3)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_person_with_fewer_slices_than_parts_lends_them():
    found = shallow.means_by_person(np.array([[5.0], [1.0], [3.0]]), np.array([0, 1, 1]), 4)
    assert found.tolist() == [[5, 5, 5, 5], [1, 1, 3, 3]]
