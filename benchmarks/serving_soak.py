"""Does the server stay as it is? Minutes at 80 % of its capacity, memory looked at each second.

    python -m benchmarks.serving_soak                10 minutes
    python -m benchmarks.serving_soak --minutes 1

The capacity is what this very client gets with 32 connections that ask without a pause. Then
requests fall due by a Poisson process at a share of it, whatever the server does (an open loop);
latency counts from when a request was due. Memory is the server's resident set; the growth is that
of its median from the first fifth after the warm-up to the last one. The prediction log is written,
as in production.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import serving
from benchmarks.serving_peers import servers
from benchmarks.serving_peers.open_loop import Client
from benchmarks.serving_peers.session import Running

CONNECTIONS = 32
CAPACITY_SECONDS = 10.0
GOAL = 0.05  # growth
SAMPLE_SECONDS = 1.0


class Memory(threading.Thread):
    """Samples a server's memory."""

    def __init__(self, running: Running):
        super().__init__(daemon=True)
        self._running = running
        self._stopped = threading.Event()
        self.samples: list[tuple[float, float]] = []  # seconds since the start, MiB

    def run(self) -> None:
        start = time.perf_counter()
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.samples.append((time.perf_counter() - start, self._running.process.memory()))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def growth(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Median MiB of the first and of the last fifth.

    Raises:
        ValueError: there are fewer than five samples.
    """
    mib = [value for _, value in samples]
    part = len(mib) // 5
    if not part:
        raise ValueError(f"{len(mib)} samples of memory are too few. Ask for more minutes.")
    return statistics.median(mib[:part]), statistics.median(mib[-part:])


async def soak(running: Running, options: argparse.Namespace) -> dict[str, Any]:
    """Runs the load; what came of it."""
    client = Client(running.port, running.request)
    await client.connect(CONNECTIONS)
    capacity = await client.capacity(CAPACITY_SECONDS)
    rate = options.share * capacity
    print(f"capacity {capacity:,.0f}/s, asked {rate:,.0f}/s", file=sys.stderr, flush=True)
    await client.ask(rate, options.warm, seed=0)
    client.latencies.clear()
    memory, before = Memory(running), running.process.cpu()
    memory.start()
    start = time.perf_counter()
    await client.ask(rate, 60 * options.minutes, seed=1)
    seconds = time.perf_counter() - start
    memory.stop()
    client.close()
    first, last = growth(memory.samples)
    p50, p99, worst = 1e3 * np.percentile(client.latencies, (50, 99, 100))
    return {
        "capacity": capacity,
        "asked": rate,
        "answered": len(client.latencies) / seconds,
        "requests": len(client.latencies),
        "failed": client.failed,
        "p50": p50,
        "p99": p99,
        "max": worst,
        "cores": (running.process.cpu() - before) / seconds,
        "first": first,
        "last": last,
        "growth": last / first - 1,
        "samples": memory.samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--warm", type=float, default=30.0, help="seconds before memory counts")
    parser.add_argument("--share", type=float, default=0.8, help="of the capacity")
    parser.add_argument("--size", type=int, default=128, help="of the student, pixels")
    parser.add_argument("--no-input-gate", action="store_true")
    parser.add_argument("--registry", type=Path, help="serve its first model instead")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep made students there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all, with each sample")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        version = serving.version_of(options.size, options.registry, options.models or folder)
        gate = not options.no_input_gate
        server = servers.ours("litert", gate=gate, prediction_log=folder / "log")
        running = Running(server, version, serving.images(), folder)
        try:
            found = asyncio.run(soak(running, options))
        finally:
            running.process.stop()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(
        f"{options.minutes:g} minutes at {found['asked']:,.0f}/s ({options.share:.0%} of "
        f"{found['capacity']:,.0f}/s): {found['requests']:,} answers, {found['failed']} failed; "
        f"p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms, longest {found['max']:.0f} ms; "
        f"{found['cores']:.2f} cores"
    )
    met = abs(found["growth"]) <= GOAL
    print(
        f"{'met' if met else 'NOT MET'}: memory {found['first']:.1f} → {found['last']:.1f} MiB, "
        f"{found['growth']:+.1%} (within {GOAL:.0%})"
    )
    if found["failed"] or not met:
        sys.exit(1)


if __name__ == "__main__":
    main()
