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


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0%"), (1.0, "100%"), (0.005, "0.5%"), (0.99999, "100.0%")]
)
def test_only_none_and_all_go_without_a_decimal(value, shown):
    assert words.share(value) == shown
