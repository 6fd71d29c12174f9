"""Phantom generation against its calibrated prototype: speed, and that the statistics are the same.

    python -m benchmarks.phantom [--subjects 16]

Both run on one core, at 128 px × 32 slices, JPEG included, on the same latents. Times are CPU time,
so that other work on the machine does not count. The prototype stands beside the repository; where
it is absent only this generator is measured.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ingest.phantom import PhantomSpec, render_subject
from schema.features import ALZHEIMER_SEVERITY

PROTOTYPE = Path(__file__).resolve().parents[2] / "shared" / "prototype" / "phantom.py"
CLASSES = len(ALZHEIMER_SEVERITY)


class Scan(NamedTuple):
    """A subject as both generators can give it; masks are bool[Z, size, size]."""

    stage: int
    images: np.ndarray
    hull: np.ndarray
    ventricles: np.ndarray
    sulci: np.ndarray


def ours(spec: PhantomSpec) -> Iterator[Scan]:
    for index, (stage, _) in enumerate(spec.members()):
        subject = render_subject(spec, index)
        masks = subject.masks
        yield Scan(stage, subject.images, masks["hull"], masks["ventricles"], masks["sulci"])


def prototype(spec: PhantomSpec) -> Iterator[Scan]:
    loader = importlib.util.spec_from_file_location("phantom_prototype", PROTOTYPE)
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    for stage, rank in spec.members():
        number = rank * CLASSES + stage
        tissue, hull, ventricles, sulci, _, _ = module.volume(spec.seed, number, stage)
        yield Scan(stage, module.acquire(tissue, spec.seed, number), hull, ventricles, sulci)


def timed(generator: Callable[[PhantomSpec], Iterator[Scan]], spec: PhantomSpec):
    """All scans, and the median CPU seconds per subject; the first warms up and is made twice."""
    next(generator(spec))
    scans, seconds = [], []
    start = time.process_time()
    for scan in generator(spec):
        seconds.append(time.process_time() - start)
        scans.append(scan)
        start = time.process_time()
    return scans, float(np.median(seconds))


def statistics(scans: list[Scan]) -> dict[str, float]:
    """The figures that the phantom is calibrated on, and some of texture and shape."""
    rows: dict[str, float] = {}
    hulls = np.array([scan.hull.sum() for scan in scans], float)
    for title, name in (("VBR", "ventricles"), ("sulci / brain", "sulci")):
        areas = np.array([getattr(scan, name).sum() for scan in scans]) / hulls
        for stage, label in enumerate(ALZHEIMER_SEVERITY):
            rows[f"{title}, {label}"] = areas[[scan.stage == stage for scan in scans]].mean()
    fluid = np.array([(scan.ventricles.sum() + scan.sulci.sum()) for scan in scans]) / hulls
    ill = np.array([scan.stage > 0 for scan in scans])
    above = (fluid[ill][:, None] > fluid[~ill]).mean()
    rows["total-CSF baseline, AUC CDR 0 vs > 0"] = above
    profile = sum(scan.ventricles.sum((1, 2)) / scan.hull.sum((1, 2)) for scan in scans)
    profile = profile / profile.mean()
    for position in (0, 8, 16, 23, 31):
        rows[f"VBR profile at slice {position}"] = profile[position]
    vectors = np.stack([normalised(scan.images) for scan in scans])
    rows["NCC of adjacent slices"] = (vectors[:, 1:] * vectors[:, :-1]).sum(2).mean()
    between = np.einsum("azp,bzp->zab", vectors, vectors, optimize=True)
    others = ~np.eye(len(scans), dtype=bool)
    rows["NCC of other subjects, same slice"] = between[:, others].mean()
    rows["brain area / image"] = np.mean([scan.hull.mean() for scan in scans])
    rows["brain area, CV between subjects"] = hulls.std() / hulls.mean()
    rows["sulcal half-width, px"] = np.mean([half_width(scan.sulci) for scan in scans])
    inside = [scan.images[scan.hull].astype(float) for scan in scans]
    for share in (5, 25, 50, 75, 95):
        rows[f"grey level, {share} % quantile"] = np.mean([np.percentile(i, share) for i in inside])
    rows["high-frequency noise / white"] = np.mean([grain(scan) for scan in scans])
    return rows


def normalised(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def half_width(mask: np.ndarray) -> float:
    """Mean distance of a mask's pixels to its outside, in the plane."""
    return float(np.mean([ndimage.distance_transform_edt(m)[m].mean() for m in mask if m.any()]))


def grain(scan: Scan) -> float:
    """Spread of the Laplacian in the brightest half of the brain, as noise per white matter."""
    image = scan.images.astype(float)
    laplacian = 4 * image
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        laplacian -= np.roll(image, step, axis)
    calm = scan.hull & (
        ndimage.minimum_filter(image, (1, 5, 5)) > np.median(image[scan.hull]) * 0.9
    )
    spread = 1.4826 * np.median(np.abs(laplacian[calm])) / np.sqrt(20)
    return spread / np.percentile(image[scan.hull], 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=16, help="of each class")
    per_class = parser.parse_args().subjects
    spec = PhantomSpec("realistic", (per_class,) * CLASSES, slices=32, size=128)
    scans, seconds = timed(ours, spec)
    table = statistics(scans)
    print(f"this generator   {spec.slices / seconds:7.1f} images/s  {seconds:.3f} s per subject")
    if PROTOTYPE.is_file():
        old_scans, old_seconds = timed(prototype, spec)
        old = statistics(old_scans)
        print(f"prototype        {spec.slices / old_seconds:7.1f} images/s  {old_seconds:.3f} s")
        print(f"ratio            {old_seconds / seconds:7.2f} ×")
    else:
        old = dict.fromkeys(table, float("nan"))
        print("prototype        absent")
    print(f"\n{'':38}{'here':>10}{'prototype':>11}")
    for name, value in table.items():
        print(f"{name:38}{value:10.4f}{old[name]:11.4f}")
    print()
    for size, slices in ((64, 8), (128, 32), (224, 32)):
        spec = PhantomSpec("realistic", (3, 3, 3, 3), slices=slices, size=size)
        _, seconds = timed(ours, spec)
        print(f"{size:3} px × {slices:2} slices  {seconds:.4f} s per subject per core")


if __name__ == "__main__":
    main()
