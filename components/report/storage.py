"""Evidence in a run's folder, readable without our code.

`evidence.json` is strict JSON (no NaN); `evidence.npz`, where a model was judged, holds arrays only
(no pickle).
"""

import dataclasses
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from components.report.evidence import Evidence, EvidenceError, Predictions, Sample

FILE = "evidence.json"
ARRAYS = "evidence.npz"
FORMAT = "cortexflow-evidence-1"


def save(evidence: Evidence, folder: str | os.PathLike) -> None:
    """Writes `evidence.json` and, where there are predictions, `evidence.npz` into `folder`.

    The JSON file is renamed into place last, so that it never names arrays that are not there.
    Values that are not finite are written as null.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    packed = _pack(evidence)
    bare = dataclasses.replace(evidence, predictions=None, samples=())
    document = {"format": FORMAT, "arrays": ARRAYS if packed else None, **dataclasses.asdict(bare)}
    del document["predictions"], document["samples"]
    text = json.dumps(plain(document), indent=2, allow_nan=False) + "\n"
    if packed:
        replace(folder / ARRAYS, packed)
    replace(folder / FILE, text.encode())


def load(folder: str | os.PathLike) -> Evidence:
    """Reads what `save` wrote.

    Raises:
        EvidenceError: a file is missing, or says what no evidence can say.
    """
    path = Path(folder) / FILE
    try:
        document = json.loads(path.read_text())
        if document.pop("format", None) != FORMAT:
            raise EvidenceError(f"{path} is not evidence of format {FORMAT!r}.")
        arrays = document.pop("arrays", None)
        evidence = TypeAdapter(Evidence).validate_python(document)
        if not arrays:
            return evidence
        with np.load(path.with_name(ARRAYS), allow_pickle=False) as packed:
            return _unpack(evidence, dict(packed))
    except FileNotFoundError as error:
        raise EvidenceError(
            f"No evidence at {error.filename}. A run writes it when it ends; see `cortexflow runs`."
        ) from None
    except (json.JSONDecodeError, ValidationError, KeyError) as error:
        raise EvidenceError(f"{path} cannot be read as evidence: {error}") from error


def plain(value: Any) -> Any:
    """Turns NumPy and other values into what strict JSON can say; not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def _pack(evidence: Evidence) -> bytes | None:
    if evidence.predictions is None:
        return None
    arrays = {
        field.name: value
        for field in dataclasses.fields(evidence.predictions)
        if (value := getattr(evidence.predictions, field.name)) is not None
    }
    arrays["sample_rows"] = np.array([sample.row for sample in evidence.samples], np.int64)
    for position, sample in enumerate(evidence.samples):
        arrays[f"sample_image_{position:02d}"] = np.frombuffer(sample.image, np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpack(evidence: Evidence, arrays: dict[str, np.ndarray]) -> Evidence:
    samples = tuple(
        Sample(int(row), arrays.pop(f"sample_image_{position:02d}").tobytes())
        for position, row in enumerate(arrays.pop("sample_rows"))
    )
    try:
        predictions = Predictions(**arrays)
    except TypeError as error:
        raise EvidenceError(f"{ARRAYS} holds other arrays than predictions: {error}") from None
    return dataclasses.replace(evidence, predictions=predictions, samples=samples)


def replace(path: Path, content: bytes) -> None:
    """Writes beside, then renames: a reader sees the old file or the new one, never half."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    os.replace(beside, path)
