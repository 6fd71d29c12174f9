import numpy as np
import pytest
from sklearn import metrics as oracle

from trainer import metric_curves, metrics


@pytest.fixture(scope="module")
def predictions():
    """Probabilities with ties, and labels that they only partly explain."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, size=300, p=[0.14, 0.02, 0.5, 0.34])
    logits = rng.normal(size=(300, 4)) + 1.2 * np.eye(4)[labels]
    return np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2), labels


def test_curves_equal_scikit_learn(predictions):
    table, labels = predictions
    roc = metric_curves.roc_curves(table, labels)
    recall_curve = metric_curves.precision_recall_curves(table, labels)
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
    assert recall_curve.macro.area == pytest.approx(metrics.macro_average_precision(table, labels))
    assert np.trapz(roc.macro.y, roc.macro.x) == pytest.approx(roc.macro.area, abs=1e-9)
    assert (np.diff(roc.macro.x) >= 0).all()
    assert (roc.macro.x[0], roc.macro.y[0]) == (0, 0)
    assert (roc.macro.x[-1], roc.macro.y[-1]) == (1, 1)


def test_an_absent_class_has_no_curve(predictions):
    table, labels = predictions
    table, labels = table[labels != 1], labels[labels != 1]
    for curves in (metric_curves.roc_curves, metric_curves.precision_recall_curves):
        found = curves(table, labels)
        assert [curve is None for curve in found.classes] == [False, True, False, False]
        assert found.macro.area == pytest.approx(
            np.mean([curve.area for curve in found.classes if curve])
        )


def test_one_class_alone_has_no_macro_curve():
    table = np.full((5, 3), 1 / 3)
    assert metric_curves.roc_curves(table, np.zeros(5, int)).macro is None


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 1 rows"):
        metric_curves.roc_curves([[np.nan, 1.0]], [0])


def test_the_macro_curve_may_leave_out_classes_that_are_not_evaluable():
    rng = np.random.default_rng(5)
    labels = np.array([0] * 9 + [1] * 9 + [2] * 2)
    table = rng.dirichlet(np.ones(3), labels.size)
    for curves in (metric_curves.roc_curves, metric_curves.precision_recall_curves):
        every, some = curves(table, labels), curves(table, labels, evaluable=[0, 1])
        assert some.macro.area == pytest.approx(np.mean([of.area for of in every.classes[:2]]))
        assert some.macro.area != pytest.approx(every.macro.area)
        assert some.classes[2] is not None
        assert curves(table, labels, evaluable=[]).macro is None
