"""Executes a compiled pipeline as the driver and launcher of Kubeflow Pipelines do.

For each task in topological order: the inputs resolved to an ExecutorInput, the cache asked, the
container's own command run with its placeholders filled in, and `executor_output.json` read. What
depends on a failed task is skipped; the rest goes on. Images are not pulled: commands run in this
environment, each in a process of its own.
"""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.emulators.zygote import Zygote

GOOD = ("ran", "cached")


@dataclasses.dataclass
class TaskResult:
    """How a task ended; `outputs` are artifacts by output key."""

    state: str
    seconds: float = 0.0
    error: str = ""
    outputs: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    attempts: int = 0


class SpecError(Exception):
    """The spec asks for what no backend gives, or a parameter is missing."""


OnTask = Callable[[str, TaskResult], None]


def run_spec(
    spec: Mapping[str, Any],
    *,
    parameters: Mapping[str, Any],
    root: str,
    run_id: str,
    on_task: OnTask | None = None,
    zygote: Zygote | None = None,
    cache: dict[str, TaskResult] | None = None,
    logs: str | None = None,
    environment: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, TaskResult]:
    """Runs every task of a spec.

    Args:
        spec: KFP's PipelineSpec 2.1 as a document.
        parameters: runtime parameters; what is left out takes its default.
        root: pipeline root, a folder or an address.
        run_id: names the run below the root.
        on_task: told when a task starts ("running") and when it has ended.
        zygote: forks the processes of nodes; None starts each anew, as a container is.
        cache: results by cache key; kept between runs by whoever keeps the dict.
        logs: folder for one log per task; a temporary one if None.
        environment: of the nodes, over this process's.
        stopped: asked before each task; what has not started then is "stopped".

    Returns:
        Task → its result.

    Raises:
        SpecError: a parameter is unknown or missing, or the spec holds what cannot be run.
    """
    run = _Run(spec, parameters, root, run_id, logs or tempfile.mkdtemp(prefix="spec-logs-"))
    run.zygote, run.cache, run.environment = zygote, cache, dict(environment or {})
    told = on_task or (lambda name, result: None)
    for name in topological(spec["root"]["dag"]["tasks"]):
        if stopped():
            run.results[name] = TaskResult("stopped")
        elif any(run.results[before].state not in GOOD for before in run.upstream(name)):
            run.results[name] = TaskResult("skipped")
        else:
            told(name, TaskResult("running"))
            began = time.monotonic()
            run.results[name] = result = run.task(name)
            result.seconds = time.monotonic() - began
        told(name, run.results[name])
    return run.results


def topological(tasks: Mapping[str, Any]) -> list[str]:
    """Names of tasks, each after all that it depends on, otherwise by name."""
    done: list[str] = []
    while len(done) < len(tasks):
        ready = [n for n in sorted(tasks) if n not in done and _before(tasks[n]) <= set(done)]
        if not ready:
            raise SpecError(f"the tasks {sorted(set(tasks) - set(done))} wait for each other")
        done.append(ready[0])
    return done


def _before(task: Mapping[str, Any]) -> set[str]:
    inputs = task.get("inputs", {}).get("artifacts", {}).values()
    producers = {it["taskOutputArtifact"]["producerTask"] for it in inputs}
    return producers | set(task.get("dependentTasks", ()))


class _Run:
    def __init__(self, spec, parameters, root, run_id, logs):
        self.spec, self.logs, self.run_id = spec, Path(logs), run_id
        self.root = f"{root.rstrip('/')}/{spec['pipelineInfo']['name']}/{run_id}"
        self.results: dict[str, TaskResult] = {}
        self.zygote: Zygote | None = None
        self.cache: dict[str, TaskResult] | None = None
        self.environment: dict[str, str] = {}
        names = ("pipeline_job_uuid", "pipeline_job_name", "pipeline_job_resource_name")
        self.placeholders = {f"{{{{$.{name}}}}}": run_id for name in names}
        declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        unknown = sorted(set(parameters) - set(declared))
        if unknown:
            raise SpecError(f"the pipeline has no parameters {unknown}")
        defaults = {k: v["defaultValue"] for k, v in declared.items() if "defaultValue" in v}
        self.parameters = {**defaults, **parameters}
        missing = sorted(set(declared) - set(self.parameters))
        if missing:
            raise SpecError(f"parameters without a value: {missing}")

    def upstream(self, name: str) -> set[str]:
        return _before(self.spec["root"]["dag"]["tasks"][name])

    def task(self, name: str) -> TaskResult:
        task = self.spec["root"]["dag"]["tasks"][name]
        component = self.spec["components"][task["componentRef"]["name"]]
        executor = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]
        place = f"{self.root}/{name}_{uuid.uuid4().int % 10**18}"
        given = self._executor_input(task, component, place)
        if "importer" in executor:
            return self._imported(executor["importer"], given)
        if "container" not in executor or "lifecycle" in executor["container"]:
            raise SpecError(f"{name}: no backend that we know runs {sorted(executor)}")
        container = executor["container"]
        key = _cache_key(component, container, given)
        cached = task.get("cachingOptions", {}).get("enableCache") and self.cache is not None
        if cached and key in self.cache:
            return dataclasses.replace(self.cache[key], state="cached", attempts=0)
        retries = int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
        code, attempts = 1, 0
        while code and attempts <= retries:
            attempts += 1
            code = self._launch(name, container, given)
        log = (self.logs / f"{name}.txt").read_text(errors="replace").strip()
        if code:
            lines = log.splitlines() or [f"exit code {code}"]
            return TaskResult("failed", error=lines[-1], attempts=attempts)
        result = self._collected(given)
        result.attempts = attempts
        if cached:
            self.cache[key] = result
        return result

    def _executor_input(self, task, component, place) -> dict[str, Any]:
        inputs = task.get("inputs", {})
        artifacts = {}
        for key, it in inputs.get("artifacts", {}).items():
            wanted = it["taskOutputArtifact"]
            found = self.results[wanted["producerTask"]].outputs[wanted["outputArtifactKey"]]
            artifacts[key] = {"artifacts": found}
        declared = component.get("outputDefinitions", {})
        outputs = {
            key: {
                "artifacts": [
                    {"name": f"{place}:{key}", "uri": f"{place}/{key}", "type": it["artifactType"]}
                ]
            }
            for key, it in declared.get("artifacts", {}).items()
        }
        return {
            "inputs": {
                "artifacts": artifacts,
                "parameterValues": {
                    key: self._value(it) for key, it in inputs.get("parameters", {}).items()
                },
            },
            "outputs": {
                "artifacts": outputs,
                "parameters": {
                    key: {"outputFile": f"{place}/{key}"} for key in declared.get("parameters", {})
                },
                "outputFile": f"{place}/executor_output.json",
            },
        }

    def _value(self, source: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in source:
            return self.parameters[source["componentInputParameter"]]
        if "runtimeValue" in source:
            value = source["runtimeValue"]["constant"]
            return self.placeholders.get(value, value) if isinstance(value, str) else value
        if "taskOutputParameter" in source:
            wanted = source["taskOutputParameter"]
            found = self.results[wanted["producerTask"]].parameters
            return found[wanted["outputParameterKey"]]
        raise SpecError(f"a parameter comes from {sorted(source)}")

    def _imported(self, importer, given) -> TaskResult:
        uri = importer["artifactUri"]
        place = uri["constant"] if "constant" in uri else self._imported_from(uri, given)
        outputs = {}
        for key, it in given["outputs"]["artifacts"].items():
            metadata = importer.get("metadata", {})
            outputs[key] = [{**it["artifacts"][0], "uri": place, "metadata": metadata}]
        return TaskResult("ran", outputs=outputs)

    @staticmethod
    def _imported_from(uri, given) -> str:
        return given["inputs"]["parameterValues"][uri["runtimeParameter"]]

    def _launch(self, name, container, given) -> int:
        for it in given["outputs"]["artifacts"].values():  # as the launcher makes them
            if "://" not in it["artifacts"][0]["uri"]:
                os.makedirs(it["artifacts"][0]["uri"], exist_ok=True)
        filled = {"{{$}}": json.dumps(given), **self.placeholders}
        arguments = [*container.get("command", []), *container.get("args", [])]
        for placeholder, value in filled.items():
            arguments = [argument.replace(placeholder, value) for argument in arguments]
        log = str(self.logs / f"{name}.txt")
        if self.zygote is None:
            return self._process(arguments, log)
        return self._forked(arguments, log)

    def _process(self, arguments, log) -> int:
        here = [sys.executable if it == "python" else it for it in arguments[:6]]
        with open(log, "ab") as file:
            return subprocess.run(
                [*here, *arguments[6:]],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
                check=False,
            ).returncode

    def _forked(self, arguments, log) -> int:
        """The command, which is `timeout … SECONDS python -m MODULE …`, in a fork."""
        start = arguments.index("python")
        limits = arguments[:start]
        if limits[:2] != ["timeout", "--signal=TERM"] or arguments[start + 1] != "-m":
            raise SpecError(f"cannot fork {arguments[: start + 3]}")
        return self.zygote.run(
            arguments[start + 2],
            arguments[start + 3 :],
            log=log,
            folder=str(self.logs),
            environment=self.environment,
            seconds=float(limits[-1]),
            kill_after=float(limits[2].removeprefix("--kill-after=")),
        )

    def _collected(self, given) -> TaskResult:
        written = _read(given["outputs"]["outputFile"])
        outputs = {}
        for key, it in given["outputs"]["artifacts"].items():
            artifact = dict(it["artifacts"][0])
            for told in written.get("artifacts", {}).get(key, {}).get("artifacts", []):
                artifact |= {name: value for name, value in told.items() if value}
            outputs[key] = [artifact]
        return TaskResult("ran", outputs=outputs, parameters=written.get("parameterValues", {}))


def _cache_key(component, container, given) -> str:
    """As Kubeflow's: names of input artifacts, parameters, outputs declared, and the container."""
    names = {k: [a["name"] for a in it["artifacts"]] for k, it in _artifacts(given).items()}
    told = [
        names,
        given["inputs"]["parameterValues"],
        component.get("outputDefinitions", {}),
        container.get("image"),
        container.get("command"),
        container.get("args"),
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _artifacts(given) -> dict[str, Any]:
    return given["inputs"]["artifacts"]


def _read(place: str) -> dict[str, Any]:
    """`executor_output.json`, {} where a node wrote none."""
    if "://" not in place:
        return json.loads(Path(place).read_text()) if os.path.exists(place) else {}
    import tensorflow as tf

    if not tf.io.gfile.exists(place):
        return {}
    with tf.io.gfile.GFile(place) as file:
        return json.loads(file.read())
