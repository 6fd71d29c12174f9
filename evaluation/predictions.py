"""What models said about one split, beside what is known about its images. Pure NumPy."""

import dataclasses
import hashlib
import io
from collections.abc import Mapping

import numpy as np

FILE = "predictions.npz"


@dataclasses.dataclass(frozen=True)
class SplitTable:
    """The images of one split in a fixed order, without their pixels.

    Attributes:
        labels: int64[N], indices into the class names.
        subjects: unicode[N], or None for slice-level data.
        slice_index: int64[N], -1 where unknown.
        sites: unicode[N], empty where unknown.
        sha256: unicode[N], digest of each source file (empty where unknown).
        csf_fraction: float64[N], total CSF / brain, the baseline's only feature.
        probabilities: model name → float64[N, C]; empty for splits that no model was run on.
    """

    labels: np.ndarray
    subjects: np.ndarray | None
    slice_index: np.ndarray
    sites: np.ndarray
    sha256: np.ndarray
    csf_fraction: np.ndarray
    probabilities: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def to_bytes(splits: Mapping[str, SplitTable]) -> bytes:
    """Packs tables as one npz: `SPLIT/column` and `SPLIT/probabilities/MODEL`."""
    arrays = {}
    for split, table in splits.items():
        for field in dataclasses.fields(table):
            value = getattr(table, field.name)
            if isinstance(value, Mapping):
                for model, probabilities in value.items():
                    arrays[f"{split}/{field.name}/{model}"] = probabilities
            elif value is not None:
                arrays[f"{split}/{field.name}"] = value
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def from_bytes(packed: bytes) -> dict[str, SplitTable]:
    """Unpacks what `to_bytes` packed; arrays only, nothing is executed."""
    columns: dict[str, dict] = {}
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        for key in arrays.files:
            split, column, *model = key.split("/")
            table = columns.setdefault(split, {"subjects": None, "probabilities": {}})
            if model:
                table[column][model[0]] = arrays[key]
            else:
                table[column] = arrays[key]
    return {split: SplitTable(**table) for split, table in columns.items()}


def people_digest(table: SplitTable) -> str:
    """SHA-256 of who is in a table (where nobody is named: of which files), in any order."""
    named = table.sha256 if table.subjects is None else table.subjects
    return hashlib.sha256("\n".join(sorted(set(named.tolist()))).encode()).hexdigest()


def answers_digest(probabilities: np.ndarray) -> str:
    """SHA-256 of what a model answered, float[N, C]: equal for equal answers in equal order."""
    answers = np.ascontiguousarray(probabilities, "<f8")
    return hashlib.sha256(repr(answers.shape).encode() + answers.tobytes()).hexdigest()
