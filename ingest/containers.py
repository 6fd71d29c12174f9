"""The outside of an image file: its type by content, its completeness, what else it carries.

Checked byte by byte before any decoder runs, because decoders forgive: they skip checksums, pad
what is missing with grey, and read on past the end.
"""

import struct
import zlib
from typing import Literal

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"

ReasonCode = Literal[
    "empty",
    "too_large",
    "wrong_type",
    "truncated",
    "damaged",
    "too_many_pixels",
    "too_small",
    "extreme_aspect",
    "animated",
    "cmyk",
    "unsupported_mode",
    "not_grayscale",
    "blank",
    "unreadable",
    "no_subject_id",
    "conflicting_labels",
    "invalid_record",
]

_OTHER_TYPES = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"RIFF", "WebP or another RIFF file"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"SIMPLE  =", "FITS"),
    (b"\x1f\x8b", "gzip (NIfTI?)"),
    (b"PK\x03\x04", "ZIP"),
    (b"<", "HTML, SVG or XML"),
)


class RefusedImageError(Exception):
    """An image that must not be used; `reason` for machines, `detail` for people."""

    def __init__(self, reason: ReasonCode, detail: str):
        super().__init__(reason, detail)
        self.reason: ReasonCode = reason
        self.detail = detail


def check_container(data: bytes, max_bytes: int) -> bool:
    """Checks type and completeness of an image file.

    Returns:
        Whether the file is plain: 8 bits, baseline, without metadata or anything appended.

    Raises:
        RefusedImageError: the file is empty, too large, of another type, cut short or damaged.
    """
    if not data:
        raise RefusedImageError("empty", "The file holds 0 bytes.")
    if len(data) > max_bytes:
        raise RefusedImageError("too_large", f"{len(data)} bytes; the most is {max_bytes}.")
    if data.startswith(PNG_MAGIC):
        return _walk_png(data)
    if data.startswith(JPEG_MAGIC):
        return _walk_jpeg(data)
    if PNG_MAGIC.startswith(data) or JPEG_MAGIC.startswith(data):
        raise RefusedImageError("truncated", f"The file ends after {len(data)} bytes.")
    kind = next((name for magic, name in _OTHER_TYPES if data.startswith(magic)), "unknown")
    if data[128:132] == b"DICM":
        kind = "DICOM"
    raise RefusedImageError("wrong_type", f"Neither PNG nor JPEG by content (looks like: {kind}).")


def _walk_png(data: bytes) -> bool:
    """Follows the chunks to IEND, checking each CRC (Pillow skips some)."""
    position, names = len(PNG_MAGIC), []
    while True:
        if position + 12 > len(data):
            raise RefusedImageError(
                "truncated", f"The PNG ends after {len(data)} bytes, before IEND."
            )
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            raise RefusedImageError(
                "truncated", f"The PNG ends after {len(data)} bytes, inside a chunk."
            )
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[position + 4 : end - 4]) != crc:
            raise RefusedImageError("damaged", f"The PNG chunk at {position} fails its checksum.")
        names.append(name)
        position = end
        if name == b"IEND":
            bare = position == len(data) and set(names) == {b"IHDR", b"IDAT", b"IEND"}
            # Bit depth and interlacing are bytes 8 and 12 of IHDR.
            return bare and data[24] == 8 and data[28] == 0


def _walk_jpeg(data: bytes) -> bool:
    """Follows the segments to the scan; plain means baseline, JFIF without thumbnail, no more."""
    if data.rfind(JPEG_END) < 2:
        raise RefusedImageError("truncated", f"The JPEG of {len(data)} bytes has no end marker.")
    position, plain = 2, data.endswith(JPEG_END)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker == 0xDA:
            # A second image or ZIP behind the first end marker makes the file a polyglot.
            return plain and data.find(JPEG_END, position) == len(data) - 2
        jfif = marker == 0xE0 and length == 16 and data[position + 4 : position + 9] == b"JFIF\0"
        plain = plain and (jfif or marker in (0xC0, 0xC4, 0xDB, 0xDD))
        position += 2 + length
    return False
