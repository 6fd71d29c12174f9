"""The server against its peers and against its floor, on the same student and the same image.

Servers: ours with the student's LiteRT int8 file, input gate off and on, and with its SavedModel;
kserve, litserve and Triton (pytriton) with both; and TF Serving's REST protocol on what TFX pushes.
Every request holds one 128 × 128 PNG. How each peer is set is told in benchmarks/serving_peers/.
The floor is the interpreter called in process, and all of a request's work without a server.

All servers must give the same probabilities before they are timed. Then they take turns in each
round, so that the machine's drift hits all alike, and those whose turn it is not are stopped
(SIGSTOP). wrk asks, on the same cores: what it takes, all servers lack alike.

    make serve-env                        once: the peers, in .serve-env; else they are skipped
    python -m benchmarks.serving          an hour
    python -m benchmarks.serving --quick  a minute or two, one size, no goals
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving_peers import report, servers, session
from benchmarks.serving_peers.models import image_size
from benchmarks.serving_peers.servers import Server, Version

SIZES = (64, 128)
WHO = ("ours", "kserve", "litserve", "triton", "tfx")


def chosen(who: list[str], environment: Path) -> list[Server]:
    """The servers of a run, those to be compared beside each other."""
    python = environment / "bin" / "python"
    found = [
        servers.ours("litert"),
        servers.ours("litert", gate=True),
        servers.kserve("litert", python),
        servers.litserve("litert", python),
        servers.triton("litert", python),
        servers.ours("savedmodel"),
        servers.kserve("savedmodel", python),
        servers.litserve("savedmodel", python),
        servers.triton("savedmodel", python),
        servers.tfx(python),
    ]
    return [server for server in found if server.whose in who]


def version_of(size: int, registry: Path | None, models: Path) -> Version:
    """The live version of a registry, else a student made for this."""
    from registry import serving_config

    if registry is None:
        registry = models / str(size)
        if not (registry / "models.config").exists():
            module = "benchmarks.serving_peers.export"
            command = [sys.executable, "-m", module, str(registry), servers.MODEL, str(size)]
            environment = os.environ | session.QUIET
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
            if done.returncode:
                sys.exit(f"The student could not be made: {done.stderr.strip()[-2000:]}")
    [config, *_] = serving_config.parse((registry / "models.config").read_text())
    live = serving_config.traffic(config).live
    return Version(registry, config.name, Path(config.base_path) / str(live))


def images() -> list[bytes]:
    """Two phantom slices of 128 × 128 pixels as PNG files, of those that trained the student."""
    from benchmarks.serving_peers.export import SLICES, people
    from serving import preprocessing

    middle = [subject.images[SLICES // 2] for subject in people(4)]
    return [preprocessing.encode(middle[0]), preprocessing.encode(middle[-1])]


def compare(size: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures all servers on a student of one size."""
    version = version_of(size, options.registry, options.models or folder)
    asked = images()
    found, ready, missing = session.start(
        chosen(options.who, options.environment), version, asked, folder, options.starts, tell
    )
    try:
        if not found:
            sys.exit(f"No server answers: {missing}")
        session.check(found)
        tell("all servers give the same answers")
        seconds, rounds = options.seconds, options.rounds
        rows = session.measure(found, version, folder, rounds, seconds, tell)
        # A peer that load has broken keeps its rows, with a word; ours must stand.
        broken = session.complaints(found)
        for name, told in broken.items():
            tell(f"after the load, {name}: {told}")
        missing |= {f"{name}, after the load": told for name, told in broken.items()}
    finally:
        for running in found:
            running.process.stop()
    return {
        "size": image_size(version.folder),
        "cores": len(os.sched_getaffinity(0)),
        "body": len(servers.tf_serving(asked[0], version.model).body),
        "rounds": rounds,
        "seconds": seconds,
        "rows": rows,
        "ready": ready,
        "missing": missing,
    }


def tell(line: str) -> None:
    """Progress goes beside the tables."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--who", nargs="+", choices=WHO, default=list(WHO))
    parser.add_argument("--sizes", nargs="+", type=int, default=None, help="of the student, pixels")
    parser.add_argument("--registry", type=Path, help="serve its first model instead")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep made students there")
    parser.add_argument("--environment", type=Path, default=Path(".serve-env"), help="of the peers")
    parser.add_argument("--rounds", type=int, default=None, help="5")
    parser.add_argument("--seconds", type=float, default=None, help="of each measurement: 5")
    parser.add_argument("--starts", type=int, default=None, help="to measure time to ready: 3")
    parser.add_argument("--quick", action="store_true", help="one size, round and start, 2 s each")
    parser.add_argument("--markdown", action="store_true", help="tables for README.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not on PATH. It asks the servers: install it (Debian: apt install wrk).")
    quick = options.quick
    options.rounds = options.rounds or (1 if quick else 5)
    options.seconds = options.seconds or (2.0 if quick else 5.0)
    options.starts = options.starts or (1 if quick else 3)
    sizes = options.sizes or (SIZES[-1:] if quick else SIZES)
    if options.registry:
        sizes = [0]  # whatever the version's is
    documents = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            documents.append(compare(size, options, Path(folder)))
            if options.json:
                options.json.write_text(json.dumps(documents, indent=1) + "\n")
            print(report.text(documents[-1], markdown=options.markdown, goals=not quick) + "\n")
    if any(name.startswith("ours") for document in documents for name in document["missing"]):
        sys.exit(1)


if __name__ == "__main__":
    np.set_printoptions(precision=4, suppress=True)
    main()
