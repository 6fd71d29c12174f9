"""Numbers stand where their scale puts them."""

import pytest

from components.report import forests, scores
from components.report.forests import Entry, forest
from components.report.judgement import Interval, judgement
from evaluation.outcome import Decision, Outcome


def test_numbers_are_placed_in_percent_of_the_scale():
    plot = forest([Entry("a", Interval(0.7, 0.55, 0.85), bound=0.6)], 0.5, (0.4, 1.0))
    [rung] = plot.rungs
    assert (rung.low, rung.width, rung.x, rung.bound) == (25.0, 50.0, 50.0, 33.33)
    assert plot.zero == pytest.approx(16.67)
    assert plot.intervals


def test_a_number_below_the_scale_widens_it():
    assert forest([Entry("a", Interval(0.31, 0.22, 0.4))], 0.5, (0.4, 1.0)).start == 0.2


def test_differences_lie_around_zero():
    plot = forest([Entry("a", Interval(0.02, -0.13, 0.17), bound=-0.05)], 0.0, None)
    assert plot.start == -plot.end
    assert plot.zero == 50.0
    assert plot.rungs[0].low >= 0
    assert plot.rungs[0].low + plot.rungs[0].width <= 100


def test_the_floor_stands_in_the_student_s_row(evidence):
    plot = forests.models(scores.levels(evidence), evidence.decision)
    [student, *others] = plot.rungs
    floor = next(check.bound for check in evidence.decision.checks if check.name == forests.FLOOR)
    assert student.bound == pytest.approx(100 * (floor - 0.4) / 0.6, abs=0.01)
    assert all(rung.bound is None for rung in others)
    assert student.entry.of.known


def test_a_run_without_intervals_has_points(evidence):
    plot = forests.models(scores.levels(evidence)[1:], None)
    assert not plot.intervals
    assert plot.rungs[0].x is not None
    assert forests.models((), evidence.decision) is None


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"intervals": None, "differences": [], "subgroups": {"site": None}, "people": 84},
        {"intervals": {"student": {"macro_auc": [0.7, 0.6]}}, "operating_point": None},
        {"operating_point": {"positive": ["a", "b", "c"]}, "slice_intervals": {"cluster": "wide"}},
    ],
)
def test_details_of_another_form_are_left_out(details):
    found = judgement(Decision(Outcome.PASSED, details=details))
    assert found.headline("student") is None
    assert forests.differences(found, {}) is None
    assert forests.resampling(found) is None
    assert forests.operating_point(found) == ""
