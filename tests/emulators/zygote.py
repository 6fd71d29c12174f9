"""A process that has imported what nodes need, and forks one child per node.

Every container of a compiled pipeline starts with 20 seconds of imports. Here they are paid once:
the child enters the same module with the same arguments as `python -m MODULE …` would.

    python -m tests.emulators.zygote      orders as JSON lines in, answers as JSON lines out
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# All that nodes import at their start; none of it starts a thread.
HEAVY = (
    "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "components.image_example_gen",
    "components.shuffle_control",
    "components.baseline_evaluator",
    "components.registry_pusher",
    "components.stage_trainer",
    "components.drift_gate",
    "components.leakage_check",
    "components.model_gate",
    "pipeline.tfma_ranking",
    "trainer.run_fn",
)


def enter(module: str, arguments: Sequence[str], log: str) -> int:
    """In a child: becomes `python -m module arguments`, with its output in a file."""
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def child(order: dict) -> int:
    """Forks a node; returns its exit code, that of `timeout` if it was stopped."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            os.environ.update(order["environment"])
            os.chdir(order["folder"])
            code = enter(order["module"], order["arguments"], order["log"])
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    deadline = time.monotonic() + order["seconds"] if order["seconds"] else float("inf")
    stopped = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return 124 if stopped else os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            number = signal.SIGKILL if stopped else signal.SIGTERM
            os.killpg(pid, number)
            stopped, deadline = True, time.monotonic() + order["kill_after"]
        time.sleep(0.02)


def serve() -> None:
    """Answers orders until the input ends; an order to kill reaches nodes by their group."""
    for name in HEAVY:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps({"code": child(json.loads(line))}), file=answers, flush=True)


class Zygote:
    """The process, and how to give it orders; one at a time."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: str,
        folder: str,
        environment: dict[str, str],
        seconds: float = 0,
        kill_after: float = 60,
    ) -> int:
        """Runs `python -m module arguments` in a child; returns its exit code."""
        order = {
            "module": module,
            "arguments": list(arguments),
            "log": log,
            "folder": folder,
            "environment": environment,
            "seconds": seconds,
            "kill_after": kill_after,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the zygote ended with {self._process.wait()}")
        return json.loads(answer)["code"]


@contextlib.contextmanager
def started(environment: dict[str, str] | None = None) -> Iterator[Zygote]:
    """A zygote, ready to fork."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.emulators.zygote"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if not process.stdout.readline():
            raise RuntimeError(f"the zygote ended with {process.wait()} before it was ready")
        yield Zygote(process)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    serve()
