"""Probes against scikit-learn, on features that tell everything and features that tell nothing."""

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from trainer import probes
from trainer.examples import Examples

CLASSES = 3


def clouds(people: int, slices: int = 4, *, seed: int, apart: float = 1.0, prefix: str = "p"):
    """Features `float64[N, 6]` around one centre per class, as images that hold them."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), slices)
    labels = (person % CLASSES).astype(np.int32)
    centres = np.random.default_rng(99).normal(size=(CLASSES, 6))
    features = apart * centres[labels] + random.normal(size=(len(labels), 6)) + 3
    subjects = np.array([f"{prefix}{number:03d}" for number in person], dtype=object)
    return features, Examples(features[:, None, None, :], labels, subjects)


def read(images):
    """An encoder whose embeddings are the images."""
    return images[:, 0, 0], images[:, 0, 0]


def shuffled(examples: Examples, seed: int) -> Examples:
    """The labels dealt out to other people."""
    _, first, person = np.unique(
        examples.subjects.astype(str), return_index=True, return_inverse=True
    )
    dealt = np.random.default_rng(seed).permutation(examples.labels[first])
    return Examples(examples.images, dealt[person], examples.subjects)


@pytest.mark.parametrize("people", [3, 30, 90])
def test_neighbours_vote_as_scikit_learns_do(people):
    known, examples = clouds(people, seed=1)
    asked, _ = clouds(20, seed=2)
    count = round(np.sqrt(len(known)))
    model = KNeighborsClassifier(
        count, weights=lambda distances: np.exp((1 - distances) / 0.07), metric="cosine"
    ).fit(known, examples.labels)
    votes = probes.nearest_neighbours(known, examples.labels, asked, CLASSES)
    np.testing.assert_allclose(votes, model.predict_proba(asked), atol=1e-10)


def test_two_hundred_neighbours_are_the_most():
    random = np.random.default_rng(3)
    known = random.normal(size=(50_000, 2))
    labels = np.zeros(50_000, int)
    nearest = np.argsort(-known[:, 0] / np.linalg.norm(known, axis=1))
    labels[nearest[200:]] = 1
    votes = probes.nearest_neighbours(known, labels, [[1.0, 0.0]], 2)
    np.testing.assert_allclose(votes, [[1, 0]], atol=1e-12)


def test_linear_probe_equals_scikit_learns_logistic_regression():
    known, examples = clouds(60, seed=1)
    asked, _ = clouds(20, seed=2)
    scaler = StandardScaler().fit(known)
    model = LogisticRegression(C=1 / (probes.DECAY * len(known)), tol=1e-8, max_iter=1000)
    model.fit(scaler.transform(known), examples.labels)
    given = probes.linear(known, examples.labels, asked, CLASSES)
    np.testing.assert_allclose(given, model.predict_proba(scaler.transform(asked)), atol=2e-4)


def test_constant_embeddings_give_the_share_of_each_class():
    labels = np.array([0, 0, 0, 1])
    for probe in (probes.linear, probes.nearest_neighbours):
        given = probe(np.ones((4, 5)), labels, np.ones((2, 5)), 2)
        assert np.isfinite(given).all()
        np.testing.assert_allclose(given.sum(axis=1), 1)
    np.testing.assert_allclose(
        probes.linear(np.ones((4, 5)), labels, np.ones((2, 5)), 2), [[0.75, 0.25]] * 2, atol=1e-3
    )


def test_separable_people_are_ranked_without_error():
    _, known = clouds(60, seed=1, apart=20)
    _, judged = clouds(30, seed=2, apart=20, prefix="q")
    assert probes.prober(read, known, judged, seed=0)() == {
        "probe_knn_auc": 1.0,
        "probe_linear_auc": 1.0,
    }


def test_shuffled_labels_are_ranked_by_chance():
    _, known = clouds(60, seed=1, apart=20)
    _, judged = clouds(60, seed=2, apart=20, prefix="q")
    found = [
        list(probes.prober(read, shuffled(known, n), shuffled(judged, n + 50), seed=0)().values())
        for n in range(20)
    ]
    np.testing.assert_allclose(np.mean(found, axis=0), 0.5, atol=0.06)


def test_a_person_on_both_sides_cannot_be_recognised():
    """Features that say who a person is, and nothing of the label: only memory could rank."""
    random = np.random.default_rng(5)
    person = np.repeat(np.arange(90), 4)
    features = 30 * random.normal(size=(90, 6))[person] + random.normal(size=(360, 6))
    labels = random.integers(0, CLASSES, 90)[person].astype(np.int32)
    subjects = np.array([f"p{number}" for number in person], dtype=object)
    everyone = Examples(features[:, None, None, :], labels, subjects)
    remembered = probes.nearest_neighbours(features, labels, features, CLASSES)
    assert (remembered.argmax(axis=1) == labels).mean() > 0.9
    judged = everyone.select(person < 45)
    measured = probes.prober(read, everyone, judged, seed=0)()
    assert 0.3 < measured["probe_knn_auc"] < 0.7
    assert 0.3 < measured["probe_linear_auc"] < 0.7
    assert probes.prober(read, judged, judged, seed=0) is None


def test_samples_stay_within_their_bounds_and_hold_everyone():
    asked = []

    def counted(images):
        asked.append(len(images))
        return read(images)

    _, known = clouds(300, slices=8, seed=1)
    _, judged = clouds(100, slices=9, seed=2, prefix="q")
    probes.prober(counted, known, judged, seed=0)()
    assert asked == [600, 600]
    asked.clear()
    probes.prober(counted, known.select(np.arange(800)), judged, seed=0)()
    assert asked == [256, 256]


def test_slices_of_nobody_known_are_judged_one_by_one():
    _, known = clouds(60, seed=1, apart=20)
    _, judged = clouds(30, seed=2, apart=20)
    bare = [Examples(each.images, each.labels, None) for each in (known, judged)]
    assert probes.prober(read, *bare, seed=0)()["probe_linear_auc"] == 1.0


@pytest.mark.parametrize("lacking", ["held-out", "their labels", "labels", "classes"])
def test_without_labels_or_people_there_are_no_probes_and_one_line_says_why(caplog, lacking):
    _, known = clouds(30, seed=1)
    _, judged = clouds(30, seed=2, prefix="q")
    bare = Examples(known.images, np.full_like(known.labels, -1), known.subjects)
    pairs = {
        "held-out": (known, None),
        "their labels": (known, bare),
        "labels": (bare, judged),
        "classes": (known.select(known.labels == 1), judged),
    }
    with caplog.at_level(logging.INFO, "trainer"):
        assert probes.prober(read, *pairs[lacking], seed=0) is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("No probes of the features: ")
