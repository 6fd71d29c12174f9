"""Mutated PNG and JPEG files: flips, cuts, splices, repeats, and chunks edited with their sums."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image


def seeds() -> list[bytes]:
    """Small good files of every kind that the decoder has a branch for."""
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(0, 250, 40).astype(np.uint8), (36, 1))
    noise = rng.integers(0, 255, (32, 32), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "name"
    files = []

    def add(pixels, kind, **options):
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files.append(buffer.getvalue())

    colour = np.dstack([ramp, ramp, ramp])
    for pixels in (ramp, noise, colour):
        add(pixels, "PNG")
        add(pixels, "JPEG", quality=80)
        add(pixels, "JPEG", progressive=True, exif=exif)
    add(ramp, "PNG", exif=exif)
    add(np.dstack([ramp, ramp, ramp, ramp]), "PNG")
    add(ramp > 99, "PNG")
    add(ramp.astype(np.uint16) * 200, "PNG")
    add(Image.fromarray(colour).quantize(16), "PNG", transparency=3)
    add(Image.merge("LA", [Image.fromarray(ramp)] * 2), "PNG")
    add(Image.fromarray(ramp), "PNG", save_all=True, append_images=[Image.fromarray(255 - ramp)])
    add(Image.fromarray(colour).convert("CMYK"), "JPEG")
    return files


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Yields mutated files, each by one to four changes."""
    rng = np.random.default_rng(seed)
    files = seeds()
    changes = (_flip, _cut, _splice, _repeat, _insert, _number, _edit_chunk, _edit_segment)
    for _ in range(count):
        data = files[rng.integers(len(files))]
        for _ in range(rng.integers(1, 5)):
            data = changes[rng.integers(len(changes))](data, files, rng) or data
        yield data


def _flip(data, files, rng):
    changed = bytearray(data)
    for place in rng.integers(0, len(changed), rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(data, files, rng):
    start, end = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:end] if rng.random() < 0.5 else data[:start] + data[end:]


def _splice(data, files, rng):
    other = files[rng.integers(len(files))]
    return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


def _repeat(data, files, rng):
    start, end = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:end] + data[start:end] * int(rng.integers(1, 6)) + data[end:]


def _insert(data, files, rng):
    place = rng.integers(len(data) + 1)
    return data[:place] + rng.bytes(rng.integers(1, 40)) + data[place:]


def _number(data, files, rng):
    """Overwrites four bytes by a number that is seldom tried."""
    place = rng.integers(max(len(data) - 4, 1))
    value = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x100)[rng.integers(7)]
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def _edit_chunk(data, files, rng):
    """Changes the body, the order or the number of a PNG's chunks, and mends the checksums."""
    chunks = _chunks(data)
    if not chunks:
        return None
    place = rng.integers(len(chunks))
    name, body = chunks[place]
    choice = rng.integers(6)
    if choice == 0 and body:
        chunks[place] = (name, _flip(body, files, rng))
    elif choice == 1:
        chunks[place] = (name, body[: rng.integers(len(body) + 1)])
    elif choice == 2:
        chunks.insert(int(rng.integers(len(chunks))), (name, body))
    elif choice == 3:
        del chunks[place]
    elif choice == 4 and name == b"IDAT":
        chunks[place] = (name, zlib.compress(rng.bytes(rng.integers(2000))))
    else:
        kinds = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"PLTE", b"tRNS", b"acTL", b"fcTL")
        kind = kinds[rng.integers(len(kinds))]
        chunks.insert(int(rng.integers(len(chunks))), (kind, rng.bytes(rng.integers(60))))
    summed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return data[:8] + b"".join(summed)


def _chunks(data) -> list[tuple[bytes, bytes]]:
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return []
    found, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if place + 12 + length > len(data):
            break
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def _edit_segment(data, files, rng):
    """Changes a JPEG's marker, a segment's length, or what a segment says."""
    places = [i for i in range(len(data) - 3) if data[i] == 0xFF and data[i + 1] not in (0, 0xFF)]
    if data[:2] != b"\xff\xd8" or not places:
        return None
    place = places[rng.integers(len(places))]
    changed = bytearray(data)
    choice = rng.integers(3)
    if choice == 0:
        changed[place + 1] = rng.integers(0xC0, 0xFF)
    elif choice == 1:
        changed[place + 2 : place + 4] = struct.pack(">H", rng.integers(0, 300))
    else:
        end = min(place + 40, len(changed))
        changed[int(rng.integers(place, end))] = rng.integers(256)
    return bytes(changed)
