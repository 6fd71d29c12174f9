"""What an image must pass before a model sees it: decoding under limits, then the input gate.

Image bytes are the least trusted thing a server takes. What leaves here are pixels: the received
bytes go no further, so that whatever hides behind or beside the picture goes no further either.
What is said of a refused image is made of fixed words and of numbers measured on its pixels; no
byte of the file and no message of its decoder is in it, since both may carry a person's name.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.containers import JPEG_MAGIC, ReasonCode
from ingest.images import ImageLimits, Quarantined, read_image
from schema import descriptors as schema_descriptors
from serving import preprocessing
from serving.config import Limits
from serving.errors import ServingError

MAX_SCANS = 64  # of a progressive JPEG: cameras and libraries write ten or fewer
MAX_LISTED = 16  # refused images that one answer describes

log = logging.getLogger(__name__)

# Pillow's warnings about a file's metadata would go to the server's log, a line for each file.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")

_SENTENCES: dict[str, str] = {
    "empty": "it holds no bytes",
    "truncated": "it is cut short",
    "damaged": "it cannot be decoded",
    "too_many_pixels": "its width × height is above {max_pixels}",
    "too_small": "a side is shorter than {min_side} pixels",
    "extreme_aspect": "one side is more than {max_aspect:g} times the other",
    "animated": "it holds several pictures",
    "cmyk": "it is CMYK, which is for print",
    "unsupported_mode": "its pixel format is not supported",
    "not_grayscale": "its colour channels differ, and the model reads grey slices",
    "blank": "every pixel has the same value",
    "too_many_scans": "it is a progressive JPEG of more than {max_scans} scans",
}


class Gate(Protocol):
    """The part of `trainer.input_gate.InputGate` that is asked here."""

    def judge(
        self, descriptors: Mapping[str, NDArray[np.float32]], grids: NDArray[np.float32]
    ) -> "Sequence[Any]":
        """One verdict per image, with `accepted`, `reason` and `as_json()`."""


@dataclass(frozen=True, eq=False)
class Admitted:
    """Images that a model may see.

    Attributes:
        pixels: uint8[H, W] or uint8[H, W, 3] each, upright, in the order received.
        descriptors: name → float32[N] (`schema.descriptors`); None where nobody asked for them.
    """

    pixels: list[NDArray[np.uint8]]
    descriptors: Mapping[str, NDArray[np.float32]] | None

    def encoded(self) -> list[bytes]:
        """The pixels as PNG files, 8 bits, without metadata: for what takes encoded images."""
        return [preprocessing.stored(pixels) for pixels in self.pixels]


class Admission:
    """Decodes requests' images and asks the gate about them. Thread-safe: it keeps no state.

    Args:
        limits: of one image.
        channels: that the model reads, 1 or 3.
        gate: of the version that will answer; None admits whatever can be decoded.
        describe: measure the descriptors although no gate asks for them.
    """

    def __init__(
        self, limits: Limits, channels: int, gate: Gate | None = None, *, describe: bool = True
    ):
        depth: Literal[1, 3] = 3 if channels == 3 else 1
        self._limits = ImageLimits(
            max_bytes=limits.max_image_bytes, max_pixels=limits.max_pixels, channels=depth
        )
        self._gate = gate
        self._describe = describe or gate is not None

    def admit(self, images: Sequence[bytes]) -> Admitted:
        """Decodes and judges one request's images.

        Args:
            images: PNG or JPEG files.

        Raises:
            ServingError: `too_large`, `unsupported_media_type`, `refused_image`,
                `out_of_distribution`; `details` tell which image and why.
        """
        outcome = self.admit_many([images])[0]
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    def admit_many(self, batches: Sequence[Sequence[bytes]]) -> list[Admitted | ServingError]:
        """Decodes and judges several requests' images together; each request fails by itself.

        To describe ten images takes hardly longer than to describe one.

        Args:
            batches: the images of each request.

        Returns:
            For each request what `admit` would return or raise.
        """
        decoded = [self._decode_all(images) for images in batches]
        if not self._describe:
            return [
                one if isinstance(one, ServingError) else Admitted(one, None) for one in decoded
            ]
        together = [pixels for one in decoded if isinstance(one, list) for pixels in one]
        measured = schema_descriptors.measure([_luma(pixels) for pixels in together])
        verdicts = (
            self._gate.judge(measured.descriptors, measured.grids)
            if self._gate and together
            else ()
        )
        outcomes: list[Admitted | ServingError] = []
        start = 0
        for one in decoded:
            if isinstance(one, ServingError):
                outcomes.append(one)
                continue
            end = start + len(one)
            refused = _out_of_distribution(verdicts[start:end])
            columns = measured.descriptors
            if len(one) < len(together):
                columns = {name: values[start:end] for name, values in columns.items()}
            outcomes.append(refused or Admitted(one, columns))
            start = end
        return outcomes

    def _decode_all(self, images: Sequence[bytes]) -> list[NDArray[np.uint8]] | ServingError:
        try:
            return [self._decode(data, position) for position, data in enumerate(images)]
        except ServingError as refused:
            return refused

    def _decode(self, data: bytes, position: int) -> NDArray[np.uint8]:
        # A progressive JPEG of a few kilobytes can ask for thousands of passes over its pixels.
        if data.startswith(JPEG_MAGIC) and data.count(b"\xff\xda") > MAX_SCANS:
            raise self._refused("too_many_scans", position)
        try:
            image = read_image(data, "", self._limits)
        except Exception as error:
            # The decoder is other people's code, given strangers' bytes: whatever it trips over,
            # the file is refused and its words, which may quote the file, are not kept.
            log.warning("An image made the decoder fail: %s.", type(error).__name__)
            raise self._refused("damaged", position) from None
        if isinstance(image, Quarantined):
            raise self._refused(image.reason, position)
        return image.pixels

    def _refused(self, reason: ReasonCode | str, position: int) -> ServingError:
        details = {"instance": position, "reason": reason}
        if reason == "too_large":
            return ServingError(
                "too_large",
                f"Image {position} is larger than {self._limits.max_bytes} bytes. Send the slice "
                "at the resolution of the scanner, as PNG or JPEG.",
                details=details,
            )
        if reason == "wrong_type":
            return ServingError(
                "unsupported_media_type",
                f"Image {position} is neither PNG nor JPEG by its content. Convert it first; "
                "DICOM and NIfTI are not read here.",
                details=details,
            )
        why = _SENTENCES.get(reason, reason).format(
            max_pixels=self._limits.max_pixels,
            min_side=self._limits.min_side,
            max_aspect=self._limits.max_aspect,
            max_scans=MAX_SCANS,
        )
        return ServingError(
            "refused_image",
            f"Image {position} is refused: {why}. Send one whole PNG or JPEG slice.",
            details=details,
        )


def _out_of_distribution(verdicts: Sequence[Any]) -> ServingError | None:
    refused = [(place, one) for place, one in enumerate(verdicts) if not one.accepted]
    if not refused:
        return None
    place, first = refused[0]
    return ServingError(
        "out_of_distribution",
        f"{len(refused)} of {len(verdicts)} image(s) are unlike those the model was trained on, "
        f"image {place} first ({first.reason}). No class is given for them. Send slices of the "
        "kind, orientation and preparation of the training data.",
        details={
            "reason": first.reason,
            "instances": [
                {"instance": place} | one.as_json() for place, one in refused[:MAX_LISTED]
            ],
        },
    )


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey as training data is described (`schema.descriptors.decode`)."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
