"""Broken and hostile image files, crafted in memory."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

CANARY = "CANARY-5d1c"
RAMP = np.tile(np.linspace(0, 250, 96).astype(np.uint8), (80, 1))  # 80 high, 96 wide


def encoded(pixels, kind: str = "PNG", **options) -> bytes:
    """A file of `pixels`, an array or a `PIL.Image`."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def with_chunk(name: bytes, body: bytes) -> bytes:
    """A good PNG with one more chunk behind its header."""
    plain = encoded(RAMP)
    return plain[:33] + chunk(name, body) + plain[33:]


def header(width: int, height: int, depth: int = 1, colour: int = 0) -> bytes:
    """The body of IHDR."""
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more than the file holds."""
    body = zlib.compress(b"\0" * 1000)
    return png((b"IHDR", header(width, height)), (b"IDAT", body), (b"IEND", b""))


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose frame header lies about its size."""
    data = bytearray(encoded(RAMP, "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is begun again and again."""
    data = encoded(RAMP, "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    return data[:-2] + (data[start : start + 2 + length] + b"\0") * count + b"\xff\xd9"


def sixteen_bit_rgb() -> bytes:
    """A PNG of 16 bits and three channels that differ."""
    samples = (np.arange(32 * 32 * 3) * 5003 % 65536).reshape(32, 96).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    return png((b"IHDR", header(32, 32, 16, 2)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def animated() -> bytes:
    """A PNG of two frames."""
    return encoded(
        Image.fromarray(RAMP),
        save_all=True,
        append_images=[Image.fromarray(RAMP[::-1] // 2)],
    )


def oriented(pixels: np.ndarray, orientation: int, kind: str = "PNG") -> bytes:
    """A file whose EXIF says how the camera was held, and carries a name and a place."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = exif[0x013B] = CANARY
    exif.get_ifd(0x8825)[29] = CANARY
    return encoded(pixels, kind, exif=exif)
