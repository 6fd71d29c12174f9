import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from sklearn.preprocessing import label_binarize

from trainer import metrics
from trainer.operating_points import OperatingPoint, rates_at


@pytest.fixture(scope="module")
def predictions():
    """Probabilities with ties, a rare class, and labels that they only partly explain."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, size=300, p=[0.14, 0.02, 0.5, 0.34])
    logits = rng.normal(size=(300, 4)) + 1.2 * np.eye(4)[labels]
    table = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2)
    return table, labels


def test_scores_equal_scikit_learn(predictions):
    table, labels = predictions
    predicted, hot = table.argmax(axis=1), label_binarize(labels, classes=range(4))
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(labels, predicted)

    assert metrics.accuracy(table, labels) == pytest.approx(
        oracle.accuracy_score(labels, predicted)
    )
    assert metrics.balanced_accuracy(table, labels) == pytest.approx(
        oracle.balanced_accuracy_score(labels, predicted)
    )
    assert metrics.macro_f1(table, labels) == pytest.approx(f1.mean())
    assert metrics.micro_auc(table, labels) == pytest.approx(
        oracle.roc_auc_score(hot, table, average="micro")
    )
    np.testing.assert_allclose(
        metrics.one_vs_rest_auc(table, labels), oracle.roc_auc_score(hot, table, average=None)
    )
    np.testing.assert_allclose(
        metrics.average_precision(table, labels),
        oracle.average_precision_score(hot, table, average=None),
    )
    assert metrics.macro_average_precision(table, labels) == pytest.approx(
        oracle.average_precision_score(hot, table, average="macro")
    )
    np.testing.assert_array_equal(
        metrics.confusion_matrix(table, labels), oracle.confusion_matrix(labels, predicted)
    )
    for ours, theirs in zip(
        metrics.precision_recall_f1(table, labels), (precision, recall, f1), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)


def test_ordinal_metrics_follow_the_order_of_severity(predictions):
    table, labels = predictions
    order = (2, 3, 0, 1)
    stage = np.argsort(order)
    true, predicted = stage[labels], stage[table.argmax(axis=1)]

    assert metrics.quadratic_kappa(table, labels, order) == pytest.approx(
        oracle.cohen_kappa_score(true, predicted, weights="quadratic")
    )
    assert metrics.mean_stage_error(table, labels, order) == np.abs(true - predicted).mean()
    assert metrics.mean_stage_error(table, labels, (0, 1, 2, 3)) != pytest.approx(
        metrics.mean_stage_error(table, labels, order)
    )


def test_brier_score_of_two_classes_is_twice_scikit_learns():
    rng = np.random.default_rng(1)
    chance = rng.random(50)
    labels = rng.integers(0, 2, 50)
    table = np.stack([1 - chance, chance], axis=1)
    assert metrics.brier(table, labels) == pytest.approx(
        2 * oracle.brier_score_loss(labels, chance)
    )


def test_log_loss_equals_scikit_learn_and_one_mistake_is_finite(predictions):
    table, labels = predictions
    table = np.clip(table, 0.01, None)
    table /= table.sum(axis=1, keepdims=True)
    assert metrics.log_loss(table, labels) == pytest.approx(oracle.log_loss(labels, table))
    assert metrics.log_loss([[1.0, 0.0]], [1]) == pytest.approx(7 * np.log(10))
    assert metrics.log_loss([[1.0, 0.0]], [0]) == 0
    assert metrics.log_loss(np.full((6, 4), 0.25), np.arange(6) % 4) == pytest.approx(np.log(4))


def test_calibration_error_by_hand():
    table = [[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.4, 0.6]]
    labels = [0, 1, 1, 1]
    # Bins (0.9, 1]: confidence .95, accuracy .5; (0.6, 0.7]: .65, 1; (0.5, 0.6]: .6, 1.
    expected = (2 * 0.45 + 0.35 + 0.4) / 4
    assert metrics.expected_calibration_error(table, labels) == pytest.approx(expected)
    found = metrics.reliability(table, labels)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 2]
    assert np.isnan(found.accuracy[0])


def test_an_absent_class_is_not_evaluable_and_not_guessed(predictions):
    table, labels = predictions
    table, labels = table[labels != 1], labels[labels != 1]
    areas = metrics.one_vs_rest_auc(table, labels)

    assert np.isnan(areas).tolist() == [False, True, False, False]
    assert metrics.macro_auc(table, labels) == pytest.approx(np.nanmean(areas))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.summary(table, labels, severity=(2, 3, 0, 1))
    assert np.isnan(found["recall"][1])
    assert found["balanced_accuracy"] == pytest.approx(
        oracle.recall_score(labels, table.argmax(1), labels=[0, 2, 3], average="macro")
    )


def test_macro_auc_leaves_out_classes_of_too_few(predictions):
    table, labels = predictions
    rare = int((labels == 1).sum())
    areas = metrics.one_vs_rest_auc(table, labels)
    assert metrics.macro_auc(table, labels, min_per_class=rare) == pytest.approx(areas.mean())
    assert metrics.macro_auc(table, labels, min_per_class=rare + 1) == pytest.approx(
        areas[[0, 2, 3]].mean()
    )
    assert np.isnan(metrics.macro_auc(table, labels, min_per_class=1000))


def test_every_macro_average_is_over_the_same_classes(predictions):
    """And over people where they are known: 40 slices of two people are two examples."""
    table, labels = predictions
    rare = int((labels == 1).sum())
    kept = [0, 2, 3]
    found = metrics.summary(table, labels, min_per_class=rare + 1)
    assert found["evaluable"] == [True, False, True, True]
    for macro, each in (
        ("macro_auc", "auc"),
        ("macro_average_precision", "average_precision"),
        ("macro_f1", "f1"),
        ("balanced_accuracy", "recall"),
    ):
        assert found[macro] == pytest.approx(np.array(found[each])[kept].mean()), macro
    assert np.isfinite(found["auc"][1]), "a class of few people keeps its own number"
    for measure in (metrics.macro_f1, metrics.balanced_accuracy, metrics.macro_average_precision):
        assert np.isnan(measure(table, labels, min_per_class=1000))

    subjects = [f"{label}-{row % (2 if label == 0 else 9)}" for row, label in enumerate(labels)]
    found = metrics.summary(table, labels, min_per_class=3, subjects=subjects)
    assert found["support"][0] > 30
    assert found["evaluable"] == [False, True, True, True]


def test_a_mean_over_classes_leaves_out_those_without_rest():
    """One class alone in the split: enough examples, and still nothing to rank it against."""
    table = np.array([[0.7, 0.3], [0.6, 0.4]])
    found = metrics.summary(table, np.array([0, 0]))
    assert np.isnan(found["macro_auc"])
    assert found["balanced_accuracy"] == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 60))
def test_order_is_all_that_ranking_knows(seed, classes, size):
    rng = np.random.default_rng(seed)
    table = np.round(rng.dirichlet(np.ones(classes), size), 1)  # many ties
    labels = rng.integers(0, classes, size)
    rows, names = rng.permutation(size), rng.permutation(classes)
    renamed = np.argsort(names)
    for measure in (metrics.one_vs_rest_auc, metrics.average_precision):
        found = measure(table, labels)
        np.testing.assert_allclose(measure(table**3, labels), found)  # increasing on [0, 1]
        np.testing.assert_allclose(measure(table[rows], labels[rows]), found)
        np.testing.assert_allclose(measure(table[:, names], renamed[labels]), found[names])
        assert (np.isnan(found) | ((found >= 0) & (found <= 1))).all()
    reversed_scores = metrics.one_vs_rest_auc(1 - table, labels)
    np.testing.assert_allclose(reversed_scores, 1 - metrics.one_vs_rest_auc(table, labels))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_names_of_classes_change_no_summary(seed):
    """But for the order in which lists are given; no ties, for argmax takes the first of equals."""
    rng = np.random.default_rng(seed)
    table, labels = rng.dirichlet(np.ones(4), 40), rng.integers(0, 4, 40)
    order, names = [2, 3, 0, 1], rng.permutation(4)
    renamed = np.argsort(names)
    found = metrics.summary(table, labels, order)
    again = metrics.summary(table[:, names], renamed[labels], list(renamed[order]))
    for name, value in found.items():
        if not isinstance(value, list):
            assert again[name] == pytest.approx(value, nan_ok=True), name
        elif name != "confusion_matrix":
            np.testing.assert_allclose(again[name], np.array(value)[names])


def test_tied_scores_are_one_threshold():
    """A positive and a negative of equal score: neither is above the other."""
    table = np.array([[0.2, 0.8], [0.2, 0.8], [0.9, 0.1]])
    for labels in ([1, 0, 0], [0, 1, 0]):
        assert metrics.one_vs_rest_auc(table, labels).tolist() == [0.75, 0.75]
        assert metrics.average_precision(table, labels)[1] == 0.5


def test_average_precision_by_hand():
    table = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    # Found at ranks 1 and 3: precisions 1 and 2/3.
    assert metrics.average_precision(table, [1, 0, 1, 0])[1] == pytest.approx((1 + 2 / 3) / 2)


def test_one_class_alone_gives_no_auc():
    table = np.full((5, 3), 1 / 3)
    assert np.isnan(metrics.one_vs_rest_auc(table, np.zeros(5, int))).all()
    assert np.isnan(metrics.macro_auc(table, np.zeros(5, int)))
    assert np.isnan(metrics.quadratic_kappa(table, np.zeros(5, int), (0, 1, 2)))
    assert np.isnan(metrics.macro_average_precision(table, np.zeros(5, int)))


def test_constant_scores_are_worth_one_half(predictions):
    _, labels = predictions
    prior = np.tile(np.bincount(labels) / len(labels), (len(labels), 1))
    assert metrics.one_vs_rest_auc(prior, labels).tolist() == [0.5] * 4
    assert metrics.micro_auc(prior, labels) > 0.7  # why micro AUC is no gate
    assert metrics.collapsed(prior)


def test_two_predicted_classes_are_not_a_collapse():
    assert not metrics.collapsed([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6]])
    assert metrics.collapsed([[0.6, 0.4], [0.9, 0.1]])


def test_slices_are_averaged_by_subject(predictions):
    table, labels = predictions
    subjects = np.array([f"{label}-{i % 7}" for i, label in enumerate(labels)])
    ids, means, own = metrics.aggregate_by_subject(table, labels, subjects)

    assert ids.tolist() == sorted(set(subjects))
    for subject, mean, label in zip(ids, means, own, strict=True):
        np.testing.assert_allclose(mean, table[subjects == subject].mean(axis=0))
        assert label == int(subject[0])


def test_a_subject_of_two_labels_is_refused():
    table = np.full((4, 2), 0.5)
    with pytest.raises(ValueError, match=r"subject 'b' has \[0, 1\]"):
        metrics.aggregate_by_subject(table, [0, 0, 1, 0], ["a", "b", "b", "c"])
    with pytest.raises(ValueError, match="3 ids, 4 labels"):
        metrics.aggregate_by_subject(table, [0, 0, 1, 0], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("table", "labels", "message"),
    [
        ([[np.nan, 1.0]], [0], "NaN or infinity in 1 of 1 rows"),
        ([[2.0, -1.0]], [0], r"must lie in \[0, 1\]. Received: -1 to 2"),
        ([0.5, 0.5], [0, 1], r"Received shape: \(2,\)"),
        (np.zeros((0, 4)), [], r"Received shape: \(0, 4\)"),
        ([[0.5, 0.5]], [0, 1], r"one for each of 1 examples"),
        ([[0.5, 0.5]], [0.0], "Received: float64"),
        ([[0.5, 0.5]], [2], r"must lie in \[0, 2\). Received: 2 to 2"),
        ([[0.5, 0.5]], [-1], "Leave unlabelled"),
    ],
)
def test_bad_input_is_refused_with_the_reason(table, labels, message):
    for metric in (metrics.accuracy, metrics.one_vs_rest_auc, metrics.brier, metrics.summary):
        with pytest.raises(ValueError, match=message):
            metric(np.asarray(table), np.asarray(labels))


def test_an_order_that_is_no_permutation_is_refused(predictions):
    with pytest.raises(
        ValueError, match=r"order all 4 labels, each once. Received: \[0, 1, 1, 2\]"
    ):
        metrics.quadratic_kappa(*predictions, (0, 1, 1, 2))


def test_summary_is_plain_and_whole(predictions):
    found = metrics.summary(*predictions, severity=(2, 3, 0, 1))
    assert all(isinstance(value, int | float | bool | list) for value in found.values())
    assert found["support"] == np.bincount(predictions[1]).tolist()
    assert found["macro_auc"] == pytest.approx(np.mean(found["auc"]))
    assert np.sum(found["confusion_matrix"]) == found["examples"] == 300
    without = metrics.summary(*predictions)
    assert not {"quadratic_kappa", "sensitivity", "threshold"} & set(without)
    point = OperatingPoint((0, 1, 3), 0.4)
    found = metrics.summary(*predictions, operating_point=point)
    assert (found["sensitivity"], found["specificity"]) == rates_at(*predictions, point)
    assert found["threshold"] == 0.4
