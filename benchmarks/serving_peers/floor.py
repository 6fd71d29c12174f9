"""What a request costs where there is no server: the floor.

    python -m benchmarks.serving_peers.floor FOLDER REQUEST_BODY SECONDS

`call` is the interpreter alone, on the image as the network sees it. `work` is all that a request
takes without a server: JSON parsed, base64 and PNG decoded, resized and scaled, the interpreter,
the answer as JSON. Each on one thread, and on as many threads as there are cores, each thread with
an interpreter of its own. Prints one line of JSON.
"""

import base64
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson

from benchmarks.serving_peers import models
from serving import preprocessing

WARM = 20  # calls


def work(folder: Path, body: bytes) -> Callable[[], object]:
    """All of a request's work but the server's."""
    answer = models.litert(folder)

    def once() -> bytes:
        [instance] = orjson.loads(body)["instances"]
        [row] = answer([base64.b64decode(instance["b64"])])
        return orjson.dumps({"predictions": [{"probabilities": row.tolist()}]})

    return once


def call(folder: Path, body: bytes) -> Callable[[], object]:
    """The interpreter alone."""
    [instance] = json.loads(body)["instances"]
    pixels = preprocessing.decode(base64.b64decode(instance["b64"]), 1)
    image = preprocessing.preprocess(pixels, models.image_size(folder))[None]
    run = models.interpreter(folder)
    return lambda: run(image)


def measured(make: Callable[[], Callable[[], object]], threads: int, seconds: float) -> dict:
    """Milliseconds of a call (p50, p99), calls per second of all threads, CPU ms per call."""
    calls = [make() for _ in range(threads)]
    barrier = threading.Barrier(threads)
    times: list[list[float]] = [[] for _ in calls]
    spans: list[float] = [0.0] * threads

    def loop(index: int) -> None:
        once, own = calls[index], times[index]
        for _ in range(WARM):
            once()
        barrier.wait()
        start = last = time.perf_counter()
        while last < start + seconds:
            once()
            now = time.perf_counter()
            own.append(now - last)
            last = now
        spans[index] = last - start

    workers = [threading.Thread(target=loop, args=(index,)) for index in range(threads)]
    start = time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    used = time.process_time() - start
    count = sum(map(len, times))
    rate = sum(len(own) / span for own, span in zip(times, spans, strict=True))
    p50, p99 = 1e3 * np.percentile(np.concatenate(times), (50, 99))
    cpu = 1e3 * used / (count + WARM * threads)
    return {"p50": p50, "p99": p99, "rate": rate, "cpu": cpu, "errors": 0}


def main(folder: Path, body: bytes, seconds: float) -> None:
    cores = models.threads()
    found = {
        f"{name}, {threads} thread{'s' * (threads > 1)}": measured(
            lambda make=make: make(folder, body), threads, seconds
        )
        for name, make in (("call", call), ("work", work))
        for threads in dict.fromkeys((1, cores))
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), float(sys.argv[3]))
