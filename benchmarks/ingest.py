"""What ingest, ExampleGen and StatisticsGen cost beside stock TFX, from 1,000 to 16,000 images.

For each size, each in a process of its own so that its peak is its own: our import of the image
files, then ImageExampleGen (which describes every image) and StatisticsGen; and on the very same
spans TFX's own ImportExampleGen and StatisticsGen, which see bytes only. The source is copies of a
few pictures with some pixels changed, so that none is a duplicate. Time should be linear; memory
flat for ingest, and the same as stock's for the nodes (Beam's in-process runner keeps a bundle's
elements in memory).

    python -m benchmarks.ingest
    python -m benchmarks.ingest --sizes 1000 4000
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIZES = (1000, 4000, 16000)
SLICES = 32
SIDE = 128


def write_source(folder: Path, count: int) -> None:
    """Writes `count` smooth 128×128 JPEGs, 32 per person, in two classes."""
    rng = np.random.default_rng(0)
    pictures = gaussian_filter(rng.standard_normal((64, SIDE, SIDE)), (0, 6, 6))
    pictures = (255 * (pictures - pictures.min()) / np.ptp(pictures)).astype(np.uint8)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        person, position = divmod(index, SLICES)
        pixels = pictures[index % 64].copy()
        bits = np.unpackbits(np.frombuffer(index.to_bytes(4, "big"), np.uint8))
        pixels[:2, :16] = bits.reshape(2, 16) * 200
        file = folder / "ab"[person % 2] / f"subj{person:04d}_slice{position:02d}.jpg"
        Image.fromarray(pixels).save(file, quality=90)


def import_images(source: str, out: str) -> Callable[[], None]:
    """Our import of image files."""
    import apache_beam  # noqa: F401  five seconds whatever the size

    import ingest

    return lambda: ingest.import_dataset(source, out, subject_regex=r"(subj\d+)")


def our_nodes(dataset: str, root: str) -> Callable[[], None]:
    """ImageExampleGen and StatisticsGen."""
    from components.image_example_gen import ImageExampleGen
    from pipeline.facts import read_facts

    return _nodes(ImageExampleGen(dataset, read_facts(Path(dataset)).to_json()), root)


def stock_nodes(dataset: str, root: str) -> Callable[[], None]:
    """ImportExampleGen and StatisticsGen, as TFX ships them."""
    from tfx.components.example_gen.import_example_gen.component import ImportExampleGen
    from tfx.proto.example_gen_pb2 import Input

    from schema.features import SPLITS

    splits = [Input.Split(name=name, pattern=f"span-{{SPAN}}/{name}/data-*") for name in SPLITS]
    return _nodes(ImportExampleGen(dataset, input_config=Input(splits=splits)), root)


def _nodes(example_gen, root: str) -> Callable[[], None]:
    import tensorflow_data_validation  # noqa: F401  ten seconds whatever the size
    from tfx.components.statistics_gen.component import StatisticsGen
    from tfx.orchestration import metadata
    from tfx.orchestration.pipeline import Pipeline

    from pipeline import local_runner
    from pipeline.config import BEAM_IN_PROCESS

    Path(root).mkdir()
    pipeline = Pipeline(
        "benchmark",
        root,
        components=[example_gen, StatisticsGen(examples=example_gen.outputs["examples"])],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/mlmd.db"),
        beam_pipeline_args=list(BEAM_IN_PROCESS),
    )
    return lambda: local_runner.run(pipeline, lambda event: None)


STEPS = {"ingest": import_images, "ours": our_nodes, "stock": stock_nodes}


def measure(step: str, source: str, out: str) -> dict[str, float]:
    """Seconds of one step without its imports, and MiB at the peak and before."""
    work = STEPS[step](source, out)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "base": base, "peak": peak}


def apart(step: str, source: Path, out: Path) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--step", step, str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(*options.step)))
        return
    print("images/s, and MiB at the peak (over what the imports take)")
    titles = ("ingest", "our nodes", "stock nodes", "all of ours / stock")
    print(f"{'images':>8}" + "".join(f"{title:>24}" for title in titles))
    for count in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            source, dataset = Path(folder, "source"), Path(folder, "dataset")
            write_source(source, count)
            found = [
                apart("ingest", source, dataset),
                apart("ours", dataset, Path(folder, "ours")),
                apart("stock", dataset, Path(folder, "stock")),
            ]
        cells = [
            f"{count / s['seconds']:.0f}/s {s['peak']:.0f} (+{s['peak'] - s['base']:.0f})"
            for s in found
        ]
        ratio = (found[0]["seconds"] + found[1]["seconds"]) / found[2]["seconds"]
        print(f"{count:>8}" + "".join(f"{c:>24}" for c in [*cells, f"{ratio:.2f}×"]), flush=True)


if __name__ == "__main__":
    main()
