"""The golden batch: a few made-up pictures, and what the exported model answered to them.

It travels with the model. Whoever loads the model somewhere else, on another machine and with
another build of its runtime, asks it the same and learns whether it still is what was exported.
It says nothing of whether the model is any good: no picture shows a person.

Pictures are drawn in integers and packed by a PNG writer of our own, without compression, so that
they are the same bytes on every machine. Reading needs neither TensorFlow nor Keras.
"""

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schema import descriptors
from schema.errors import CortexflowError
from trainer import input_gate
from trainer.arrays import unpack

FILE = "golden.npz"
SAVED_MODEL, FLOAT, INT8 = "probabilities", "float", "int8"  # whose answers, by array
GATE = "gate"  # the array of the input gate's scores

# How far another machine may be off, in probability: float sums are taken in another order there.
# int8 computes in integers, but its ends and its softmax (steps of 1/256) are rounded.
TOLERANCES = {SAVED_MODEL: 1e-4, FLOAT: 1e-4, INT8: 2 / 256}

MAX_BYTES = 16 << 20
_SEED = 20201


class GoldenError(CortexflowError):
    """A golden batch that is none."""


@dataclass(frozen=True)
class Golden:
    """Pictures and answers.

    Attributes:
        images: PNG files, B of them.
        answers: of `SAVED_MODEL`, and of `FLOAT` and `INT8` where the model has such a file:
            float32[B, C] probabilities as they were at export; not a number where the model gave
            none.
        gate: float32[B], what the input gate scored; None where the model has no gate.
    """

    images: tuple[bytes, ...]
    answers: Mapping[str, np.ndarray]
    gate: np.ndarray | None = None


def images(channels: int = 1) -> tuple[bytes, ...]:
    """The pictures, PNG files: four like a brain, a field, edges, noise, and one stored as colour.

    Their sizes differ, so that the model's own resizing is asked too. The last one has colours only
    for a network that sees them: decoders make luma of colours by different formulas (up to two
    grey levels apart), and a grey-level model is given none (`serving.admission`).

    Args:
        channels: what the network sees, 1 or 3.
    """
    draw = np.random.RandomState(_SEED)  # its stream is frozen for good, unlike a Generator's
    pictures = [
        _brain(draw, 208, 176, ventricles=12),
        _brain(draw, 128, 128, ventricles=24),
        _brain(draw, 64, 64, ventricles=16),
        _brain(draw, 61, 83, ventricles=20),
        _field(draw, 96, 96),
        _edges(120, 60),
        draw.randint(0, 256, (40, 40)),
    ]
    colours = np.stack([_field(draw, 72, 56) for _ in range(3)], axis=-1)
    pictures.append(colours if channels == 3 else colours[..., [0, 0, 0]])
    return tuple(_png(picture.astype(np.uint8)) for picture in pictures)


def record(folder: Path, image_size: int, channels: int) -> Golden:
    """Asks an exported model, loaded back from disk, and leaves `golden.npz` with it.

    Args:
        folder: a classifier as `trainer.export`, `trainer.litert` and `trainer.input_gate` wrote
            it.
        image_size, channels: what its network sees.

    Returns:
        What was written.
    """
    import tensorflow as tf  # noqa: PLC0415 (those who only read a batch do without)

    from trainer import litert  # noqa: PLC0415
    from trainer.config import InputSettings  # noqa: PLC0415
    from trainer.preprocessing import preprocess  # noqa: PLC0415

    files = images(channels)
    encoded = tf.constant(files)
    with tf.device("/CPU:0"):  # a GPU's products in TF32 are further off than the tolerance
        model = tf.saved_model.load(str(folder))
        answer = model.signatures["predict_images"](images=encoded)[SAVED_MODEL]
    answers = {SAVED_MODEL: answer.numpy()}
    seen = preprocess(encoded, InputSettings(image_size=image_size, channels=channels)).numpy()
    for name, file in ((FLOAT, litert.FLOAT), (INT8, litert.INT8)):
        path = folder / "litert" / file
        if path.is_file():
            answers[name] = litert.predict(path.read_bytes(), seen)
    gate = folder / input_gate.FILE
    golden = Golden(files, answers, gate_scores(gate, files) if gate.is_file() else None)
    _write(golden, folder / FILE)
    return golden


def gate_scores(gate: Path, files: Sequence[bytes]) -> np.ndarray:
    """What an input gate scores pictures, above 1 where it refuses: float32[N].

    Raises:
        InputGateError: the gate cannot be read.
    """
    judge = input_gate.load(gate).judge
    measured = descriptors.measure([descriptors.decode(file) for file in files])
    return np.array([verdict.score for verdict in judge(*measured)], np.float32)


def blank() -> bytes:
    """A black picture, as a PNG file: nothing that any model may answer for."""
    return _png(np.zeros((64, 64), np.uint8))


def _write(golden: Golden, path: Path) -> None:
    lengths = np.array([len(image) for image in golden.images], np.int64)
    padded = np.zeros((len(lengths), lengths.max()), np.uint8)
    for row, image in zip(padded, golden.images, strict=True):
        row[: len(image)] = np.frombuffer(image, np.uint8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        gate = {} if golden.gate is None else {GATE: golden.gate}
        np.savez_compressed(file, images=padded, lengths=lengths, **golden.answers, **gate)
    os.replace(partial, path)


def read(path: Path) -> Golden:
    """Reads a golden batch.

    Raises:
        GoldenError: there is none, or it is not what `record` writes.
    """
    try:
        with path.open("rb") as file:
            return parse(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise GoldenError(
            f"{path.name} is missing or cannot be read ({error.strerror}). Export the model with "
            "the present code."
        ) from error


def parse(content: bytes) -> Golden:
    """A golden batch from the bytes of its file; what they claim to hold is bounded.

    Raises:
        GoldenError: it is not what `record` writes.
    """
    try:
        return _checked(unpack(content, MAX_BYTES))
    except ValueError as error:
        raise GoldenError(f"{FILE} is no golden batch: {error}.") from error


def _checked(found: dict[str, np.ndarray]) -> Golden:
    unknown = found.keys() - {"images", "lengths", GATE, *TOLERANCES}
    missing = {"images", "lengths", SAVED_MODEL} - found.keys()
    if unknown or missing:
        raise ValueError(f"arrays {sorted(unknown)} too many, {sorted(missing)} too few")
    padded, lengths = found.pop("images"), found.pop("lengths")
    if padded.dtype != np.uint8 or padded.ndim != 2 or lengths.dtype != np.int64:
        raise ValueError("its images are no uint8[B, L] with int64 lengths")
    if lengths.shape != padded.shape[:1] or not len(lengths):
        raise ValueError("images and lengths differ in number, or there are none")
    if lengths.min() < 1 or lengths.max() > padded.shape[1]:
        raise ValueError("an image is longer than its row")
    gate = found.pop(GATE, None)
    if gate is not None and (gate.dtype != np.float32 or gate.shape != lengths.shape):
        raise ValueError("the input gate's scores are no float32[B]")
    shape = found[SAVED_MODEL].shape
    for name, answer in found.items():
        if answer.dtype != np.float32 or answer.shape != shape or len(shape) != 2:
            raise ValueError(f"{name} is no float32[B, C], or differs in shape from {SAVED_MODEL}")
    if shape[0] != len(lengths):
        raise ValueError("images and answers differ in number")
    files = tuple(
        row[:length].tobytes() for row, length in zip(padded, lengths.tolist(), strict=True)
    )
    return Golden(files, found, gate)


def _field(draw: np.random.RandomState, height: int, width: int, knots: int = 6) -> np.ndarray:
    """Smooth grey levels, int64[height, width] in 0 to 255: bilinear between random knots."""
    coarse = draw.randint(0, 256, (knots, knots))
    rows, below = _between(height, knots)
    columns, right = _between(width, knots)
    lines = coarse[rows] * (256 - below[:, None]) + coarse[rows + 1] * below[:, None]
    return (lines[:, columns] * (256 - right) + lines[:, columns + 1] * right) >> 16


def _between(extent: int, knots: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the knot before it, and how far behind that it lies, of 256."""
    place = np.arange(extent) * (knots - 1) * 256 // extent
    return place >> 8, place & 255


def _brain(draw: np.random.RandomState, height: int, width: int, *, ventricles: int) -> np.ndarray:
    """An ellipse of two tissues around two dark gaps `ventricles` per cent high, on black."""
    tissue = 90 + _field(draw, height, width) // 4
    inner = _ellipse(height, width, 33, 27)
    picture = np.where(_ellipse(height, width, 43, 37), tissue + inner * 60, 0)
    gaps = _ellipse(height, width, ventricles, 4, shift=-6)
    gaps |= _ellipse(height, width, ventricles, 4, shift=6)
    return np.where(gaps, 25, picture)


def _ellipse(height: int, width: int, tall: int, wide: int, shift: int = 0) -> np.ndarray:
    """Inside of an ellipse: its half axes and its shift to the right, per cent of the frame."""
    down = 100 * (2 * np.arange(height)[:, None] - height + 1)
    across = 100 * (2 * np.arange(width) - width + 1) - 2 * shift * width
    a, b = 2 * tall * height, 2 * wide * width
    return (down * b) ** 2 + (across * a) ** 2 <= (a * b) ** 2


def _edges(height: int, width: int) -> np.ndarray:
    """Bars above, squares below: the sharpest changes that there are."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    bars = (columns // 5 % 2) * 255 + 0 * rows
    squares = ((rows // 3 + columns // 3) % 2) * 200 + 30
    return np.where(rows < height // 2, bars, squares)


def _png(pixels: np.ndarray) -> bytes:
    """uint8[H, W] or uint8[H, W, 3] as a PNG of stored blocks: no two encoders compress alike."""
    height, width = pixels.shape[:2]
    filtered = np.zeros((height, 1 + pixels[0].size), np.uint8)  # filter 0 before each row
    filtered[:, 1:] = pixels.reshape(height, -1)
    raw = filtered.tobytes()
    blocks = [raw[start : start + 0xFFFF] for start in range(0, len(raw), 0xFFFF)]
    stored = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block
        for block in blocks
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    packed = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    )
