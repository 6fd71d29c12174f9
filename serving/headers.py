"""How much work an image file is, told from its first bytes without a decoder."""

from ingest.containers import JPEG_MAGIC, PNG_MAGIC

SMALL_BYTES = 1 << 16
SMALL_PIXELS = 1 << 16

# Chunks that a PNG's decoder inflates, each to a megabyte at most, besides the pixels.
_INFLATED = (b"zTXt", b"iTXt", b"iCCP")
_BASELINE, _SCAN = 0xC0, 0xDA
_TABLES = (0xC4, 0xDB, 0xE0)  # Huffman, quantisation, JFIF


def plain_and_small(data: bytes) -> bool:
    """Whether decoding takes a fraction of a millisecond, whatever else the file holds.

    A few bytes can ask for many pixels, for passes over all of them again and again, and for text
    to be inflated. What is not plainly small is not small; whether it is an image at all is for
    others to say.
    """
    if len(data) > SMALL_BYTES:
        return False
    if data.startswith(PNG_MAGIC):
        size = _side(data, 16, 4) * _side(data, 20, 4)
        return 0 < size <= SMALL_PIXELS and not any(name in data for name in _INFLATED)
    return data.startswith(JPEG_MAGIC) and 0 < _jpeg_pixels(data) <= SMALL_PIXELS


def _side(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(data[start : start + length], "big")


def _jpeg_pixels(data: bytes) -> int:
    """Of a baseline JPEG with nothing but tables before its one scan; 0 of any other."""
    position, pixels = 2, 0
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == _SCAN:
            return pixels if data.count(b"\xff\xda") == 1 else 0
        if marker == _BASELINE:
            pixels = _side(data, position + 5, 2) * _side(data, position + 7, 2)
        elif marker not in _TABLES:
            return 0
        position += 2 + _side(data, position + 2, 2)
    return 0
