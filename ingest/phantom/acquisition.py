"""A scanner: point spread, pose, gain, gamma, bias field, Rician noise, JPEG.

Conventions of noise and bias follow BrainWeb (Rician noise as a share of white matter; bias as a
smooth multiplicative field). The reference site is calibrated on the public set, sites 1 and 2
are a mild and a severe shift from it.
"""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

WHITE_LEVEL = 232  # grey level of brightness 1
FOREGROUND = 0.02  # brightness below which the scanner's mask is black
DARK_SHARE, DARK_GAIN = 0.075, 0.72  # of subjects in the public set, whose slices are dark
PIXEL_BOX = 1 / np.sqrt(12)  # standard deviation of a pixel's own width


@dataclass(frozen=True)
class Site:
    """How one scanner differs; lengths are in pixels of a 128-pixel slice."""

    gain: float
    gamma: float
    noise: float
    bias: float
    blur: float
    rotation: float
    shift: float
    scale: float
    quality: int


SITES = (
    Site(1.00, 1.00, 0.020, 0.05, 0.75, 1.0, 0.5, 0.003, 92),
    Site(0.97, 1.12, 0.030, 0.10, 0.95, 1.5, 0.8, 0.004, 88),
    Site(0.80, 1.35, 0.055, 0.22, 1.35, 4.0, 2.5, 0.020, 75),
)


@dataclass(frozen=True)
class Pose:
    """How a head lies in the scanner: where each pixel of the image is in the upright head.

    Attributes:
        size: pixels of the image's side.
        angle: rotation in radians.
        shift: float64[2], down and to the right, in pixels.
        scale: magnification.
    """

    size: int
    angle: float
    shift: np.ndarray
    scale: float

    @cached_property
    def sources(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column in the upright image of every pixel: two float64[size²], clipped to it."""
        centre = (self.size - 1) / 2
        rows, columns = (
            np.indices((self.size, self.size)).reshape(2, -1) - centre - self.shift[:, None]
        )
        cosine, sine = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        last = self.size - 1.001
        return (
            np.clip(cosine * rows - sine * columns + centre, 0, last),
            np.clip(sine * rows + cosine * columns + centre, 0, last),
        )

    def move(self, images: np.ndarray) -> np.ndarray:
        """Resamples upright images bilinearly: float32[Z, size, size] in and out."""
        row, column = self.sources
        top, left = row.astype(np.intp), column.astype(np.intp)
        down, right = (row - top).astype(np.float32), (column - left).astype(np.float32)
        corner = top * self.size + left
        flat = images.reshape(len(images), -1)
        moved = np.empty_like(flat)
        for image, out in zip(flat, moved, strict=True):
            above, below = image[corner], image[corner + self.size]
            above += (image[corner + 1] - above) * right
            below += (image[corner + self.size + 1] - below) * right
            np.add(above, (below - above) * down, out=out)
        return moved.reshape(images.shape)

    def move_mask(self, masks: np.ndarray) -> np.ndarray:
        """Resamples upright masks by the nearest pixel: bool[Z, size, size] in and out."""
        row, column = (np.rint(place).astype(np.intp) for place in self.sources)
        return masks.reshape(len(masks), -1)[:, row * self.size + column].reshape(masks.shape)


class Scanner:
    """One session of one subject at one site: what stays the same over its slices."""

    def __init__(self, site: Site, rng: np.random.Generator, size: int):
        """Draws the session.

        Args:
            site: the scanner.
            rng: the session's stream.
            size: pixels of the image's side.
        """
        self.site = site
        self.zoom = size / 128
        dark = rng.random() < DARK_SHARE
        self.gain = site.gain * (1 + 0.045 * rng.standard_normal()) * (DARK_GAIN if dark else 1.0)
        self.gamma = site.gamma * np.exp(0.05 * rng.standard_normal())
        self.bias = np.exp(_polynomial(rng.normal(0, site.bias, 5), size))
        self.pose = Pose(
            size,
            np.deg2rad(rng.normal(0, site.rotation)),
            rng.normal(0, site.shift, 2) * self.zoom,
            1 + rng.normal(0, site.scale),
        )

    @property
    def point_spread(self) -> float:
        """Standard deviation of the blur in pixels.

        `Site.blur` was measured with the width of a 128-pixel slice's pixel in it; the tissue has
        the width of its own pixels already.
        """
        return float(np.sqrt(self.site.blur**2 - PIXEL_BOX**2)) * self.zoom

    def scan(self, tissue: np.ndarray, noise: list[np.random.Generator]) -> np.ndarray:
        """Makes images of tissue.

        Args:
            tissue: float32[Z, size, size] brightness, 1 being white matter's neighbourhood.
            noise: a random stream per slice.

        Returns:
            uint8[Z, size, size].
        """
        seen = self.pose.move(blur(tissue, self.point_spread))
        images = np.zeros(seen.shape, np.uint8)
        level = self.site.noise * min(self.zoom, 1.0)
        for image, out, rng in zip(seen, images, noise, strict=True):
            inside = image > FOREGROUND
            # In double precision: single-precision powers differ in the last bit between
            # processors, and a grey level now and then with them.
            signal = self.gain * image[inside].astype(np.float64) ** self.gamma
            signal *= self.bias[inside]
            real, imaginary = level * _grain(rng, self.zoom, inside)
            signal += real
            magnitude = np.sqrt(signal * signal + imaginary * imaginary)
            out[inside] = np.minimum(magnitude * WHITE_LEVEL, 255)
        return images

    def encode(self, images: np.ndarray) -> tuple[bytes, ...]:
        """Encodes uint8[Z, size, size] as one grey JPEG per slice, at the site's quality."""
        return tuple(encode_jpeg(Image.fromarray(image), self.site.quality) for image in images)


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Convolves float32[Z, h, w] with a Gaussian in the plane; outside is black."""
    reach = int(np.ceil(3.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    kernel = (kernel / (2 * kernel.sum() - 1)).astype(np.float32)
    for axis in (1, 2):
        along = (slice(None),) * axis
        blurred = kernel[0] * images
        for step in range(1, reach + 1):
            weighted = kernel[step] * images
            blurred[(*along, slice(step, None))] += weighted[(*along, slice(None, -step))]
            blurred[(*along, slice(None, -step))] += weighted[(*along, slice(step, None))]
        images = blurred
    return images


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _polynomial(coefficients: np.ndarray, size: int) -> np.ndarray:
    """Second-order bias, float64[size, size], over coordinates from -1 to 1."""
    axis = (np.arange(size) - (size - 1) / 2) / (size / 2)
    x, y = axis[None, :], axis[:, None]
    terms = np.broadcast_arrays(x, y, x * y, x**2 - 0.3, y**2 - 0.3)
    return np.tensordot(coefficients, np.stack(terms), 1)


def _grain(rng: np.random.Generator, zoom: float, inside: np.ndarray) -> np.ndarray:
    """Two channels of noise of unit variance at the pixels inside: float32[2, N].

    The scanner's own grid has 128 pixels. Below, pixels average its noise (the caller lowers the
    level); above, they interpolate it, so that a large image is not sharper in noise than in shape.
    """
    if zoom <= 1:
        return rng.standard_normal((2, int(inside.sum())), np.float32)
    places = (np.arange(len(inside)) + 0.5) / zoom + 0.5  # in a grid with a pixel's margin
    low = places.astype(int)
    share = (places - low).astype(np.float32)
    length = np.hypot(share, 1 - share)
    near, far = (1 - share) / length, share / length
    noise = rng.standard_normal((2, 130, 130), np.float32)
    rows = near[:, None] * noise[:, low] + far[:, None] * noise[:, low + 1]
    return (near * rows[:, :, low] + far * rows[:, :, low + 1])[:, inside]
