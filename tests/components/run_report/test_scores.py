"""Every number of the page is what `trainer.metrics` says of the same predictions."""

import dataclasses

import numpy as np
import pytest

from components.report import curves, forests, scores
from trainer import metric_curves, metrics


@pytest.fixture(scope="module")
def levels(evidence):
    return scores.levels(evidence)


def test_people_come_first(levels):
    assert [(level.level, level.size) for level in levels] == [("subject", 84), ("slice", 672)]


@pytest.mark.parametrize("model", ["student", "teacher"])
def test_rows_equal_the_metrics_of_the_same_predictions(evidence, levels, model):
    predictions, order = evidence.predictions, evidence.dataset.order
    table = getattr(predictions, model)
    _, means, labels = metrics.aggregate_by_subject(table, predictions.labels, predictions.subjects)
    expected = (
        metrics.summary(means, labels, order),
        metrics.summary(table, predictions.labels, order),
    )
    for level, summary in zip(levels, expected, strict=True):
        row = next(row for row in level.rows if row.kind == model)
        assert row.values == tuple(summary[column.key] for column in level.columns)
        assert "quadratic_kappa" in [column.key for column in level.columns]


def test_baselines_stand_beside_with_their_own_numbers(evidence, levels):
    rows = {row.name: row for row in levels[0].rows if row.kind == "baseline"}
    assert list(rows) == ["Constant prior", "Total CSF"]
    assert [row.kind for row in levels[0].rows[:2]] == ["student", "teacher"]
    assert rows["Constant prior"].values[0] == 0.5
    measured = evidence.baselines["total CSF"]["subject"]
    assert rows["Total CSF"].values[0] == measured["macro_auc"]


def test_classes_and_confusion_follow_severity(evidence, levels):
    level, dataset = levels[0], evidence.dataset
    assert [row.name for row in level.classes] == list(dataset.severity)
    assert [row.name for row in level.confusion.rows] == list(dataset.severity)
    matrix = metrics.confusion_matrix(level.probabilities["student"], level.labels)
    areas = metrics.one_vs_rest_auc(level.probabilities["student"], level.labels)
    for rank, label in enumerate(dataset.order):
        cells = level.confusion.rows[rank].cells
        assert [cell.count for cell in cells] == [matrix[label, other] for other in dataset.order]
        assert sum(cell.share for cell in cells) == pytest.approx(1)
        assert [cell.diagonal for cell in cells] == [rank == other for other in range(4)]
        assert level.classes[rank].auc == areas[label]


def test_a_class_without_people_is_not_evaluable(make_evidence):
    level = scores.levels(make_evidence(subjects=(9, 0, 9, 9), slices=2))[0]
    absent = next(row for row in level.classes if row.name == "ModerateDemented")
    assert (absent.support, absent.auc, absent.recall, absent.teacher_auc) == (0, None, None, None)
    assert all(cell.share is None for cell in level.confusion.rows[3].cells)
    assert level.rows[0].values[0] is not None


def test_one_class_alone_has_no_headline(make_evidence):
    level = scores.levels(make_evidence(subjects=(0, 0, 9, 0), slices=2))[0]
    assert level.rows[0].values[0] is None
    plot = forests.models((level,), None)
    assert (plot.rungs[0].x, plot.rungs[0].entry.void) == (None, "not evaluable")


def test_slice_level_data_has_one_level(make_evidence):
    found = scores.levels(make_evidence(level="slice", subjects=(4, 4, 4, 4), slices=2))
    assert [level.level for level in found] == ["slice"]


def test_broken_models_measure_nothing(evidence):
    predictions = evidence.predictions
    nan = np.full_like(predictions.student, np.nan)
    student = dataclasses.replace(
        evidence, predictions=dataclasses.replace(predictions, student=nan)
    )
    with pytest.raises(ValueError, match="must be finite"):
        scores.levels(student)
    teacher = dataclasses.replace(
        evidence, predictions=dataclasses.replace(predictions, teacher=nan)
    )
    level = scores.levels(teacher)[0]
    assert next(row for row in level.rows if row.kind == "teacher").values[0] is None
    assert not curves.curves(teacher, (level,)).teacher


def test_captions_carry_the_areas_of_the_metrics(evidence, levels):
    found = curves.curves(evidence, levels)
    student = metric_curves.roc_curves(levels[0].probabilities["student"], levels[0].labels)
    first = evidence.dataset.order[0]
    assert f"student\u00a0{student.classes[first].area:.3f}" in found.roc[0].note
    assert f"student\u00a0{student.macro.area:.3f}" in found.roc[-2].note
    assert f"student\u00a0{student.micro.area:.3f}" in found.roc[-1].note
    average = metric_curves.precision_recall_curves(
        levels[0].probabilities["student"], levels[0].labels
    )
    assert f"student\u00a0{average.classes[first].area:.3f}" in found.pr[0].note
    error = metrics.expected_calibration_error(levels[0].probabilities["student"], levels[0].labels)
    assert f"student\u00a0{error:.3f}" in curves.calibration(evidence, levels)[0].note


def test_drawn_precision_steps_have_the_average_precision_as_area(levels):
    table, labels = levels[1].probabilities["student"], levels[1].labels
    for curve in metric_curves.precision_recall_curves(table, labels).classes:
        steps = curves._steps(curve)
        assert (np.diff(steps.x) * steps.y[1:]).sum() == pytest.approx(curve.area)


def test_a_class_of_too_few_people_has_no_number_and_no_curve(make_evidence):
    evidence = make_evidence(subjects=(21, 2, 21, 21), slices=2)
    levels = scores.levels(evidence)
    for level in levels:
        assert [row.auc is None for row in level.classes] == [False, False, False, True]
        expected = metrics.one_vs_rest_auc(level.probabilities["student"], level.labels)
        student = next(row for row in level.rows if row.kind == "student")
        assert student.values[0] == pytest.approx(np.delete(expected, 1).mean())
    drawn = curves.curves(evidence, levels)
    assert (drawn.roc[3].svg, drawn.roc[3].void) == (None, "2 people of this class")
    headline = next(row for row in levels[0].rows if row.kind == "student").values
    by_key = dict(zip((column.key for column in levels[0].columns), headline, strict=True))
    assert f"student\u00a0{by_key['macro_auc']:.3f}" in drawn.roc[-2].note
    assert f"student\u00a0{by_key['macro_average_precision']:.3f}" in drawn.pr[-2].note


def test_undoing_the_temperature_gives_the_softmax_of_the_logits():
    logits = np.random.default_rng(0).normal(0, 3, (50, 4))

    def softmax(values):
        powers = np.exp(values)
        return powers / powers.sum(axis=1, keepdims=True)

    np.testing.assert_allclose(curves.uncalibrated(softmax(logits / 1.7), 1.7), softmax(logits))


def test_reliability_before_the_temperature_is_drawn_beside(evidence, levels):
    before = curves.uncalibrated(evidence.predictions.student, 1.37)
    error = metrics.expected_calibration_error(before, evidence.predictions.labels)
    by_slice = curves.calibration(evidence, levels)[2]
    assert f"uncalibrated\u00a0{error:.3f}" in by_slice.note
    bare = dataclasses.replace(evidence, calibrations={})
    assert "uncalibrated" not in curves.calibration(bare, levels)[2].note
