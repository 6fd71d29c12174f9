"""One image file → safe, normalised bytes, or the reason why not.

Image files are the least trusted thing that enters the pipeline. What leaves here is a PNG or JPEG
of 8 bits, one (or three) channels, upright, without metadata: the only bytes that any later stage
decodes. Nothing is guessed and nothing is repaired: a file that is not plainly right is set aside
with a reason code.
"""

import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from ingest.containers import ReasonCode, RefusedImageError, check_container


@dataclass(frozen=True)
class ImageLimits:
    """What an image may be.

    Attributes:
        max_bytes: largest file, bytes.
        max_pixels: largest width × height, checked on the header before anything is decoded.
        min_side: shortest side, pixels.
        max_aspect: longest side over shortest.
        grey_tolerance: largest difference between colour channels, of 255, that still counts as
            grey (chroma rounding of JPEG gives 2 to 3).
        channels: 1 for greyscale data, 3 for colour data.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 4_000_000
    min_side: int = 16
    max_aspect: float = 8.0
    grey_tolerance: int = 8
    channels: Literal[1, 3] = 1


@dataclass(frozen=True, eq=False)
class NormalisedImage:
    """An image fit for training.

    Attributes:
        pixels: `uint8[height, width]`, or `[height, width, 3]` in colour.
        source: the file as it was received.
        plain: whether it can be used as it is.
        flags: what was done to it, e.g. `("16_bit_windowed",)`; empty for an untouched image.
    """

    pixels: NDArray[np.uint8]
    source: bytes
    plain: bool
    flags: tuple[str, ...]

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[1])

    @property
    def depth(self) -> int:
        """Channels, 1 or 3."""
        return 1 if self.pixels.ndim == 2 else 3

    @cached_property
    def data(self) -> bytes:
        """Encoded PNG or JPEG, 8 bits, no metadata. Encoded on first use: it costs most of all."""
        return self.source if self.plain else _encode_png(self.pixels)

    @cached_property
    def source_sha256(self) -> str:
        """Hex digest of the file as it was received."""
        return hashlib.sha256(self.source).hexdigest()

    @cached_property
    def pixel_sha256(self) -> str:
        """Hex digest of shape and decoded pixels: equal for equal pictures, however encoded."""
        shape = repr(self.pixels.shape).encode()
        return hashlib.sha256(shape + self.pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class Quarantined:
    """A file that is not used, and why: `reason` for machines, `detail` for people."""

    path: str
    reason: ReasonCode
    detail: str


def read_image(
    data: bytes, path: str, limits: ImageLimits | None = None
) -> NormalisedImage | Quarantined:
    """Checks, decodes and normalises one image file.

    The original bytes are kept when they already are a plain 8-bit baseline image without
    metadata, so that there is no generation loss; everything else is encoded anew as PNG.

    Args:
        data: the file's content.
        path: the file's name, for the report.
        limits: what an image may be; the default suits greyscale slices.

    Returns:
        The normalised image, or why it is set aside. Never raises on content.
    """
    try:
        return _normalise(data, limits or ImageLimits())
    except RefusedImageError as refused:
        return Quarantined(path, refused.reason, refused.detail)


def _normalise(data: bytes, limits: ImageLimits) -> NormalisedImage:
    plain = check_container(data, limits.max_bytes)
    picture = _open(data, limits)
    mode = picture.mode
    flags: list[str] = []
    upright = _upright(picture, flags)
    try:
        normal = _to_depth(upright, limits, flags)
    except (OSError, ValueError) as error:
        raise RefusedImageError("damaged", f"The pixels cannot be converted: {error}.") from error
    pixels = np.asarray(normal)
    if pixels.min() == pixels.max():
        raise RefusedImageError("blank", f"Every pixel has the same value, {int(pixels.min())}.")
    plain = plain and not flags and mode == normal.mode
    if not (plain or flags):
        flags.append("reencoded")
    return NormalisedImage(pixels, data, plain, tuple(flags))


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise RefusedImageError("too_many_pixels", str(error)) from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
            raise RefusedImageError("damaged", f"The header cannot be read: {error}.") from error
    _check_header(picture, limits)
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        cut = "truncated" in str(error) or "unexpected end" in str(error)
        raise RefusedImageError(
            "truncated" if cut else "damaged", f"The pixels cannot be decoded: {error}."
        ) from error
    return picture


def _check_header(picture: Image.Image, limits: ImageLimits) -> None:
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise RefusedImageError(
            "too_many_pixels",
            f"{width}×{height} = {width * height} pixels; the most is {limits.max_pixels}.",
        )
    if min(width, height) < limits.min_side:
        raise RefusedImageError(
            "too_small", f"{width}×{height}; each side must be ≥ {limits.min_side}."
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise RefusedImageError(
            "extreme_aspect", f"{width}×{height}; sides may differ {limits.max_aspect:g} times."
        )
    if getattr(picture, "n_frames", 1) > 1:
        raise RefusedImageError(
            "animated", f"The file holds {getattr(picture, 'n_frames', 0)} pictures."
        )
    if picture.mode in ("CMYK", "YCCK"):
        raise RefusedImageError("cmyk", "The picture is CMYK, which is for print.")


# EXIF's orientation → what makes it 1. Pillow's own `exif_transpose` also writes the tags anew, and
# raises on tags that a damaged file holds.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(picture: Image.Image, flags: list[str]) -> Image.Image:
    try:
        orientation = picture.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        flags.append("exif_unreadable")
        return picture
    turn = _TURNS.get(orientation)
    if turn is None:
        return picture
    flags.append("exif_orientation_applied")
    return picture.transpose(turn)


def _to_depth(picture: Image.Image, limits: ImageLimits, flags: list[str]) -> Image.Image:
    if picture.mode.startswith("I"):
        return _to_channels(_window(picture, flags), limits, flags)
    if picture.mode == "1":
        flags.append("1_bit_converted")
    if picture.mode == "P":
        flags.append("palette_converted")
    if picture.mode in ("LA", "RGBA", "PA") or "transparency" in picture.info:
        flags.append("alpha_composited_on_black")
        rgba = picture.convert("RGBA")
        picture = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        picture.alpha_composite(rgba)
    if picture.mode in ("1", "L"):
        return _to_channels(picture.convert("L"), limits, flags)
    if picture.mode in ("P", "RGB", "RGBA"):
        return _to_channels(picture.convert("RGB"), limits, flags)
    raise RefusedImageError("unsupported_mode", f"Mode {picture.mode!r} is not supported.")


def _window(picture: Image.Image, flags: list[str]) -> Image.Image:
    """16 bits → 8 by a linear window between the 0.5 and 99.5 percentiles, clipped, not wrapped.

    Scanners use a part of the range only, and a few hot pixels would otherwise darken the rest.
    """
    flags.append("16_bit_windowed")
    values = np.asarray(picture).astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:
        low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, 1.0)
    return Image.fromarray(np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8))


def _to_channels(picture: Image.Image, limits: ImageLimits, flags: list[str]) -> Image.Image:
    if limits.channels == 3:
        return picture.convert("RGB")
    if picture.mode == "L":
        return picture
    red, green, blue = picture.split()
    pairs = ((red, green), (green, blue), (blue, red))
    spread = max(int(np.asarray(ImageChops.difference(*pair)).max()) for pair in pairs)
    if spread > limits.grey_tolerance:
        raise RefusedImageError(
            "not_grayscale",
            f"Colour channels differ by up to {spread} of 255; {limits.grey_tolerance} is the "
            "most for grey. Import colour data with channels=3.",
        )
    flags.append("colour_to_grey")
    return picture.convert("L")


def _encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes pixels only: a new image carries no metadata of the old."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
