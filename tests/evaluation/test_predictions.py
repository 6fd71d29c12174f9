"""Tables of predictions survive their file."""

import dataclasses

import numpy as np

from evaluation.predictions import (
    SplitTable,
    answers_digest,
    from_bytes,
    people_digest,
    to_bytes,
)


def test_round_trip_keeps_every_column_and_model():
    table = SplitTable(
        labels=np.array([0, 1]),
        subjects=np.array(["a", "b"]),
        slice_index=np.array([3, -1]),
        sites=np.array(["", "x"]),
        sha256=np.array(["aa", "bb"]),
        csf_fraction=np.array([0.1, 0.2]),
        probabilities={"student": np.eye(2), "live": np.ones((2, 2)) / 2},
    )
    without = SplitTable(**{**vars(table), "subjects": None, "probabilities": {}})
    read = from_bytes(to_bytes({"test": table, "train": without}))
    for name, value in vars(table).items():
        if name != "probabilities":
            np.testing.assert_array_equal(getattr(read["test"], name), value)
    assert set(read["test"].probabilities) == {"student", "live"}
    np.testing.assert_array_equal(read["test"].probabilities["live"], np.ones((2, 2)) / 2)
    assert read["train"].subjects is None
    assert read["train"].probabilities == {}


def test_digests_know_people_by_name_and_answers_by_value():
    table = SplitTable(
        labels=np.array([0, 0, 1]),
        subjects=np.array(["a", "a", "b"]),
        slice_index=np.zeros(3, int),
        sites=np.full(3, ""),
        sha256=np.array(["x", "y", "z"]),
        csf_fraction=np.zeros(3),
    )
    fewer_slices = dataclasses.replace(table, subjects=np.array(["b", "a", "a"]))
    assert people_digest(table) == people_digest(fewer_slices)
    assert people_digest(table) != people_digest(dataclasses.replace(table, subjects=None))
    answers = np.eye(3)[:, :2]
    assert answers_digest(answers) == answers_digest(answers.copy(order="F"))
    assert answers_digest(answers) != answers_digest(answers + 1e-9)
    assert answers_digest(np.zeros((2, 3))) != answers_digest(np.zeros((3, 2)))
