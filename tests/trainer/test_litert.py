import numpy as np
import pytest

from trainer import litert
from trainer.config import LiteRTSettings
from trainer.errors import ConversionError
from trainer.litert import FLOAT, INT8

EXACT = {"images": 10, "agreement": 1.0, "max_difference": 0.0, "mean_difference": 0.0}


def test_compare_measures_classes_and_distances():
    wanted = np.array([[0.9, 0.1], [0.4, 0.6]])
    received = np.array([[0.8, 0.2], [0.6, 0.4]])
    measured = litert.compare(wanted, received)
    assert measured["agreement"] == 0.5
    assert measured["max_difference"] == pytest.approx(0.2)
    assert measured["mean_difference"] == pytest.approx(0.15)


def test_a_lead_that_rounding_can_undo_is_a_tie():
    wanted = np.array([[0.255, 0.245, 0.25, 0.25]])
    assert litert.compare(wanted, np.array([[0.25, 0.26, 0.24, 0.25]]))["agreement"] == 1.0
    assert litert.compare(wanted, np.array([[0.23, 0.27, 0.25, 0.25]]))["agreement"] == 0.0


def test_accepts_what_agrees():
    litert.check({FLOAT: EXACT, INT8: EXACT}, LiteRTSettings())


@pytest.mark.parametrize(
    ("file", "measure", "value"),
    [
        (FLOAT, "max_difference", 2e-4),
        (INT8, "agreement", 0.5),
        (INT8, "mean_difference", 0.2),
    ],
)
def test_refuses_what_does_not(file, measure, value):
    report = {FLOAT: EXACT, INT8: EXACT} | {file: EXACT | {measure: value}}
    with pytest.raises(ConversionError, match=rf"{file}.*{measure} is {value}"):
        litert.check(report, LiteRTSettings())


def test_refuses_what_is_not_a_number():
    report = {FLOAT: EXACT | {"max_difference": float("nan")}, INT8: EXACT}
    with pytest.raises(ConversionError):
        litert.check(report, LiteRTSettings())
