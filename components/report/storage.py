"""Evidence in a run's folder, readable without our code.

`evidence.json` is strict JSON (no NaN); `evidence.npz`, where a model was judged or leaks have a
picture, holds arrays only (no pickle).
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
from evaluation.outcome import Outcome

FILE = "evidence.json"
ARRAYS = "evidence.npz"
FORMAT = "cortexflow-evidence-1"
PICTURE = "leakage_picture"


def save(evidence: Evidence, folder: str | os.PathLike) -> None:
    """Writes `evidence.json` and, where there are arrays or pictures, `evidence.npz` into `folder`.

    The JSON file is renamed into place last, so that it never names arrays that are not there.
    Values that are not finite are written as null.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    packed = _pack(evidence)
    bare = dataclasses.replace(evidence, predictions=None, samples=())
    if bare.leakage is not None:
        bare = dataclasses.replace(bare, leakage=dataclasses.replace(bare.leakage, picture=None))
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
        evidence = TypeAdapter(Evidence).validate_python(_with_outcomes(document))
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


def _with_outcomes(document: dict[str, Any]) -> dict[str, Any]:
    """Reads runs from before a check could doubt: it passed or not, and `detail` was the latter."""
    for check in (document.get("decision") or {}).get("checks", ()):
        if "passed" in check:
            passed = check.pop("passed")
            check["outcome"] = (Outcome.PASSED if passed else Outcome.REFUSED).value
            check["detail"] = "" if passed else check.get("detail", "")
    return document


def _pack(evidence: Evidence) -> bytes | None:
    arrays: dict[str, np.ndarray] = {}
    if evidence.leakage is not None and evidence.leakage.picture is not None:
        arrays[PICTURE] = np.frombuffer(evidence.leakage.picture, np.uint8)
    if evidence.predictions is not None:
        arrays |= _of_predictions(evidence.predictions, evidence.samples)
    if not arrays:
        return None
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _of_predictions(predictions: Predictions, samples: tuple[Sample, ...]) -> dict[str, np.ndarray]:
    arrays = {
        field.name: value
        for field in dataclasses.fields(predictions)
        if (value := getattr(predictions, field.name)) is not None
    }
    arrays["sample_rows"] = np.array([sample.row for sample in samples], np.int64)
    for position, sample in enumerate(samples):
        arrays[f"sample_image_{position:02d}"] = np.frombuffer(sample.image, np.uint8)
    return arrays


def _unpack(evidence: Evidence, arrays: dict[str, np.ndarray]) -> Evidence:
    picture = arrays.pop(PICTURE, None)
    if picture is not None and evidence.leakage is not None:
        found = dataclasses.replace(evidence.leakage, picture=picture.tobytes())
        evidence = dataclasses.replace(evidence, leakage=found)
    if not arrays:
        return evidence
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
