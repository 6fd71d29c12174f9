"""Two small classifiers and a registry that holds them."""

from pathlib import Path

import numpy as np
import pytest
from tiny_models import IMAGES, NAME, WHY, export_to, golden

from registry.local import LocalRegistry


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> dict[str, Path]:
    """Folders `a` and `b` of two exports with card and golden batch; `.npy` beside each: what its
    SavedModel answers to IMAGES."""
    from serving import preprocessing
    from serving.runtime import Pixels, read_card
    from serving.runtime_litert import FILES, LiteRT

    root = tmp_path_factory.mktemp("exported")
    for favourite, name in enumerate("ab"):
        folder = root / name
        export_to(folder, favourite)
        described = read_card((folder / "serving.json").read_bytes())
        images = [Pixels([preprocessing.decode(image, 1) for image in IMAGES[:4]])]
        answers = {"probabilities": np.load(root / f"{name}.npy")[:4]}
        for kind in FILES:
            runtime = LiteRT((folder / FILES[kind]).read_bytes(), described, kind, 1)
            answers[runtime.golden] = runtime.run(0, images)["probabilities"]
        golden(folder, answers)
    return {"a": root / "a", "b": root / "b"}


@pytest.fixture
def registry(tmp_path, exported) -> LocalRegistry:
    """Version 1 is `a`, version 2 is `b`; 2 is live."""
    registry = LocalRegistry(tmp_path / "registry", NAME)
    registry.push(exported["a"], **WHY)
    registry.push(exported["b"], **WHY)
    return registry
