"""Tables of predictions survive their file."""

import numpy as np

from evaluation.predictions import SplitTable, from_bytes, to_bytes


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
