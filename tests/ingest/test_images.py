"""Every kind of damaged or odd image file, with its exact outcome."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ingest.images import ImageLimits, NormalisedImage, Quarantined, read_image

CANARY = b"CANARY-7f3a"
RAMP = np.tile(np.linspace(0, 250, 48).astype(np.uint8), (40, 1))  # 40 high, 48 wide


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(pixels=RAMP) -> Image.Image:
    return Image.fromarray(pixels)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def accepted(data: bytes, **limits) -> NormalisedImage:
    result = read_image(data, "x", ImageLimits(**limits))
    assert isinstance(result, NormalisedImage), result
    return result


def decode_pixels(image: NormalisedImage) -> np.ndarray:
    """Pixels of the bytes that are written, which must be those that were promised."""
    pixels = np.asarray(Image.open(io.BytesIO(image.data)))
    np.testing.assert_array_equal(pixels, image.pixels)
    return pixels


def reason(data: bytes, **limits) -> str:
    result = read_image(data, "folder/x.jpg", ImageLimits(**limits))
    assert isinstance(result, Quarantined), result
    assert result.path == "folder/x.jpg"
    assert result.detail
    return result.reason


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_plain_greyscale_keeps_its_bytes(kind):
    data = encoded(grey(), kind)
    image = accepted(data)
    assert image.data == data
    assert (image.height, image.width, image.depth, image.flags) == (40, 48, 1, ())


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("tenths", range(10))
def test_truncated_at_every_tenth(kind, tenths):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    data = encoded(grey(pixels), kind)
    cut = data[: len(data) * tenths // 10]
    assert reason(cut) == ("empty" if tenths == 0 else "truncated")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_by_one_byte(kind):
    assert reason(encoded(grey(), kind)[:-1]) == "truncated"


def test_truncated_jpeg_with_a_complete_thumbnail_inside():
    """The end marker of a thumbnail must not pass for the picture's."""
    thumbnail = encoded(grey(RAMP[:20, :20]), "JPEG")
    data = encoded(grey(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + segment + data[2:]
    accepted(whole)
    assert reason(whole[: len(whole) * 8 // 10]) == "truncated"


def bomb_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("side", [2001, 10_000, 30_000])
def test_pixel_bomb_png_is_refused_by_its_header(side):
    assert reason(bomb_png(side, side)) == "too_many_pixels"


def test_pixel_bomb_jpeg_is_refused_by_its_header():
    data = bytearray(encoded(grey(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65535, 65535)
    assert reason(bytes(data)) == "too_many_pixels"


def test_text_bomb_is_refused_without_unpacking_it():
    text = b"key\0\0" + zlib.compress(b"A" * 80_000_000)
    plain = encoded(grey(), "PNG")
    data = plain[:33] + png_chunk(b"zTXt", text) + plain[33:]
    result = read_image(data, "x")
    # Pillow refuses to unpack it: the file is either refused or stripped of it.
    assert isinstance(result, Quarantined) or len(result.data) < 2000


def test_the_pixel_limit_is_configurable():
    assert reason(encoded(grey(), "PNG"), max_pixels=1000) == "too_many_pixels"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_types_under_an_image_name(kind):
    assert reason(encoded(grey(), kind)) == "wrong_type"


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7", b"<svg/>", b"<!DOCTYPE html>", b"8BPS", b"SIMPLE  =", b"text" * 99]
)
def test_other_content_under_an_image_name(data):
    assert reason(data) == "wrong_type"


def test_dicom_is_named():
    result = read_image(b"\0" * 128 + b"DICM" + b"\0" * 99, "x")
    assert result.reason == "wrong_type"
    assert "DICOM" in result.detail


def test_empty_and_too_large():
    assert reason(b"") == "empty"
    assert reason(encoded(grey(), "PNG"), max_bytes=50) == "too_large"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (5, 4000), (15, 40)])
def test_too_small(height, width):
    assert reason(encoded(grey(np.zeros((height, width), np.uint8)), "PNG")) == "too_small"


def test_extreme_aspect():
    assert reason(encoded(grey(np.zeros((16, 400), np.uint8)), "PNG")) == "extreme_aspect"


def test_blank():
    assert reason(encoded(grey(np.full((40, 40), 7, np.uint8)), "PNG")) == "blank"


def test_16_bit_is_windowed_not_wrapped():
    values = np.tile(np.linspace(900, 4000, 48).astype(np.uint16), (40, 1))
    values[0, 0] = 65535  # a hot pixel must not darken the rest
    image = accepted(encoded(Image.fromarray(values), "PNG"))
    pixels = decode_pixels(image)
    assert image.flags == ("16_bit_windowed",)
    assert pixels.dtype == np.uint8
    row = pixels[1].astype(int)
    assert (np.diff(row) >= 0).all()
    assert (row[0], row[-1]) == (0, 255)
    assert row[24] == pytest.approx((values[1, 24] - 900) / 3100 * 255, abs=3)
    assert pixels[0, 0] == 255


def test_rgba_is_composited_on_black_and_flagged():
    rgba = np.stack([RAMP, RAMP, RAMP, np.full_like(RAMP, 255)], -1)
    rgba[:, :24, 3] = 0
    image = accepted(encoded(Image.fromarray(rgba), "PNG"))
    pixels = decode_pixels(image)
    assert image.flags == ("alpha_composited_on_black", "colour_to_grey")
    assert not pixels[:, :24].any()
    np.testing.assert_array_equal(pixels[:, 24:], RAMP[:, 24:])


def test_la_is_composited_on_black():
    alpha = np.full_like(RAMP, 255)
    alpha[:20] = 0
    picture = Image.merge("LA", (grey(), Image.fromarray(alpha)))
    image = accepted(encoded(picture, "PNG"))
    pixels = decode_pixels(image)
    assert not pixels[:20].any()
    np.testing.assert_array_equal(pixels[20:], RAMP[20:])


def test_palette_is_resolved():
    picture = Image.fromarray((RAMP > 100).astype(np.uint8))
    picture.putpalette([10, 10, 10, 200, 200, 200])
    image = accepted(encoded(picture, "PNG"))
    np.testing.assert_array_equal(decode_pixels(image), np.where(RAMP > 100, 200, 10))
    assert image.flags[0] == "palette_converted"


def test_one_bit_becomes_black_and_white():
    image = accepted(encoded(Image.fromarray(RAMP > 100), "PNG"))
    np.testing.assert_array_equal(decode_pixels(image), np.where(RAMP > 100, 255, 0))
    assert image.flags == ("1_bit_converted",)


def test_cmyk_is_refused():
    assert reason(encoded(grey().convert("CMYK"), "JPEG")) == "cmyk"


def test_animated_is_refused():
    frames = [grey(), grey(RAMP[::-1] // 2)]
    assert reason(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])) == "animated"


def test_colour_is_refused_and_nearly_grey_is_converted():
    colour = np.stack([RAMP, RAMP // 2, RAMP], -1)
    assert reason(encoded(Image.fromarray(colour), "PNG")) == "not_grayscale"
    nearly = np.stack([RAMP, RAMP + 3, RAMP], -1)
    image = accepted(encoded(Image.fromarray(nearly), "PNG"))
    assert image.flags == ("colour_to_grey",)
    assert image.depth == 1
    assert reason(encoded(Image.fromarray(nearly), "PNG"), grey_tolerance=2) == "not_grayscale"


def test_colour_data_keeps_three_channels():
    colour = np.stack([RAMP, RAMP // 2, RAMP], -1)
    data = encoded(Image.fromarray(colour), "PNG")
    image = accepted(data, channels=3)
    assert (image.depth, image.data) == (3, data)
    assert decode_pixels(accepted(encoded(grey(), "PNG"), channels=3)).shape == (40, 48, 3)


def test_16_bit_colour_is_not_kept_as_it_is():
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    samples = (np.arange(32 * 32 * 3) * 20).reshape(32, 96).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    image = accepted(data, channels=3)
    assert image.data != data
    np.testing.assert_array_equal(decode_pixels(image).reshape(32, 96), samples >> 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_applied_once_and_metadata_dropped(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise
    exif[0x010E] = CANARY.decode()
    data = encoded(grey(), kind, exif=exif)
    assert CANARY in data
    image = accepted(data)
    assert image.flags == ("exif_orientation_applied",)
    assert (image.height, image.width) == (48, 40)
    upright = np.rot90(RAMP, -1)
    assert np.abs(decode_pixels(image).astype(int) - upright).max() <= 6
    assert accepted(image.data).flags == ()
    assert CANARY not in image.data


def test_metadata_never_leaves():
    comment = b"\xff\xfe" + struct.pack(">H", len(CANARY) + 2) + CANARY
    jpeg = encoded(grey(), "JPEG")
    png = encoded(grey(), "PNG")
    text = png[:33] + png_chunk(b"tEXt", b"Name\0" + CANARY) + png[33:]
    polyglots = [jpeg + b"PK\x03\x04" + CANARY, png + CANARY, jpeg + jpeg + CANARY + b"\xff\xd9"]
    for data in [jpeg[:2] + comment + jpeg[2:], text, *polyglots]:
        image = accepted(data)
        assert CANARY not in image.data
        assert image.flags == ("reencoded",)
        reference = jpeg if data[:2] == b"\xff\xd8" else png
        assert image.pixel_sha256 == accepted(reference).pixel_sha256


def test_a_flipped_bit_is_noticed():
    data = bytearray(encoded(grey(), "PNG"))
    data[60] ^= 4
    assert reason(bytes(data)) == "damaged"


def test_equal_pixels_have_equal_hashes_whatever_the_encoding():
    a = accepted(encoded(grey(), "PNG"))
    b = accepted(encoded(grey(), "PNG", compress_level=0))
    assert a.pixel_sha256 == b.pixel_sha256
    assert a.source_sha256 != b.source_sha256
    assert accepted(encoded(grey(RAMP.T), "PNG")).pixel_sha256 != a.pixel_sha256


def test_garbage_never_raises():
    rng = np.random.default_rng(1)
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b""):
        for size in (0, 3, 40, 400):
            result = read_image(magic + rng.bytes(size) + b"\xff\xd9", "x")
            assert isinstance(result, Quarantined)
