"""What may be decoded by the thread that everybody waits for."""

import io
import random

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from serving.headers import SMALL_BYTES, plain_and_small


def encoded(side=64, kind="PNG", **options):
    """A slice of stripes, which compresses well."""
    pixels = np.tile(np.arange(side) % 251, (side, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_small_slices_are_small_and_large_ones_are_not(kind):
    assert plain_and_small(encoded(16, kind))
    assert plain_and_small(encoded(256, kind))
    large = encoded(320, kind)
    assert len(large) < SMALL_BYTES
    assert not plain_and_small(large)


def test_what_asks_for_more_work_than_it_shows_is_not_small():
    text = PngImagePlugin.PngInfo()
    text.add_text("k", "x" * 1_000_000, zip=True)
    bomb = encoded(pnginfo=text)
    assert len(bomb) < SMALL_BYTES
    for content in (
        bomb,
        encoded(icc_profile=b"\0" * 200_000),
        encoded(kind="JPEG", progressive=True),
        encoded(kind="JPEG", exif=b"Exif\0\0" + b"\0" * 64),
        encoded(kind="JPEG", comment=b"a comment"),
        encoded() + b"\0" * SMALL_BYTES,
        b"GIF89a" + b"\0" * 64,
        b"",
    ):
        assert not plain_and_small(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_headers_are_looked_at_without_harm(kind):
    random.seed(0)
    whole = encoded(kind=kind)
    for length in range(0, len(whole), 3):
        plain_and_small(whole[:length])
    for _ in range(2000):
        broken = bytearray(whole)
        for _ in range(8):
            broken[random.randrange(len(broken))] = random.randrange(256)
        plain_and_small(bytes(broken))
    assert not plain_and_small(whole[:12])
