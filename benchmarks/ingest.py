"""How ingest grows from 1,000 to 16,000 images: images per second and peak memory.

Each size is imported in a process of its own, so that its peak is its own. The source is copies of
a few pictures with a number drawn into a corner, so that none is a duplicate. Time should grow as
the images, memory by a few kilobytes of book-keeping per image, never by the images.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --sizes 1000 4000 --beam-option=--direct_num_workers=2
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

# This file is called as the package it measures, and its folder comes first on the path.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

SIZES = (1000, 2000, 4000, 8000, 16000)
SLICES = 32
SIDE = 128


def write_source(folder: Path, count: int) -> None:
    """Writes `count` smooth 128×128 JPEGs of 32 per person in two classes."""
    rng = np.random.default_rng(0)
    pictures = gaussian_filter(rng.standard_normal((64, SIDE, SIDE)), (0, 6, 6))
    pictures = (255 * (pictures - pictures.min()) / np.ptp(pictures)).astype(np.uint8)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        person, position = divmod(index, SLICES)
        pixels = pictures[index % 64].copy()
        pixels[:2, :16] = (
            np.unpackbits(np.frombuffer(index.to_bytes(4, "big"), np.uint8))[:, None].reshape(2, 16)
            * 200
        )
        file = folder / "ab"[person % 2] / f"subj{person:04d}_slice{position:02d}.jpg"
        Image.fromarray(pixels).save(file, quality=90)


def measure(source: str, out: str, options: list[str]) -> dict[str, float]:
    """Imports in this process; seconds without Beam's own import, and MiB at the peak."""
    import apache_beam  # noqa: F401  five seconds whatever the size

    import ingest

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    dataset = ingest.import_dataset(source, out, subject_regex=r"(subj\d+)", beam_options=options)
    seconds = time.perf_counter() - start
    report = dataset.report()
    assert not report.quarantined
    assert not report.set_aside
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "base_mib": base, "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--beam-option", action="append", default=[])
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.beam_option)))
        return
    print(f"{'images':>8} {'seconds':>9} {'images/s':>9} {'peak MiB':>9} {'over base':>10}")
    for count in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder, "source"), Path(folder, "out")
            write_source(source, count)
            command = [sys.executable, __file__, "--one", str(source), str(out)]
            command += [f"--beam-option={option}" for option in options.beam_option]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{count:>8} {found['seconds']:>9.1f} {count / found['seconds']:>9.0f} "
            f"{found['peak_mib']:>9.0f} {found['peak_mib'] - found['base_mib']:>10.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
