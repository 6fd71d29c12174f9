"""Phantom people as the leak check sees them, and ways to split them."""

import dataclasses
import hashlib

import numpy as np
from PIL import Image

from evaluation.leakage_pairs import SplitImages
from ingest.phantom import PhantomSpec, render_subject


def phantom(
    people: int, slices: int, *, size=64, stored=64, preset="standard", site=0
) -> SplitImages:
    """Everybody's slices in one table, thumbnails of `size` from images of `stored` pixels."""
    spec = PhantomSpec(preset, (people // 4,) * 4, slices, stored, site, 7)
    subjects = [render_subject(spec, index) for index in range(people)]
    return table(
        np.concatenate([subject.images for subject in subjects]),
        np.repeat([subject.id for subject in subjects], slices),
        np.repeat([subject.label for subject in subjects], slices),
        np.tile(np.arange(slices), people),
        size,
    )


def table(images, subjects, labels, slice_index, size=64) -> SplitImages:
    """Columns of images as `components.records.decoded` makes them."""
    digests = np.array(
        [hashlib.sha256(repr(p.shape).encode() + p.tobytes()).hexdigest() for p in images]
    )
    small = [Image.fromarray(p).resize((size, size), Image.Resampling.BOX) for p in images]
    return SplitImages(
        digests=digests,
        thumbnails=np.stack([np.asarray(image) for image in small]),
        subjects=subjects,
        labels=labels,
        slice_index=slice_index,
        sources=digests,
        sides=np.full(len(images), min(images[0].shape)),
    )


def take(images: SplitImages, rows: np.ndarray) -> SplitImages:
    """Some of the images, in the order asked for."""
    return dataclasses.replace(
        images, **{name: column[rows] for name, column in columns(images).items()}
    )


def joined(a: SplitImages, b: SplitImages) -> SplitImages:
    """The images of both."""
    both = columns(b)
    return dataclasses.replace(
        a, **{name: np.concatenate([column, both[name]]) for name, column in columns(a).items()}
    )


def columns(images: SplitImages) -> dict[str, np.ndarray]:
    """The columns that are there."""
    found = {field.name: getattr(images, field.name) for field in dataclasses.fields(images)}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


def by_person(images: SplitImages) -> dict[str, SplitImages]:
    """Half the people train, a quarter validate, a quarter test: an honest split."""
    _, person = np.unique(images.subjects, return_inverse=True)
    quarter = 4 * person // (person.max() + 1)
    rows = {"train": quarter < 2, "val": quarter == 2, "test": quarter == 3}
    return {name: take(images, np.flatnonzero(chosen)) for name, chosen in rows.items()}


def by_slice(images: SplitImages) -> dict[str, SplitImages]:
    """Slices dealt at random, as published code does it."""
    parts = np.random.default_rng(0).permutation(len(images))
    first, second = len(images) // 2, 3 * len(images) // 4
    return {
        name: take(images, rows)
        for name, rows in zip(
            ("train", "val", "test"), np.split(parts, [first, second]), strict=True
        )
    }
