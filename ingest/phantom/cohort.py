"""Many subjects on disk, in a cache that is keyed by content and never half written."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest.phantom.latents import Latents
from ingest.phantom.spec import GENERATOR_VERSION, PhantomSpec, SpecError
from ingest.phantom.subject import MASKS, Subject, render_subject
from schema.features import ALZHEIMER_CLASSES, ALZHEIMER_SEVERITY

MANIFEST, TRUTH, IMAGES = "phantom.json", "truth.npz", "images"
PIXELS_PER_WORKER = 2**22  # about a second's work; for less, starting a process does not pay

Progress = Callable[[int, int], None]


class SubjectTruth(NamedTuple):
    """What `truth.npz` keeps of one subject; masks are bits, see `Truth.mask`."""

    id: str
    label: int
    site: int
    latents: Latents
    vbr: np.ndarray
    sulcal: np.ndarray
    masks: dict[str, np.ndarray]


class Truth(NamedTuple):
    """Ground truth of a cohort of S subjects with Z slices, read from `truth.npz`.

    Attributes:
        ids: str[S], in order of index; the file of slice k is `<id>_slice<k>.jpg`.
        labels: int64[S], index into `ALZHEIMER_CLASSES`.
        sites: int64[S].
        latents: float64[S, 4], columns as in `Latents`.
        vbr, sulcal: float64[S, Z], area fractions aimed at.
        positions: float64[Z], places of the slices in the stack of 32.
        size: pixels of the image's side.
        bits: per mask uint8[S, Z, ceil(size² / 8)].
    """

    ids: np.ndarray
    labels: np.ndarray
    sites: np.ndarray
    latents: np.ndarray
    vbr: np.ndarray
    sulcal: np.ndarray
    positions: np.ndarray
    size: int
    bits: dict[str, np.ndarray]

    def mask(self, name: str, index: int) -> np.ndarray:
        """One subject's mask, lying in the images: bool[Z, size, size].

        Args:
            name: hull, ventricles, sulci or hippocampus.
            index: the subject's.
        """
        flat = np.unpackbits(self.bits[name][index], axis=1, count=self.size**2)
        return flat.reshape(-1, self.size, self.size).astype(bool)


def generate(
    spec: PhantomSpec, cache: Path, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Writes a cohort, unless the cache holds it already.

    Layout: `images/<Class>/subj0001_slice00.jpg`, `truth.npz` (see `load_truth`), `phantom.json`.
    The files are the same bytes whatever the number of workers. Work goes on in a hidden sibling
    that is renamed at the end; callers that ask for the same cohort at once wait for one another.

    Args:
        spec: what to generate.
        cache: folder of all cohorts; made if absent.
        workers: processes; None picks one per core, or fewer for little work. Processes are
            spawned, so a script that asks for several needs the usual `__main__` guard.
        progress: called with subjects done and subjects in all.

    Returns:
        `<cache>/<fingerprint>`.

    Raises:
        SpecError: `workers` is below 1.
    """
    if workers is not None and workers < 1:
        raise SpecError(f"Phantom workers must be 1 or more, or None. Received: workers={workers}.")
    final = Path(cache) / spec.fingerprint()
    if (final / MANIFEST).is_file():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.parent / f".{final.name}.lock"):
        if (final / MANIFEST).is_file():
            return final
        partial_folder = final.parent / f".{final.name}.partial"
        shutil.rmtree(partial_folder, ignore_errors=True)  # left by a run that was killed
        try:
            _write_cohort(spec, partial_folder, workers or _default_workers(spec), progress)
            partial_folder.rename(final)
        except BaseException:
            shutil.rmtree(partial_folder, ignore_errors=True)
            raise
    return final


def load_spec(folder: Path) -> PhantomSpec:
    """Reads the spec of a generated cohort.

    Raises:
        SpecError: the folder is not one.
    """
    manifest = Path(folder) / MANIFEST
    if not manifest.is_file():
        raise SpecError(
            f"No phantom in {folder}: {MANIFEST} is missing. "
            "Pass the folder that `phantom generate` printed."
        )
    return PhantomSpec.from_dict(json.loads(manifest.read_text())["spec"])


def load_truth(folder: Path) -> Truth:
    """Reads the ground truth of a generated cohort.

    Raises:
        SpecError: the folder is not one.
    """
    spec = load_spec(folder)
    with np.load(Path(folder) / TRUTH, allow_pickle=False) as file:
        columns = {name: file[name] for name in Truth._fields if name not in ("size", "bits")}
        return Truth(**columns, size=spec.size, bits={name: file[name] for name in MASKS})


def file_name(subject_id: str, slice_index: int) -> str:
    """Name of a slice's file in its class's folder."""
    return f"{subject_id}_slice{slice_index:02d}.jpg"


def _write_cohort(spec: PhantomSpec, folder: Path, workers: int, progress: Progress | None) -> None:
    for name in ALZHEIMER_CLASSES:
        (folder / IMAGES / name).mkdir(parents=True)
    truths = []
    write = partial(_write_subject, spec, folder / IMAGES)
    with _mapper(min(workers, len(spec))) as run:
        for truth in run(write, range(len(spec))):
            truths.append(truth)
            if progress is not None:
                progress(len(truths), len(spec))
    columns = {
        "ids": np.array([truth.id for truth in truths]),
        "labels": np.array([truth.label for truth in truths]),
        "sites": np.array([truth.site for truth in truths]),
        "latents": np.array([truth.latents for truth in truths]),
        "vbr": np.stack([truth.vbr for truth in truths]),
        "sulcal": np.stack([truth.sulcal for truth in truths]),
        "positions": spec.positions,
    }
    masks = {name: np.stack([truth.masks[name] for truth in truths]) for name in MASKS}
    np.savez_compressed(folder / TRUTH, **columns, **masks)
    manifest = {
        "what": "Synthetic brain phantom. No person's data. Research use only, not for diagnosis.",
        "generator": GENERATOR_VERSION,
        "fingerprint": spec.fingerprint(),
        "spec": spec.to_dict(),
        "classes": ALZHEIMER_CLASSES,
        "severity": ALZHEIMER_SEVERITY,
        "latents": Latents._fields,
        "masks": MASKS,
        "images": len(spec) * spec.slices,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _write_subject(spec: PhantomSpec, folder: Path, index: int) -> SubjectTruth:
    subject = render_subject(spec, index)
    for number, data in enumerate(subject.encoded):
        (folder / subject.class_name / file_name(subject.id, number)).write_bytes(data)
    return _truth_of(subject)


def _truth_of(subject: Subject) -> SubjectTruth:
    masks = {
        name: np.packbits(mask.reshape(len(mask), -1), axis=1)
        for name, mask in subject.masks.items()
    }
    return SubjectTruth(
        subject.id,
        subject.label,
        subject.site,
        subject.latents,
        subject.vbr,
        subject.sulcal,
        masks,
    )


def _default_workers(spec: PhantomSpec) -> int:
    pixels = len(spec) * spec.slices * spec.size**2
    return max(1, min(len(os.sched_getaffinity(0)), pixels // PIXELS_PER_WORKER))


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable]:
    """An ordered `map`: the built-in one, or one over processes that a failure stops at once."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: the caller may have TensorFlow's threads, which a fork would not copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield pool.map
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that the kernel releases when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
