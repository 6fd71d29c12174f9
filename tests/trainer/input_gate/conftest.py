"""Slices of phantom people, and of real ones where they are at hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from trainer.input_gate_fit import fit_and_measure


def halves(images, subjects, share=0.4):
    """Splits by person: those who train the gate, and those who never saw it."""
    people = np.unique(subjects)
    unseen = np.isin(
        subjects, np.random.default_rng(0).permutation(people)[: int(share * len(people))]
    )
    return SimpleNamespace(
        train=images[~unseen],
        subjects=subjects[~unseen],
        unseen=images[unseen],
        unseen_subjects=subjects[unseen],
    )


def read(files):
    """Pixels uint8[N, H, W] and the subject that each file's name begins with."""
    images = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
    return images, np.array([file.name.split("_")[0] for file in files])


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """100 phantom people × 8 slices at 64 px."""
    from ingest.phantom import PhantomSpec, generate

    spec = PhantomSpec("standard", (45, 35, 15, 5), 8, 64)
    folder = generate(spec, tmp_path_factory.mktemp("phantoms"), workers=1)
    return halves(*read(sorted(folder.glob("images/*/*.jpg"))))


@pytest.fixture(scope="session")
def real(shared):
    """140 real people × 8 of their 32 slices at 128 px."""
    return halves(*read(sorted((shared / "data" / "oasis140").glob("*/*.jpg"))[::4]))


@pytest.fixture(scope="session")
def gate(phantom):
    """A gate fitted on the phantom's training people."""
    return fit_and_measure(phantom.train, phantom.subjects, phantom.unseen)


@pytest.fixture(scope="session")
def real_gate(real):
    """A gate fitted on the real training people."""
    return fit_and_measure(real.train, real.subjects, real.unseen)
