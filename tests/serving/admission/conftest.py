"""A gate fitted on phantoms, and slices of people whom it never saw."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from schema.descriptors import measure
from trainer.input_gate_fit import fit


@pytest.fixture(scope="session")
def gated(tmp_path_factory):
    """`gate`, and `slices` of 20 people unseen by it: uint8[N, 64, 64]."""
    from ingest.phantom import PhantomSpec, generate

    spec = PhantomSpec("standard", (30, 30, 15, 5), 8, 64)
    folder = generate(spec, tmp_path_factory.mktemp("phantoms"), workers=1)
    files = sorted(folder.glob("images/*/*.jpg"))
    images = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
    subjects = np.array([file.name.split("_")[0] for file in files])
    people = np.random.default_rng(0).permutation(np.unique(subjects))
    unseen = np.isin(subjects, people[:20])
    gate = fit(*measure(images[~unseen]), subjects[~unseen])
    return SimpleNamespace(gate=gate, slices=images[unseen])
