"""Numbers as they stand on a page."""

import pytest

from components.report import words


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (float("nan"), "not evaluable"),
        (4.0, "4"),
        (0.74214, "0.742"),
        (1e-6, "1e-06"),
        (-1.4e-31, "0"),
        (12345.678, "1.235e+04"),
        (True, "True"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_values_are_short(value, shown):
    assert words.measure(value) == shown


@pytest.mark.usefixtures("undrawn")
def test_what_is_not_shown_is_said_beside_the_verdict(evidence):
    details = evidence.decision.details | {
        "differences": {"student - total CSF": [0.013, -0.018, 0.043]},
        "notes": ["ModerateDemented is not evaluable: 2 people, 5 needed"],
    }
    decision = dataclasses.replace(evidence.decision, details=details)
    told = Reader(report.render(dataclasses.replace(evidence, decision=decision))).words
    verdict = told.split("Intervals")[0]
    assert "Not shown to be better than total CSF" in verdict
    assert "0.013 [-0.018, 0.043]" in verdict
    assert "ModerateDemented is not evaluable: 2 people, 5 needed." in verdict
    assert "Not shown to be better" not in Reader(report.render(evidence)).words
