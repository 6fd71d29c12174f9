"""What a phantom must show to stand in for the public set: its anatomy, its difficulty, its leak.

Real figures: adjacent slices correlate by .988, other people's by .887; one nearest neighbour is
right 99.9 % of the time on a random split and at chance (AUC .54) on a split by subject.
"""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from ingest.phantom import PRESETS, PhantomSpec, render_subject
from ingest.phantom.latents import draw_latents
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY

NORMAL = ALZHEIMER_CLASSES.index("NonDemented")
LABELS = [ALZHEIMER_CLASSES.index(name) for name in ALZHEIMER_SEVERITY]


def macro_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    return np.mean([roc_auc_score(labels == label, scores[:, label]) for label in LABELS])


def fluid(subject) -> float:
    masks = subject.masks
    return (masks["ventricles"].sum() + masks["sulci"].sum()) / masks["hull"].sum()


@pytest.mark.parametrize("cohort", ["whole_stacks", "standard", "large"])
def test_ventricles_have_the_area_aimed_at(cohort, request):
    for subject in request.getfixturevalue(cohort).subjects:
        hull = subject.masks["hull"].sum((1, 2))
        for mask, aim in (("ventricles", subject.vbr), ("sulci", subject.sulcal)):
            achieved = subject.masks[mask].sum((1, 2)) / hull
            assert achieved.mean() == pytest.approx(aim.mean(), rel=0.02)


def test_mean_ventricles_are_the_latent(large):
    for subject in large.subjects:
        # Between the two stands only the wandering of the profile along the stack.
        assert subject.vbr.mean() == pytest.approx(subject.latents.vbr, rel=0.15)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "null"])
def test_class_means_of_latents_are_monotone(preset):
    means = np.array(
        [
            np.mean([draw_latents(7, n, stage, preset) for n in range(400)], axis=0)
            for stage in range(4)
        ]
    )
    rises = np.diff(means, axis=0)
    assert (rises[:, :2] > 0).all()  # ventricles and sulci widen
    assert (rises[:, 2:] < 0).all()  # hippocampus and cortex shrink


def test_class_means_of_masks_are_monotone(standard):
    for mask in ("ventricles", "sulci"):
        areas = np.array([s.masks[mask].sum() / s.masks["hull"].sum() for s in standard.subjects])
        means = [areas[standard.labels == label].mean() for label in LABELS]
        assert (np.diff(means) > 0).all()
    areas = np.array([s.masks["hippocampus"].sum() for s in standard.subjects])
    means = [areas[standard.labels == label].mean() for label in LABELS]
    assert (np.diff(means) < 0).all()


def test_correlations_at_128_pixels(large):
    vectors = large.vectors
    adjacent = (vectors[:, 1:] * vectors[:, :-1]).sum(2)
    assert 0.97 <= adjacent.mean() <= 0.99
    between = np.einsum("azp,bzp->zab", vectors, vectors, optimize=True)
    others = ~np.eye(len(vectors), dtype=bool)
    assert 0.85 <= between[:, others].mean() <= 0.92


def test_clustering_by_correlation_recovers_every_subject(whole_stacks):
    assert same_clusters(whole_stacks.vectors, 0.965)


def test_clustering_needs_the_threshold(whole_stacks):
    assert not same_clusters(whole_stacks.vectors, 0.90)


def same_clusters(vectors: np.ndarray, threshold: float) -> bool:
    """Whether single linkage of all slices gives exactly the subjects."""
    from scipy.sparse.csgraph import connected_components

    people, slices, _ = vectors.shape
    flat = vectors.reshape(people * slices, -1)
    _, cluster = connected_components(flat @ flat.T >= threshold, directed=False)
    first = cluster.reshape(people, slices)[:, :1]
    pure = (cluster.reshape(people, slices) == first).all()
    return bool(pure and len(np.unique(first)) == people)


def nearest_neighbour(vectors: np.ndarray, labels: np.ndarray, by_subject: bool) -> np.ndarray:
    """Label of each slice's nearest slice outside of its fold: int64[S × Z]."""
    people, slices, _ = vectors.shape
    rng = np.random.default_rng(0)
    fold = (
        rng.permutation(people).repeat(slices) if by_subject else rng.permutation(people * slices)
    )
    fold = fold % 5
    flat = vectors.reshape(people * slices, -1)
    similarity = np.where(fold[:, None] != fold, flat @ flat.T, -np.inf)
    return labels.repeat(slices)[similarity.argmax(1)]


def test_a_random_split_is_identity_lookup(whole_stacks):
    truth = whole_stacks.labels.repeat(whole_stacks.spec.slices)
    found = nearest_neighbour(whole_stacks.vectors, whole_stacks.labels, by_subject=False)
    assert (found == truth).mean() > 0.95


def test_a_random_split_finds_even_labels_that_mean_nothing(whole_stacks):
    labels = np.random.default_rng(1).permutation(whole_stacks.labels)
    found = nearest_neighbour(whole_stacks.vectors, labels, by_subject=False)
    assert (found == labels.repeat(whole_stacks.spec.slices)).mean() > 0.95


def test_a_split_by_subject_leaves_nearest_neighbour_at_chance(whole_stacks):
    truth = whole_stacks.labels.repeat(whole_stacks.spec.slices)
    found = nearest_neighbour(whole_stacks.vectors, whole_stacks.labels, by_subject=True)
    assert 0.45 <= macro_auc(truth, np.eye(4)[found]) <= 0.60


def cross_validated_auc(vectors: np.ndarray, labels: np.ndarray) -> float:
    """PCA and logistic regression on whole subjects at half size, five folds of subjects."""
    model = make_pipeline(
        PCA(20, whiten=True, random_state=0), LogisticRegression(C=0.1, max_iter=500)
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    halves = vectors.reshape(*vectors.shape[:2], 32, 2, 32, 2).mean((3, 5))
    flat = halves.reshape(len(vectors), -1)
    return macro_auc(
        labels, cross_val_predict(model, flat, labels, cv=folds, method="predict_proba")
    )


def test_shuffled_labels_cannot_be_learnt_and_true_ones_can(standard):
    assert cross_validated_auc(standard.vectors, standard.labels) > 0.65
    shuffled = [
        cross_validated_auc(
            standard.vectors, np.random.default_rng(seed).permutation(standard.labels)
        )
        for seed in range(4)
    ]
    assert 0.4 <= np.mean(shuffled) <= 0.6


def test_total_fluid_is_the_baseline_to_beat(standard):
    scores = [fluid(subject) for subject in standard.subjects]
    auc = roc_auc_score(standard.labels != NORMAL, scores)
    print(f"total-CSF baseline on `standard`, CDR 0 vs > 0: AUC {auc:.3f}")
    assert 0.80 <= auc <= 0.97


def latent_table(preset: str, per_class: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    rows = [
        draw_latents(11, first + 4 * rank + stage, stage, preset)
        for stage in range(4)
        for rank in range(per_class)
    ]
    table = np.array(rows)
    table[:, 0] = np.log(table[:, 0])
    return table, np.repeat(LABELS, per_class)


@pytest.mark.parametrize(
    ("preset", "ceiling"),
    [
        ("realistic", 0.844),
        ("moderate", 0.884),
        ("standard", 0.923),
        ("easy", 0.992),
        ("null", 0.5),
    ],
)
def test_the_best_possible_classifier_reaches_the_calibrated_ceiling(preset, ceiling):
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

    train, train_labels = latent_table(preset, 1000, first=0)
    test, test_labels = latent_table(preset, 1000, first=4000)
    model = QuadraticDiscriminantAnalysis().fit(train, train_labels)
    assert macro_auc(test_labels, model.predict_proba(test)) == pytest.approx(ceiling, abs=0.015)


def test_null_classes_do_not_differ_even_in_spread():
    for stage in range(1, 4):
        assert draw_latents(7, 5, stage, "null") == draw_latents(7, 5, 0, "null")


@pytest.mark.slow
def test_the_public_set_in_full_size():
    """200 people × 32 slices at 128 px in the real proportions."""
    spec = PhantomSpec("realistic", (100, 70, 28, 2), slices=32, size=128)
    vectors, fluids, labels = [], [], []
    for index in range(len(spec)):
        subject = render_subject(spec, index)
        reduced = subject.images.reshape(32, 64, 2, 64, 2).mean((2, 4), dtype=np.float32)
        reduced = reduced.reshape(32, -1)
        reduced -= reduced.mean(1, keepdims=True)
        vectors.append(reduced / np.linalg.norm(reduced, axis=1, keepdims=True))
        fluids.append(fluid(subject))
        labels.append(subject.label)
    vectors, labels = np.stack(vectors), np.array(labels)
    truth = labels.repeat(32)
    assert same_clusters(vectors, 0.965)
    assert (nearest_neighbour(vectors, labels, by_subject=False) == truth).mean() > 0.99
    found = nearest_neighbour(vectors, labels, by_subject=True)
    assert 0.45 <= macro_auc(truth, np.eye(4)[found]) <= 0.60
    auc = roc_auc_score(labels != NORMAL, fluids)
    print(f"total-CSF baseline on `realistic`, CDR 0 vs > 0: AUC {auc:.3f} (real: .768)")
    assert 0.70 <= auc <= 0.85


@pytest.mark.slow
def test_null_images_cannot_be_learnt(rendered):
    cohort = rendered(PhantomSpec("null", (45, 45, 45, 45)))
    assert 0.4 <= cross_validated_auc(cohort.vectors, cohort.labels) <= 0.6
