"""Baselines against what they must be by definition."""

import numpy as np
import pytest

from evaluation.baselines import constant_prior, total_csf
from evaluation.predictions import SplitTable


def table(labels, subjects, csf) -> SplitTable:
    rows = len(labels)
    return SplitTable(
        labels=np.array(labels),
        subjects=None if subjects is None else np.array(subjects),
        slice_index=np.zeros(rows, int),
        sites=np.full(rows, ""),
        sha256=np.full(rows, ""),
        csf_fraction=np.array(csf, float),
    )


TRAIN = table([0, 0, 0, 1, 1, 2], ["a", "a", "b", "c", "d", "e"], [0.1, 0.2, 0.15, 0.3, 0.32, 0.4])


def test_constant_prior_is_the_class_frequency():
    answer = constant_prior(TRAIN, rows=2, classes=4)
    np.testing.assert_allclose(answer, [[3 / 6, 2 / 6, 1 / 6, 0]] * 2)


def test_total_csf_answers_for_the_person_not_the_slice():
    test = table([0, 0, 2], ["x", "x", "y"], [0.05, 0.25, 0.45])
    answer = total_csf(TRAIN, test, classes=3)
    np.testing.assert_array_equal(answer[0], answer[1])
    np.testing.assert_allclose(answer.sum(axis=1), 1)
    assert answer[2].argmax() == 2
    assert answer[0].argmax() == 0


@pytest.mark.parametrize("csf", [[np.nan] * 6, [0.2] * 6])
def test_total_csf_says_nothing_without_a_measurement(csf):
    train = SplitTable(**{**vars(TRAIN), "csf_fraction": np.array(csf)})
    assert total_csf(train, TRAIN, classes=3) is None
