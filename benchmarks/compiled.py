"""What a compiled pipeline costs beside the local run: to compile, and to execute node by node.

Run: `python -m benchmarks.compiled [--set KEY=VALUE …]`. The quickstart on the same dataset, each
without a cache: the local runner, then the compiled pipeline as the tests execute it, every node in
a process of its own, forked from one that has done the imports. Goals: both targets compiled in
less than 30 s; executed in at most 3 times the local run's time; equal metrics.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.emulators import spec_runner, zygote

QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
BOTH = (
    "import sys; from cli.main import app\n"
    "for target in ('kubeflow', 'vertex'):\n"
    "    app(['compile', 'quickstart', '--for', target, *sys.argv[1:]], standalone_mode=False)\n"
)


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a command, imports and all."""
    place = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | QUIET | place,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.monotonic() - began


def macro_auc(decision: Path) -> float:
    """Of the student, by person."""
    return json.loads(decision.read_text())["metrics"]["student"]["subject"]["macro_auc"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    settings = [word for it in parser.parse_args().set for word in ("--set", it)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiling = timed([sys.executable, "-c", BOTH, *settings], folder)
        print(f"both targets compiled: {compiling:.1f} s")
        run = [sys.executable, "-m", "cli.main", "run", "quickstart", *settings]
        local = timed([*run, "--workspace", str(folder / "workspace")], folder)
        print(f"local run: {local:.0f} s")
        began = time.monotonic()
        [dataset] = (folder / "workspace" / "data").iterdir()
        with zygote.started(QUIET) as forking:
            ready = time.monotonic() - began
            found = spec_runner.run_spec(
                next(yaml.safe_load_all((folder / "quickstart-kubeflow.yaml").read_text())),
                parameters={"dataset": str(dataset), "registry": str(folder / "registry")},
                root=str(folder / "root"),
                run_id="run",
                zygote=forking,
                logs=name,
            )
        executed = time.monotonic() - began
        bad = {node: it.error for node, it in found.items() if it.state != "ran"}
        if bad:
            sys.exit(f"the compiled pipeline broke: {bad}")
        print(
            f"compiled run: {executed:.0f} s, {executed / local:.2f}× local ({ready:.0f} s of them "
            f"imports; {len(found)} nodes)"
        )
        [gate] = (folder / "workspace" / "pipelines").glob("*/ModelGate/decision/*/decision.json")
        there = Path(found["ModelGate"].outputs["decision"][0]["uri"]) / "decision.json"
        here, other = macro_auc(gate), macro_auc(there)
        print(f"student's macro AUC: {here:.6f} here, {other:.6f} there")


if __name__ == "__main__":
    main()
