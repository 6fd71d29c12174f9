"""The phantom in the dress of the brain-tumour set of Bhuvaji et al.: colour JPEG of many sizes.

What importers must catch there is kept: no subject ids, images of every size, and most of the
`no_tumor` test images being files of the training set, byte for byte (88 of 105 in the original).
"""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ingest.phantom.acquisition import encode_jpeg
from ingest.phantom.listing import Cohort, File, Slice

TEST_SHARE = 394 / 3264
DUPLICATE_SHARE = 88 / 105  # of the `no_tumor` test images
QUALITY = 90
SIZES = ((512, 512), (236, 236), (225, 225), (201, 251), (350, 416), (630, 630), (442, 442))
NO_TUMOUR = "no_tumor"

# Class, file names in Training, and the tumour: where (x, y of half the width), radius, brightness.
KINDS = {
    "NonDemented": (NO_TUMOUR, "image ({}).jpg", None),
    "VeryMildDemented": ("glioma_tumor", "gg ({}).jpg", (0.30, -0.25, 0.16, 70)),
    "MildDemented": ("meningioma_tumor", "m ({}).jpg", (0.55, 0.10, 0.13, 110)),
    "ModerateDemented": ("pituitary_tumor", "p ({}).jpg", (0.00, 0.30, 0.08, 90)),
}


def tumour_files(cohort: Cohort) -> Iterator[File]:
    """Slices dealt to `Training` and `Testing` at random, with a bright mass per tumour class."""
    rng = cohort.random("tumours")
    for name, slices in cohort.slices.items():
        kind, pattern, mass = KINDS[name]
        order = rng.permutation(len(slices))
        tests = max(1, round(TEST_SHARE * len(slices)))
        training = []
        for number, index in enumerate(order[tests:], 1):
            item = slices[index]
            file = f"Training/{kind}/{pattern.format(number)}", _dress(item, mass, rng), item.source
            training.append(file)
            yield file
        repeated = round(DUPLICATE_SHARE * tests) if kind == NO_TUMOUR else 0
        for number, index in enumerate(order[:tests], 1):
            path = f"Testing/{kind}/image({number}).jpg"
            if number <= min(repeated, len(training)):
                _, data, source = training[number - 1]
                yield path, data, source
            else:
                yield path, _dress(slices[index], mass, rng), slices[index].source


def _dress(
    item: Slice, mass: tuple[float, float, float, float] | None, rng: np.random.Generator
) -> bytes:
    """Adds the mass, takes one of the set's sizes, and encodes in colour."""
    with Image.open(io.BytesIO(item.read())) as image:
        pixels = np.asarray(image, np.float64)
    if mass is not None:
        pixels = _grow(pixels, mass, rng)
    size = SIZES[rng.integers(len(SIZES))]
    dressed = Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    return encode_jpeg(dressed.convert("RGB"), QUALITY)


def _grow(
    pixels: np.ndarray, mass: tuple[float, float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Brightens a soft round spot on either side of the head: float64[H, W] in [0, 255]."""
    x0, y0, radius, brightness = mass
    axis = (np.arange(len(pixels)) - (len(pixels) - 1) / 2) / (len(pixels) / 2)
    x0 = rng.choice([-1, 1]) * x0 + rng.normal(0, 0.05)
    y0 = y0 + rng.normal(0, 0.05)
    radius = radius * np.exp(rng.normal(0, 0.2))
    distance = np.hypot(axis[None, :] - x0, axis[:, None] - y0)
    spot = brightness / (1 + np.exp((distance - radius) / 0.02))
    return np.minimum(pixels + spot * (pixels > 0), 255)
