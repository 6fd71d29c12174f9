"""Adds to a compiled pipeline what its UI shows: nodes that write pages, curves and numbers.

TFX has no type of artifact that Kubeflow's or Vertex AI's UI draws by itself, so these nodes are
plain containers, written straight into the PipelineSpec (components/run_view.py is what they run).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from components.run_view_outputs import INPUTS, OF_DATA, PAGES_OF_DATA, outputs
from pipeline.cluster import Target
from pipeline.compiling import finish_node
from pipeline.config import PipelineConfig
from pipeline.facts import Facts

RUN_VIEW, DATA_VIEW = "RunView", "DataView"
COMMAND = ("python", "-m", "components.run_view")
# What must not end a run before it can be looked at.
STOPS_OF_MODEL = ("StopOnRefusal", "StopOnInsufficientEvidence")
STOPS_OF_DATA = ("StopOnBadData",)
# Filled in by Kubeflow's driver and by Vertex AI, where a parameter is this and nothing else.
RUN_ID = "{{$.pipeline_job_uuid}}"
VERSION = "0.0.1"  # of Kubeflow's own artifact types

Spec = dict[str, Any]


def add_view(spec: Spec, config: PipelineConfig, facts: Facts, target: Target) -> None:
    """Adds the node RunView: numbers, ROC curves, confusion matrix, pages and the model card.

    The nodes that stop a run on its model wait for it, so that a refused run has them too.

    Args:
        spec: PipelineSpec 2.1 as TFX compiles it, its components named as their nodes; changed in
            place. Nodes that it lacks are left out.
        config: the settings the pipeline was compiled from.
        facts: of the data it was compiled for.
        target: where it will run.
    """
    _add(spec, RUN_VIEW, INPUTS, outputs(facts.classes), STOPS_OF_MODEL, config, facts, target)


def add_data_view(spec: Spec, config: PipelineConfig, facts: Facts, target: Target) -> None:
    """Adds the node DataView: the pages on statistics and data checks, of a run that data stop too.

    StopOnBadData waits for it; RunView would need the models that such a run never trains. Args as
    of `add_view`.
    """
    given = {name: INPUTS[name] for name in OF_DATA}
    every = outputs(facts.classes)
    pages = {name: every[name] for name in PAGES_OF_DATA}
    _add(spec, DATA_VIEW, given, pages, STOPS_OF_DATA, config, facts, target)


def _add(
    spec: Spec,
    node: str,
    given: Mapping[str, tuple[str, str]],
    asked: Mapping[str, tuple[str, str]],
    before: Iterable[str],
    config: PipelineConfig,
    facts: Facts,
    target: Target,
) -> None:
    tasks, components = spec["root"]["dag"]["tasks"], spec["components"]
    known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    artifacts = {
        name: (producer, key) for name, (producer, key) in given.items() if producer in tasks
    }
    constants = {
        "config": config.model_dump_json(),
        "facts": facts.to_json(),
        "image": config.cluster.image,
        "pipeline": config.name,
        "run_id": RUN_ID,
    }
    # What a run is started with decides over what the pipeline was compiled with.
    chosen = [name for name in sorted(known) if name == "dataset" or _is_setting(name, config)]
    label = f"{node}_executor"
    components[node] = {
        "executorLabel": label,
        "inputDefinitions": {
            "artifacts": {
                name: {"artifactType": _type(components, tasks, producer, key)}
                for name, (producer, key) in artifacts.items()
            },
            "parameters": {name: {"parameterType": "STRING"} for name in constants}
            | {name: {"parameterType": known[name]["parameterType"]} for name in chosen},
        },
        "outputDefinitions": {
            "artifacts": {
                name: {
                    "artifactType": {"schemaTitle": kind, "schemaVersion": VERSION},
                    "description": told,
                }
                for name, (kind, told) in asked.items()
            }
        },
    }
    executor = {
        "container": {
            "image": config.cluster.image,
            "command": list(COMMAND),
            "args": ["--executor_input", "{{$}}"],
        }
    }
    spec["deploymentSpec"]["executors"][label] = executor
    task: Spec = {
        "componentRef": {"name": node},
        "dependentTasks": sorted({producer for producer, _ in artifacts.values()}),
        "inputs": {
            "artifacts": {
                name: {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}}
                for name, (producer, key) in artifacts.items()
            },
            "parameters": {
                name: {"runtimeValue": {"constant": text}} for name, text in constants.items()
            }
            | {name: {"componentInputParameter": name} for name in chosen},
        },
        "taskInfo": {"name": node},
    }
    finish_node(task, executor, config.cluster.resources(node), config, target)
    tasks[node] = task
    for stop in before:
        if stop in tasks:
            tasks[stop]["dependentTasks"] = sorted({*tasks[stop].get("dependentTasks", ()), node})


def _is_setting(name: str, config: PipelineConfig) -> bool:
    """Whether a runtime parameter turns a knob of a stage, or names the model."""
    stage, _, _ = name.partition("_")
    return name == "model_name" or stage in config.stages


def _type(
    components: Mapping[str, Any], tasks: Mapping[str, Any], producer: str, key: str
) -> dict[str, Any]:
    """The artifact type that the producer itself declares."""
    component = components[tasks[producer]["componentRef"]["name"]]
    return dict(component["outputDefinitions"]["artifacts"][key]["artifactType"])
