"""Examples of the images of a leak check's table, as `ingest` writes them."""

import io

from PIL import Image

from schema import features


def example(images, row: int) -> dict:
    """The features of one row of a `SplitImages`; its thumbnail is the image."""
    found = {
        features.IMAGE: png(images.thumbnails[row]),
        features.LABEL: int(images.labels[row]),
        features.SLICE_INDEX: int(images.slice_index[row]),
        features.SOURCE_SHA256: str(images.sources[row]).encode(),
    }
    if images.subjects is not None:
        found[features.SUBJECT_ID] = str(images.subjects[row]).encode()
    return found


def png(pixels) -> bytes:
    """An array as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
