"""A phantom in the folders and names of the public releases, so that importers are tested offline.

Names, order and defects are those of the releases: the positional 80 % cut, the test set that is
the training set, the augmented derivative, the duplicates. Each export returns what no release
ships: which subject and slice each file is.
"""

import io
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ingest.phantom.acquisition import encode_jpeg
from ingest.phantom.listing import Cohort, File, Slice, Sources, read_cohort
from ingest.phantom.records import write_records
from ingest.phantom.tumours import tumour_files
from schema.errors import CortexflowError

TOURIST_ROOT, SACHIN_ROOT = "Alzheimer_s Dataset", "Dataset"
TOURIST_PREFIX = {
    "NonDemented": "nonDem",
    "VeryMildDemented": "verymildDem",
    "MildDemented": "mildDem",
    "ModerateDemented": "moderateDem",
}
SACHIN_NAMES = {
    "NonDemented": ("Non_Demented", "non"),
    "VeryMildDemented": ("Very_Mild_Demented", "verymild"),
    "MildDemented": ("Mild_Demented", "mild"),
    "ModerateDemented": ("Moderate_Demented", "moderate"),
}
# Copies per original that turn 3200 / 2240 / 896 / 64 into 9600 / 8960 / 8960 / 6464.
COPIES_OF_LARGEST, MOST_COPIES = 3, 101
JPEG_QUALITY = 92


class LayoutError(CortexflowError, ValueError):
    """An export was asked for that cannot be written."""


def class_folders(cohort: Cohort) -> Iterator[File]:
    """One folder per class, subjects in the names."""
    for name, slices in cohort.slices.items():
        for item in slices:
            yield f"{name}/{item.path.name}", item.read(), item.source


def tourist55(cohort: Cohort) -> Iterator[File]:
    """Each class listed slice by slice and cut at 80 %: everyone is on both sides.

    Test files keep their name of before the cut, `SLICE (PERSON).jpg`; natural sorting had put the
    bare `SLICE.jpg` behind `SLICE (2).jpg`, so the bare one is the last person.
    """
    for name, slices in cohort.slices.items():
        people = cohort.subjects[name]
        cut = _cut(len(slices))
        for index, item in enumerate(slices[:cut]):
            yield _tourist_train(name, index), item.read(), item.source
        for index, item in enumerate(slices[cut:], cut):
            number, person = divmod(index, people)
            suffix = "" if person == people - 1 else f" ({person + 2})"
            path = f"{TOURIST_ROOT}/test/{name}/{number + 1}{suffix}.jpg"
            yield path, item.read(), item.source


def sachinkumar413(cohort: Cohort) -> Iterator[File]:
    """tourist55 without its split: the test files of each class are numbered first."""
    for name, item, number in _sachin_order(cohort):
        folder, stem = SACHIN_NAMES[name]
        yield f"{SACHIN_ROOT}/{folder}/{_numbered(stem, number)}.jpg", item.read(), item.source


def reupload(cohort: Cohort) -> Iterator[File]:
    """sachinkumar413's files twice: `train` and `test` are the same, byte for byte."""
    for part in ("train", "test"):
        for name, item, number in _sachin_order(cohort):
            stem = SACHIN_NAMES[name][1]
            path = f"{TOURIST_ROOT}/{part}/{name}/{_numbered(stem, number)}.jpg"
            yield path, item.read(), item.source


def uraninjo(cohort: Cohort) -> Iterator[File]:
    """The originals, and altered copies of each until the classes are about equal."""
    rng = cohort.random("uraninjo")
    largest = max(len(slices) for slices in cohort.slices.values())
    for name, slices in cohort.slices.items():
        copies = min(MOST_COPIES, COPIES_OF_LARGEST * largest // max(len(slices), 1))
        for item in slices:
            data = item.read()
            yield f"OriginalDataset/{name}/{_uuid(item, 0)}.jpg", data, item.source
            with Image.open(io.BytesIO(data)) as image:
                image.load()
            for copy in range(1, copies + 1):
                altered = encode_jpeg(_alter(image, rng), JPEG_QUALITY)
                path = f"AugmentedAlzheimerDataset/{name}/{_uuid(item, copy)}.jpg"
                yield path, altered, item.source


FOLDER_LAYOUTS: dict[str, Callable[[Cohort], Iterator[File]]] = {
    "folders": class_folders,
    "tourist55": tourist55,
    "sachinkumar413": sachinkumar413,
    "reupload": reupload,
    "uraninjo": uraninjo,
    "tumour": tumour_files,
}
LAYOUTS = (*FOLDER_LAYOUTS, "tfrecords")


def export(phantom: Path, layout: str, out: Path) -> Sources:
    """Writes a phantom in a public layout, and nothing else.

    Args:
        phantom: folder of a generated cohort.
        layout: one of `LAYOUTS`.
        out: folder to write; absent or empty.

    Returns:
        {path relative to `out`: (subject id, slice index)}; a record of a TFRecord file has the
        path `<file>#<number>`, counted from 0.

    Raises:
        LayoutError: the layout is unknown, or `out` is not an empty folder.
        SpecError: `phantom` is not a generated cohort.
    """
    if layout not in LAYOUTS:
        raise LayoutError(f"Layout must be one of {', '.join(LAYOUTS)}. Received: {layout!r}.")
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise LayoutError(f"Export needs an empty or absent folder. Received: {out}, not empty.")
    cohort = read_cohort(Path(phantom))
    out.mkdir(parents=True, exist_ok=True)
    if layout == "tfrecords":
        return write_records(cohort, out)
    sources: Sources = {}
    for name, data, source in FOLDER_LAYOUTS[layout](cohort):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sources[name] = source
    return sources


def _cut(count: int) -> int:
    """Length of tourist55's training part: 80 %, rounded up (2560, 1792, 717, 52)."""
    return -(-4 * count // 5)


def _tourist_train(name: str, index: int) -> str:
    return f"{TOURIST_ROOT}/train/{name}/{TOURIST_PREFIX[name]}{index}.jpg"


def _sachin_order(cohort: Cohort) -> Iterator[tuple[str, Slice, int]]:
    for name, slices in cohort.slices.items():
        cut = _cut(len(slices))
        for number, item in enumerate([*slices[cut:], *slices[:cut]], 1):
            yield name, item, number


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}_{number}"


def _uuid(item: Slice, copy: int) -> uuid.UUID:
    """A name that tells nothing, yet is the same in every export."""
    subject, number = item.source
    digest = sha256(f"{subject}/{number}/{copy}".encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _alter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirrors, turns, zooms and relights an image a little."""
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = image.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
    inset = rng.uniform(0, 0.06) * image.width
    box = (inset, inset, image.width - inset, image.height - inset)
    image = image.resize(image.size, Image.Resampling.BILINEAR, box)
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.15))
