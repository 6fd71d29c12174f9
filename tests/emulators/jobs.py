"""What a service does with a compiled pipeline that it was sent: it runs it, node by node, here.

Nodes whose container is TFX's are executed by `tests.emulators.spec_runner`; other containers'
commands are run as programs of this machine, so that a pipeline of `true` and `false` shows within
a second what a service tells of it.
"""

import dataclasses
import functools
import graphlib
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

ENTRYPOINT = "kubeflow_v2_run_executor"
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([\w-]+)'\]\}\}")
LOOK = 0.05  # seconds
_CACHE: dict = {}  # of TFX's nodes, for all runs of this service

# States: pending, running, ran, cached, failed, skipped, stopped.
Tell = Callable[[str, str, str], None]  # node, state, error


class Invalid(Exception):
    """The service would refuse this pipeline or these parameters."""


@dataclasses.dataclass
class Job:
    """One run of one pipeline."""

    spec: dict
    parameters: dict
    root: str
    run_id: str
    logs: Path
    cancelled: threading.Event

    def log(self, node: str) -> Path:
        """The log of one node."""
        return self.logs / f"{node}.txt"


@functools.cache
def _logs() -> tempfile.TemporaryDirectory:
    """Logs of all jobs of this process; gone with it."""
    return tempfile.TemporaryDirectory(prefix="emulated-logs-")


def new_job(spec: dict, parameters: dict, root: str, run_id: str) -> Job:
    """A job that has not started; refuses what a service refuses.

    Raises:
        Invalid: with the reason.
    """
    if not spec.get("root", {}).get("dag", {}).get("tasks"):
        raise Invalid("The pipeline spec has no root.dag.tasks.")
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    if unknown := sorted(set(parameters) - set(declared)):
        raise Invalid(f"The pipeline has no parameter {', '.join(unknown)}.")
    wanting = [
        name
        for name, told in declared.items()
        if name not in parameters and "defaultValue" not in told and not told.get("isOptional")
    ]
    if wanting:
        raise Invalid(f"The pipeline's parameter {', '.join(wanting)} has no value.")
    values = {
        name: told["defaultValue"] for name, told in declared.items() if "defaultValue" in told
    }
    values |= parameters
    for name, told in declared.items():  # a protobuf Value knows no integers
        if told.get("parameterType") == "NUMBER_INTEGER":
            values[name] = int(values[name])
    logs = Path(tempfile.mkdtemp(dir=_logs().name))
    return Job(spec, values, root, run_id, logs, threading.Event())


def run(job: Job, tell: Tell) -> bool:
    """Runs a job to its end; says whether every node succeeded."""
    executors = job.spec.get("deploymentSpec", {}).get("executors", {})
    if ENTRYPOINT in str([told.get("container", {}).get("command") for told in executors.values()]):
        return _run_tfx(job, tell)
    tasks = job.spec["root"]["dag"]["tasks"]
    graph = {name: tasks[name].get("dependentTasks", []) for name in tasks}
    good, complete = set(), True
    for name in graphlib.TopologicalSorter(graph).static_order():
        if job.cancelled.is_set():
            tell(name, "stopped", "")
            continue
        if not set(graph[name]) <= good:
            tell(name, "skipped", "")
            continue
        state, error = _run_task(job, name, tell)
        tell(name, state, error)
        if state in ("ran", "cached"):
            good.add(name)
        else:
            complete = False
    return complete


def _run_task(job: Job, name: str, tell: Tell) -> tuple[str, str]:
    """One container's command as a program; the last line of what it says is its error."""
    component = job.spec["components"][
        job.spec["root"]["dag"]["tasks"][name]["componentRef"]["name"]
    ]
    container = job.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
    words = [*container.get("command", []), *container.get("args", [])]
    words = [_filled(word, job, name) for word in words]
    if words[0] == "python":
        words[0] = sys.executable
    tell(name, "running", "")
    with job.log(name).open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    while True:
        try:
            code = process.wait(timeout=LOOK)
            break
        except subprocess.TimeoutExpired:
            if job.cancelled.is_set():
                process.kill()
                process.wait()
                return "stopped", ""
    return ("ran", "") if code == 0 else ("failed", f"exit status {code}")


def _filled(word: str, job: Job, name: str) -> str:
    given = job.spec["root"]["dag"]["tasks"][name].get("inputs", {}).get("parameters", {})

    def value(match: re.Match) -> str:
        source = given[match[1]]
        if "componentInputParameter" in source:
            return str(job.parameters[source["componentInputParameter"]])
        return str(source["runtimeValue"]["constant"])

    return _PLACEHOLDER.sub(value, word)


def _run_tfx(job: Job, tell: Tell) -> bool:
    """TFX's containers, each in a process forked from one that has imported what they need."""
    from tests.emulators import spec_runner, zygote

    with zygote.started() as forked:
        results = spec_runner.run_spec(
            job.spec,
            parameters=job.parameters,
            root=job.root,
            run_id=job.run_id,
            on_task=lambda name, result: tell(name, result.state, result.error),
            zygote=forked,
            cache=_CACHE,
            logs=str(job.logs),
            stopped=job.cancelled.is_set,
        )
    return all(result.state in spec_runner.GOOD for result in results.values())
