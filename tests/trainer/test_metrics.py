import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.preprocessing import label_binarize

from trainer import metrics


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


def test_curves_equal_scikit_learn(predictions):
    table, labels = predictions
    roc, recall_curve = (
        metrics.roc_curves(table, labels),
        metrics.precision_recall_curves(table, labels),
    )
    for label in range(4):
        positive = labels == label
        x, y, _ = oracle.roc_curve(positive, table[:, label], drop_intermediate=False)
        np.testing.assert_allclose(roc.classes[label].x, x)
        np.testing.assert_allclose(roc.classes[label].y, y)
        assert recall_curve.classes[label].area == pytest.approx(
            oracle.average_precision_score(positive, table[:, label])
        )
        precision, recall, _ = oracle.precision_recall_curve(positive, table[:, label])
        np.testing.assert_allclose(recall_curve.classes[label].x, recall[::-1])
        np.testing.assert_allclose(recall_curve.classes[label].y, precision[::-1])

    assert roc.micro.area == pytest.approx(metrics.micro_auc(table, labels))
    assert roc.macro.area == pytest.approx(metrics.macro_auc(table, labels))
    assert np.trapz(roc.macro.y, roc.macro.x) == pytest.approx(roc.macro.area, abs=1e-9)
    assert (np.diff(roc.macro.x) >= 0).all()
    assert (roc.macro.x[0], roc.macro.y[0]) == (0, 0)
    assert (roc.macro.x[-1], roc.macro.y[-1]) == (1, 1)


def test_brier_score_of_two_classes_is_twice_scikit_learns():
    rng = np.random.default_rng(1)
    chance = rng.random(50)
    labels = rng.integers(0, 2, 50)
    table = np.stack([1 - chance, chance], axis=1)
    assert metrics.brier(table, labels) == pytest.approx(
        2 * oracle.brier_score_loss(labels, chance)
    )


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
    assert metrics.roc_curves(table, labels).classes[1] is None
    assert metrics.precision_recall_curves(table, labels).classes[1] is None
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


def test_one_class_alone_gives_no_auc():
    table = np.full((5, 3), 1 / 3)
    assert np.isnan(metrics.one_vs_rest_auc(table, np.zeros(5, int))).all()
    assert np.isnan(metrics.macro_auc(table, np.zeros(5, int)))
    assert np.isnan(metrics.quadratic_kappa(table, np.zeros(5, int), (0, 1, 2)))
    assert metrics.roc_curves(table, np.zeros(5, int)).macro is None


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
    assert "quadratic_kappa" not in metrics.summary(*predictions)
