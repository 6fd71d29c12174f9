"""What the checks that stand between data, model and use cost, and how it grows.

    python -m benchmarks.gate
    python -m benchmarks.gate leakage bootstrap drift

`leakage`: N images that train against N that test, at 64 pixels: decoding both sides (128-pixel
JPEGs in GZIP TFRecords), the three layers of the check, and beside them the plain product of the
same vectors, `a @ b.T`, whose matrix the check never holds. "Leaking" is the worst case: the test
images are those of train. Goal: 6,400 × 6,400 within 20 s and 2 GiB on two cores.

`bootstrap`: intervals of macro AUC, each class's AUC, balanced accuracy and Brier score of S people
of 32 slices in four classes from 1,000 and 2,000 resamples: of people by their mean answers
("people"), of people with all their slices ("clusters"), and, for macro AUC alone, of slices as if
each were a person ("rows"). Goal: 1,000 resamples of 200 people within 5 s.

`drift`: S people of 8 slices against S others, 22 descriptors and the label, from 2,499, 9,999 (the
default) and 39,999 permutations of people.

Every figure is the best of three, in a process of its own so that its peak of memory is its own.
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

REPEATS = 3
IMAGES = (1600, 3200, 6400)  # on each side
SIDE = 64  # pixels correlated
STORED = 128  # pixels of a file
PEOPLE = (50, 200, 800)  # of a test split
SLICES, CLASSES = 32, 4
WINDOWS = (50, 100, 200, 400)  # people on each side of a comparison
WINDOW_SLICES = 8

Step = Callable[[int], Callable[[], object]]  # a size → the work to be timed


def leakage() -> None:
    """Prints seconds and MiB of decoding, checking and the plain product for each size."""
    print("leakage: N images that train against N that test; seconds, of the cores together in")
    print("brackets, and MiB at the peak over what the imports take")
    titles = ("decode 2 N", "check, clean", "check, leaking", "a @ b.T", "clean / a @ b.T")
    print(f"{'N':>6}" + "".join(f"{title:>20}" for title in titles))
    for count in IMAGES:
        names = ("decode", "check_clean", "check_leaking", "product")
        found = [measured(name, count) for name in names]
        cells = [f"{each['seconds']:.2f} ({each['cpu']:.1f}) {each['mib']:.0f}" for each in found]
        ratios = (found[1][kind] / found[3][kind] for kind in ("seconds", "cpu"))
        cells.append("{:.2f}× ({:.2f}×)".format(*ratios))
        print(f"{count:>6}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def decode(count: int) -> Callable[[], object]:
    """Decoding both sides; a few smooth pictures stand in for slices."""
    import io

    import pyarrow  # noqa: F401  a second whatever the size
    from PIL import Image
    from scipy.ndimage import gaussian_filter
    from tfx_bsl.coders import example_coder  # noqa: F401

    from components.records import decoded
    from ingest.records import encode_example, write_records

    pictures = gaussian_filter(np.random.default_rng(0).standard_normal((64, STORED, STORED)), 5)
    pictures = (255 * (pictures - pictures.min()) / np.ptp(pictures)).astype(np.uint8)
    encoded = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    folder = tempfile.TemporaryDirectory()  # goes when the work that reads it does
    place = Path(folder.name, "data-0.gz")
    write_records(
        place,
        (
            encode_example({"image": encoded[row % 64], "label": 0, "subject_id": b"%d" % row})
            for row in range(count)
        ),
    )
    return lambda: [decoded(f"{folder.name}/*", SIDE) for _ in ("train", "test")]


def _thumbnails(count: int, seed: int) -> np.ndarray:
    """Noise: the work does not depend on the content while nothing is found."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE), np.uint8)


def _check(count: int, *seeds: int) -> Callable[[], object]:
    from evaluation import leakage as leaks
    from evaluation.config import LeakageSettings
    from evaluation.leakage_pairs import SplitImages

    splits = {}
    for split, seed in zip(("train", "test"), seeds, strict=True):
        subjects = np.char.add(f"{split}-{seed}-", (np.arange(count) // 32).astype(str))
        digests = np.char.add(f"{seed:032d}", np.char.zfill(np.arange(count).astype(str), 32))
        splits[split] = SplitImages(
            digests=digests,
            thumbnails=_thumbnails(count, seed),
            subjects=subjects,
            labels=np.zeros(count, np.int64),
            slice_index=np.arange(count) % 32,
            sources=digests,
            sides=np.full(count, STORED),
        )
    return lambda: leaks.check(splits, LeakageSettings(image_size=SIDE))


def check_clean(count: int) -> Callable[[], object]:
    """All three layers, which find nothing."""
    return _check(count, 0, 1)


def check_leaking(count: int) -> Callable[[], object]:
    """All three layers, where every image stands on both sides."""
    return _check(count, 0, 0)


def product(count: int) -> Callable[[], object]:
    """The whole matrix of correlations at once, of vectors that are ready."""
    from evaluation.leakage_search import unit_vectors

    a, b = (unit_vectors(_thumbnails(count, seed)) for seed in (0, 1))
    return lambda: a @ b.T


def bootstrap() -> None:
    """Prints seconds and MiB of the intervals at each number of people."""
    print(f"bootstrap: S people of {SLICES} slices; s (MiB over what the imports take)")
    names = ("people_1000", "people_2000", "clusters_1000", "clusters_2000", "rows_1000")
    print(f"{'S':>6}" + "".join(f"{name.replace('_', ', '):>18}" for name in names))
    for count in PEOPLE:
        found = [measured(name, count) for name in names]
        cells = [f"{each['seconds']:.2f} ({each['mib']:.0f})" for each in found]
        print(f"{count:>6}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def _answers(people: int) -> tuple[np.ndarray, np.ndarray]:
    """True class of each person, int64[S], and answers about each slice, float64[S, 32, 4]."""
    rng = np.random.default_rng(0)
    labels = np.arange(people) % CLASSES
    logits = rng.standard_normal((people, 1, CLASSES)) + 1.5 * np.eye(CLASSES)[labels][:, None]
    raised = np.exp(logits + rng.standard_normal((people, SLICES, CLASSES)))
    return labels, raised / raised.sum(axis=2, keepdims=True)


def _intervals(people: int, resamples: int, *, slices: bool) -> Callable[[], object]:
    from evaluation import intervals
    from evaluation.weighted import Auc, Mean, People

    labels, answers = _answers(people)
    table = answers.reshape(-1, CLASSES) if slices else answers.mean(axis=1)
    each = SLICES if slices else 1
    truth, subjects = labels.repeat(each), np.arange(people).repeat(each)

    def work() -> object:
        who = People.of(truth, subjects)
        areas = [Auc.of(table[:, label], who, label) for label in range(CLASSES)]
        right = table.argmax(axis=1) == truth
        recalls = [Mean.of(right, who, truth == label) for label in range(CLASSES)]
        distance = np.square(table - np.eye(CLASSES)[truth]).sum(axis=1)
        targets = {
            "macro": intervals.average(areas),
            "balanced": intervals.average(recalls),
            "brier": intervals.average([Mean.of(distance, who)], top=2.0),
            **{str(label): intervals.average([area]) for label, area in enumerate(areas)},
        }
        return intervals.bootstrap(targets, who, resamples=resamples)

    return work


def people_1000(count: int) -> Callable[[], object]:
    """People by their mean answers."""
    return _intervals(count, 1000, slices=False)


def people_2000(count: int) -> Callable[[], object]:
    """Twice the resamples."""
    return _intervals(count, 2000, slices=False)


def clusters_1000(count: int) -> Callable[[], object]:
    """People with all their slices."""
    return _intervals(count, 1000, slices=True)


def clusters_2000(count: int) -> Callable[[], object]:
    """Twice the resamples."""
    return _intervals(count, 2000, slices=True)


def rows_1000(count: int) -> Callable[[], object]:
    """Slices as if each were a person; macro AUC alone."""
    from evaluation.intervals import row_bootstrap

    labels, answers = _answers(count)
    table, truth = answers.reshape(-1, CLASSES), labels.repeat(SLICES)
    return lambda: row_bootstrap(table, truth, range(CLASSES), resamples=1000)


def drift() -> None:
    """Prints seconds and MiB of one comparison at each number of people."""
    print("drift: S people against S others; seconds, of the cores together in brackets, and MiB")
    print("at the peak over what the imports take")
    names = ("dealt_2499", "dealt_9999", "dealt_39999")
    titles = [f"{int(name.split('_')[1]):,} times" for name in names]
    print(f"{'S':>6}" + "".join(f"{title:>18}" for title in titles))
    for count in WINDOWS:
        found = [measured(name, count) for name in names]
        cells = [f"{each['seconds']:.2f} ({each['cpu']:.2f}) {each['mib']:.0f}" for each in found]
        print(f"{count:>6}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def _comparison(people: int, permutations: int) -> Callable[[], object]:
    from evaluation.config import DriftSettings
    from evaluation.drift import compare
    from evaluation.histograms import Group
    from schema.descriptors import NAMES

    rng = np.random.default_rng(0)

    def group(name: str) -> Group:
        who = np.arange(people).repeat(WINDOW_SLICES)
        numeric = {
            descriptor: rng.standard_normal(people)[who] + rng.standard_normal(len(who))
            for descriptor in NAMES
        }
        ids = np.char.add(name, who.astype(str))
        return Group(name, ids, numeric, {"label": (who % CLASSES).astype(str)})

    sides = group("reference"), group("current")
    return lambda: compare(*sides, DriftSettings(permutations=permutations))


def dealt_2499(count: int) -> Callable[[], object]:
    """About the fewest permutations from which level .01 can be reached in 23 features."""
    return _comparison(count, 2499)


def dealt_9999(count: int) -> Callable[[], object]:
    """The default."""
    return _comparison(count, 9999)


def dealt_39999(count: int) -> Callable[[], object]:
    """Four times as many."""
    return _comparison(count, 39999)


def measured(step: str, count: int) -> dict[str, float]:
    """The best seconds of a step, and MiB at its peak over what it started from, on its own."""
    command = [sys.executable, "-m", "benchmarks.gate", "--step", step, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(step: str, count: int) -> None:
    """Child of `measured`."""
    imports = _peak()
    work = STEPS[step](count)
    seconds, cpu = [], []
    for _ in range(REPEATS):
        start, busy = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    print(json.dumps({"seconds": min(seconds), "cpu": min(cpu), "mib": _peak() - imports}))


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        decode,
        check_clean,
        check_leaking,
        product,
        people_1000,
        people_2000,
        clusters_1000,
        clusters_2000,
        rows_1000,
        dealt_2499,
        dealt_9999,
        dealt_39999,
    )
}
PARTS: dict[str, Callable[[], None]] = {"leakage": leakage, "bootstrap": bootstrap, "drift": drift}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all when left out")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        _run(options.step[0], int(options.step[1]))
        return
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
