"""Pictures that are no slices of the training data, made from held-out slices: what a gate is for.

Each family turns slices into something that a careless client could send: no picture at all,
another picture, a slice damaged on its way, or a slice turned. The list follows what is usual in
work on out-of-distribution detection for medical images; no family is used to fit anything.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Slice = NDArray[np.uint8]
Family = Callable[[Slice, np.random.Generator], Slice]


def _levels(values: NDArray[np.floating]) -> Slice:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _noise(image: Slice, rng: np.random.Generator) -> Slice:
    return rng.integers(0, 256, image.shape, np.uint8)


def _black(image: Slice, rng: np.random.Generator) -> Slice:
    """As black as a file gets that is not refused as blank: one grey pixel."""
    blank = np.zeros_like(image)
    blank[0, 0] = 1
    return blank


def _white(image: Slice, rng: np.random.Generator) -> Slice:
    return np.invert(_black(image, rng))


def _gradient(image: Slice, rng: np.random.Generator) -> Slice:
    rows, columns = (np.linspace(0, 1, size) for size in image.shape)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * columns + np.sin(angle) * rows[:, None]
    return _levels(255 * (ramp - ramp.min()) / np.ptp(ramp))


def _natural(image: Slice, rng: np.random.Generator) -> Slice:
    """Amplitudes falling as 1/f, as those of photographs do (Field 1987, JOSA A 4:2379)."""
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1]))
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=image.shape)) / frequency
    scene = np.fft.irfft2(spectrum, image.shape)
    return _levels(128 + 50 * (scene - scene.mean()) / scene.std())


def _inverted(image: Slice, rng: np.random.Generator) -> Slice:
    return np.invert(image)


def _blurred(image: Slice, rng: np.random.Generator) -> Slice:
    """Gaussian of standard deviation 3 % of the height."""
    frequency = [np.fft.fftfreq(size)[:, None] for size in image.shape]
    squared = frequency[0] ** 2 + frequency[1].T ** 2
    kernel = np.exp(-2 * (np.pi * 0.03 * image.shape[0]) ** 2 * squared)
    return _levels(np.fft.ifft2(np.fft.fft2(image.astype(np.float64)) * kernel).real)


def _grainy(image: Slice, rng: np.random.Generator) -> Slice:
    return _levels(image + rng.normal(0, 40, image.shape))


def _dim(image: Slice, rng: np.random.Generator) -> Slice:
    return _levels(image * np.float64(0.4))


def _half(image: Slice, rng: np.random.Generator) -> Slice:
    """One half of the slice, stretched to the frame."""
    half = image[:, : image.shape[1] // 2]
    return half[:, np.arange(image.shape[1]) * half.shape[1] // image.shape[1]]


def _zoomed(image: Slice, rng: np.random.Generator) -> Slice:
    """The middle at twice its size."""
    rows, columns = (np.arange(size) // 2 + size // 4 for size in image.shape)
    return image[np.ix_(rows, columns)]


def _mosaic(image: Slice, rng: np.random.Generator) -> Slice:
    """Two by two copies at half their size: a contact sheet."""
    small = image[::2, ::2]
    return np.tile(small, (2, 2))[: image.shape[0], : image.shape[1]]


def _labelled(image: Slice, rng: np.random.Generator) -> Slice:
    """Text burnt in: three lines of bright strokes in a corner."""
    written = image.copy()
    height, width = image.shape
    line, stroke = max(height // 20, 2), max(width // 64, 1)
    marks = np.repeat(rng.random((3, width // (3 * stroke))) < 0.6, stroke, axis=1)
    for index, row in enumerate(marks):
        top = line + 2 * index * line
        part = written[top : top + line, stroke : stroke + row.size]
        part[:, row[: part.shape[1]]] = 255
    return written


def _barred(image: Slice, rng: np.random.Generator) -> Slice:
    """A black bar over the middle, an eighth of the height."""
    barred = image.copy()
    middle, half = image.shape[0] // 2, image.shape[0] // 16
    barred[middle - half : middle + half] = 0
    return barred


def _tilted(image: Slice, rng: np.random.Generator) -> Slice:
    """Turned by 15°, nearest neighbour, black outside."""
    angle = np.deg2rad(15)
    height, width = image.shape
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1])[:, None, None] / 2
    rows = np.rint(np.cos(angle) * y - np.sin(angle) * x + (height - 1) / 2).astype(int)
    columns = np.rint(np.sin(angle) * y + np.cos(angle) * x + (width - 1) / 2).astype(int)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    turned = np.zeros_like(image)
    turned[inside] = image[rows[inside], columns[inside]]
    return turned


FAMILIES: Mapping[str, Family] = {
    "noise": _noise,
    "black": _black,
    "white": _white,
    "gradient": _gradient,
    "natural": _natural,
    "inverted": _inverted,
    "blurred": _blurred,
    "grainy": _grainy,
    "gain_0.4": _dim,
    "half": _half,
    "zoomed": _zoomed,
    "mosaic": _mosaic,
    "text": _labelled,
    "bar": _barred,
    "tilted_15": _tilted,
    "rotated_90": lambda image, rng: np.rot90(image),
    "rotated_180": lambda image, rng: image[::-1, ::-1],
    "upside_down": lambda image, rng: image[::-1],
    "mirrored": lambda image, rng: image[:, ::-1],
}


def unlike(name: str, images: list[Slice], seed: int = 0) -> list[Slice]:
    """Makes the pictures of one family.

    Args:
        name: a key of `FAMILIES`.
        images: uint8[H, W], slices that no gate was fitted on.
        seed: of the families that are drawn.

    Returns:
        One uint8[H, W] for each, of the same size (turned by 90°: of the swapped size).
    """
    rng = np.random.default_rng([seed, sorted(FAMILIES).index(name)])
    return [np.ascontiguousarray(FAMILIES[name](image, rng)) for image in images]
