"""Our training steps against the reference's, lightly's, and what the machine can give.

For a ResNet-18 at 64 pixels and a ResNet-50 at 128: the pretraining step (two views of each image,
NT-Xent, LARS), the fine-tuning step, the making of views alone, the reading of TFRecords, and the
epoch of a linear head with its features kept and computed anew. Peers: SimCLRv2's step transcribed
to plain TensorFlow (`steps/reference.py`) and lightly's on PyTorch (`steps/lightly_steps.py`). The
limit is the best rate of float32 matrix products in the same run over the products a model needs.

Every case runs on the CPU in a process of its own, and all of them once in each round, so that the
machine's drift hits all alike. Reported is the median over all rounds, and the best.

    make bench-env                      once: PyTorch and lightly, in .bench-env; else skipped
    python -m benchmarks.training
    python -m benchmarks.training --quick --models r18@64 --cases pretrain
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.steps import report
from benchmarks.steps.timing import MODELS, Case

PEER_PYTHON = Path(".bench-env/bin/python")
MODULES = {"lightly": "lightly_steps"}  # the others have their peer's name
TRAININGS = ("pretrain", "finetune")
WHATS = (*TRAININGS, "views", "read", "linear")
PEERS = ("ours", "reference", "lightly")


def cases(options: argparse.Namespace) -> list[Case]:
    """The cases of one round, those to be compared beside each other."""
    found = [Case("machine", "gemm", precision=name) for name in ("float32", "bfloat16")]
    for model in options.models:
        found.append(Case("machine", "work", model))
        for what in options.cases:
            found += [Case(who, what, model, name) for who, name in variants(what)]
    present = [case for case in found if case.who in ("machine", *options.who)]
    return [case._replace(quick=options.quick) for case in present]


def variants(what: str) -> list[tuple[str, str]]:
    """Who can do it, and in which precisions; the reference has no other than float32."""
    if what in ("read", "linear"):
        return [("ours", "float32")]
    if what == "views":
        return [(who, "float32") for who in PEERS]
    both = [(who, name) for name in ("float32", "bfloat16") for who in PEERS]
    return [pair for pair in both if pair != ("reference", "bfloat16")]


def measured(case: Case) -> dict[str, Any]:
    """Measures a case in a fresh process; `{"failed": why}` when that ends in an error."""
    python = PEER_PYTHON if case.who == "lightly" else sys.executable
    module = f"benchmarks.steps.{MODULES.get(case.who, case.who)}"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, "-m", module, json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=WHATS, default=WHATS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--who", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round, a few steps; no goals")
    parser.add_argument("--markdown", action="store_true", help="tables for README.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there")
    options = parser.parse_args()

    chosen, rounds = cases(options), 1 if options.quick else options.rounds
    if "lightly" in options.who and not PEER_PYTHON.exists():
        print("lightly: skipped, there is no .bench-env. Make it with `make bench-env`.")
        chosen = [case for case in chosen if case.who != "lightly"]
    results: list[tuple[Case, dict[str, Any]]] = []
    for turn in range(rounds):
        for position, case in enumerate(chosen):
            if turn and case.what == "work":
                continue  # counted, not measured
            start = time.perf_counter()
            results.append((case, measured(case)))
            told = f"[round {turn + 1}/{rounds}, {position + 1}/{len(chosen)}]"
            name = " ".join(word for word in case[:4] if word)
            outcome = report.in_short(*results[-1])
            seconds = time.perf_counter() - start
            print(f"{told} {name}: {outcome} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    if options.json:
        document = [case._asdict() | {"result": result} for case, result in results]
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(report.text(results, markdown=options.markdown, goals=not options.quick))
    if any("failed" in result for _, result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
