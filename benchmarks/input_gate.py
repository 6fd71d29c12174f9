"""What admission costs an image, and what the gate lets through and refuses.

Run: `python -m benchmarks.input_gate [FOLDER]`, with one folder per class and files named
`SUBJECT_slice….jpg`; phantoms without it. One core. CPU time, medians. Goals: describing one image
takes ≤ 0.5 ms, each of fifty ≤ 0.2 ms; unseen people's images are refused in ≤ 1 %, upside-down
brains in ≥ 95 %.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ingest.phantom import PhantomSpec, generate
from schema.descriptors import describe, measure
from serving.admission import Admission
from serving.config import Limits
from trainer.input_gate import InputGate
from trainer.input_gate_fit import fit_and_measure

REPEATS = 100
SPLITS = 5


def milliseconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return 1000 * statistics.median(taken)


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    files = sorted(folder.glob("*/*.jpg"))
    images = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
    return images, np.array([file.name.split("_")[0] for file in files])


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def speed(images: np.ndarray, gate: InputGate) -> None:
    fifty = list(images[:50])
    files = [png(image) for image in fifty]
    known = measure(images[:1])
    with_gate = Admission(Limits(), 1, gate)
    bare = Admission(Limits(), 1, describe=False)
    print(f"ms of CPU, {images.shape[1]} px           one    each of fifty")
    for name, one, many in (
        ("describe", lambda: describe(fifty[:1]), lambda: describe(fifty)),
        ("judge", lambda: gate.judge(*known), lambda: gate.judge(*measure(fifty))),
        ("decode", lambda: bare.admit(files[:1]), lambda: bare.admit(files)),
        ("admit", lambda: with_gate.admit(files[:1]), lambda: with_gate.admit(files)),
    ):
        each = milliseconds(many, 20) / 50
        note = "  (with describe)" if name == "judge" else ""
        print(f"{name:22s} {milliseconds(one):7.3f} {each:12.3f}{note}")


def detection(images: np.ndarray, subjects: np.ndarray) -> InputGate:
    people = np.unique(subjects)
    reports = []
    for seed in range(SPLITS):
        unseen = np.isin(
            subjects, np.random.default_rng(seed).permutation(people)[: int(0.4 * len(people))]
        )
        start = time.process_time()
        gate = fit_and_measure(images[~unseen], subjects[~unseen], images[unseen])
        seconds = time.process_time() - start
        reports.append(gate.report["held_out"])
    print(
        f"\n{len(people)} people × {len(images) // len(people)} slices, {SPLITS} splits by person"
    )
    print(f"fitted and measured in {seconds:.1f} s of CPU")
    refused = [report["false_rejection"] for report in reports]
    print(f"unseen people refused: mean {np.mean(refused):.2%}, most {max(refused):.2%}")
    print(f"\n{'family':12s} {'caught':>8s} {'least':>8s} {'AUROC':>8s} {'FPR95':>8s}")
    for name in reports[0]["families"]:
        rows = [report["families"][name] for report in reports]
        caught, auroc, fpr95 = ([row[key] for row in rows] for key in ("caught", "auroc", "fpr95"))
        print(
            f"{name:12s} {np.mean(caught):8.1%} {min(caught):8.1%} {np.mean(auroc):8.4f} "
            f"{np.mean(fpr95):8.2%}"
        )
    return gate


def main() -> None:
    """Prints both tables."""
    if len(sys.argv) > 1:
        images, subjects = read(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            spec = PhantomSpec("standard", (60, 60, 60, 60), 8, 64)
            images, subjects = read(generate(spec, Path(folder), workers=1) / "images")
    gate = detection(images, subjects)
    print()
    speed(images, gate)


if __name__ == "__main__":
    main()
