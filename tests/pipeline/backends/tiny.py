"""Compiled pipelines of a few nodes whose containers are programs of this machine."""

import datetime
import time

import yaml

from pipeline.backends.interface import ENDED, Recurrence, RunRequest

GATE = "print('looking'); raise SystemExit('the model is no better than the prior')"
PATIENCE = 30  # seconds until a test gives up on a run


def node(*command, after=(), parameter=None):
    """A node of a tiny pipeline."""
    return {"command": list(command), "after": list(after), "parameter": parameter}


def spec(nodes=None, name="tiny"):
    """A PipelineSpec with the parameters `word` (default: hello) and `epochs` (default: 3)."""
    nodes = nodes or {"First": node("echo", "{{$.inputs.parameters['word']}}", parameter="word")}
    tasks, components, executors = {}, {}, {}
    for key, told in nodes.items():
        tasks[key] = {
            "componentRef": {"name": key},
            "taskInfo": {"name": key},
            "cachingOptions": {"enableCache": True},
            "dependentTasks": told["after"],
        }
        components[key] = {"executorLabel": f"{key}_executor"}
        if told["parameter"]:
            given = {"componentInputParameter": told["parameter"]}
            tasks[key]["inputs"] = {"parameters": {told["parameter"]: given}}
            types = {told["parameter"]: {"parameterType": "STRING"}}
            components[key]["inputDefinitions"] = {"parameters": types}
        container = {"image": "registry.test/tiny:1", "command": told["command"]}
        container["resources"] = {"cpuLimit": 2.0, "memoryLimit": 4.0}
        executors[f"{key}_executor"] = {"container": container}
    parameters = {
        "word": {"parameterType": "STRING", "defaultValue": "hello"},
        "epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3},
    }
    return {
        "pipelineInfo": {"name": name},
        "root": {"dag": {"tasks": tasks}, "inputDefinitions": {"parameters": parameters}},
        "components": components,
        "deploymentSpec": {"executors": executors},
        "schemaVersion": "2.1.0",
        "sdkVersion": "tfx-1.16.0",
    }


def package(nodes=None, name="tiny"):
    """The same as text."""
    return yaml.safe_dump(spec(nodes, name))


def refusing(stop="StopOnRefusal"):
    """A pipeline whose gate refuses: what waits for the stop node is skipped."""
    return package(
        {
            "ModelGate": node("echo", "judged"),
            stop: node("python", "-c", GATE, after=["ModelGate"]),
            "RegistryPusher": node("echo", "pushed", after=[stop]),
        }
    )


def breaking():
    """A pipeline whose training breaks before any gate is asked."""
    program = "raise OSError('No space left on device')"
    return package(
        {
            "Teacher": node("python", "-c", program),
            "StopOnRefusal": node("true", after=["Teacher"]),
        }
    )


def waiting(signal):
    """A pipeline that goes on once the file is there."""
    program = f"while [ ! -e {signal} ]; do sleep 0.05; done; echo done"
    return package(
        {
            "First": node("echo", "begun"),
            "Second": node("sh", "-c", program, after=["First"]),
            "Third": node("true", after=["Second"]),
        }
    )


def submitted(backend, text, **given):
    """Starts a run with what every test would say."""
    said = {"name": "tiny run", "pipeline_root": "gs://bucket/root", "experiment": "trials"}
    version = given.pop("version", "")
    return backend.submit(text, RunRequest(**(said | given)), version=version)


def scheduled(backend, text=None, **given):
    """Makes an hourly run with what every test would say."""
    said = {"name": "nightly", "parameters": {"word": "again"}}
    said |= {"pipeline_root": "gs://bucket/root", "experiment": "nightly"}
    when = {name: given.pop(name) for name in tuple(given) if name in Recurrence.model_fields}
    recurrence = Recurrence(**({"cron": "0 * * * *"} | when))
    return backend.schedule(text or package(), RunRequest(**(said | given)), recurrence)


def until(look, good, what):
    """Looks until it is good."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if good(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {PATIENCE} s; last: {found}")


def ended(backend, run_id):
    """The run once it has ended."""
    return until(lambda: backend.get(run_id), lambda run: run.status in ENDED, "end")


def states(run):
    """The states of a run's nodes by name."""
    return {task.name: task.state for task in run.tasks}


def minutes(count):
    """Seconds of so many minutes."""
    return datetime.timedelta(minutes=count).total_seconds()
