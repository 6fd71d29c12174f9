"""What is added to a compiled pipeline so that its UI has something to show."""

import copy
import json

import pytest
import yaml

from components.run_view import gather, read_request
from components.run_view_outputs import INPUTS, OF_DATA, PAGES_OF_DATA
from pipeline.backends.interface import STOPS
from pipeline.cluster import NODES as TABLE
from pipeline.cluster import ClusterSettings, NodeResources
from pipeline.config import PipelineConfig
from pipeline.descriptions import NODES, describe, heading
from pipeline.facts import Facts
from pipeline.view import RUN_ID, add_data_view, add_view

CONFIG = PipelineConfig(
    name="seen",
    cluster=ClusterSettings(
        image="registry/cortexflow@sha256:11",
        nodes={"RunView": NodeResources(cpu="3", memory="5Gi", timeout_minutes=7, cache=False)},
    ),
)
FACTS = Facts(classes=("AD", "CN"), severity=("CN", "AD"))


def of_type(title: str) -> dict:
    return {"artifactType": {"instanceSchema": f"title: {title}\ntype: object\n"}}


def compiled(*nodes: str) -> dict:
    """A PipelineSpec in the form that TFX compiles, of some nodes."""
    spec = {
        "pipelineInfo": {"name": "seen"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "tfx-1.16.0",
        "components": {},
        "deploymentSpec": {"executors": {}},
        "root": {
            "dag": {"tasks": {}},
            "inputDefinitions": {
                "parameters": {
                    "dataset": {"parameterType": "STRING"},
                    "registry": {"parameterType": "STRING"},
                    "student_epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3},
                }
            },
        },
    }
    for node in nodes:
        made = {
            key: of_type(f"title.{node}") for producer, key in INPUTS.values() if producer == node
        }
        component = {"executorLabel": f"{node}_executor"}
        if made:
            component["outputDefinitions"] = {"artifacts": made}
        spec["components"][node] = component
        spec["deploymentSpec"]["executors"][f"{node}_executor"] = {
            "container": {"image": "i", "command": ["python"], "args": ["{{$}}"]}
        }
        spec["root"]["dag"]["tasks"][node] = {
            "componentRef": {"name": node},
            "taskInfo": {"name": node},
        }
    return spec


EVERY = (*{node: None for node, _ in INPUTS.values()}, *STOPS)


@pytest.fixture
def spec():
    """All nodes, with both views."""
    found = compiled(*EVERY)
    add_data_view(found, CONFIG, FACTS, "kubeflow")
    add_view(found, CONFIG, FACTS, "kubeflow")
    return found


def test_each_input_is_the_producer_s_own_output(spec):
    task, component = spec["root"]["dag"]["tasks"]["RunView"], spec["components"]["RunView"]
    for name, (node, key) in INPUTS.items():
        assert task["inputs"]["artifacts"][name] == {
            "taskOutputArtifact": {"producerTask": node, "outputArtifactKey": key}
        }
        declared = component["inputDefinitions"]["artifacts"][name]["artifactType"]
        assert declared == of_type(f"title.{node}")["artifactType"]
        assert node in task["dependentTasks"]


def test_outputs_are_of_kubeflow_s_own_types(spec):
    from kfp import dsl

    made = spec["components"]["RunView"]["outputDefinitions"]["artifacts"]
    wanted = {
        "metrics": dsl.Metrics,
        "confusion_matrix": dsl.ClassificationMetrics,
        "roc_AD": dsl.ClassificationMetrics,
        "roc_CN": dsl.ClassificationMetrics,
        "report": dsl.HTML,
        "statistics_view": dsl.HTML,
        "data_checks": dsl.HTML,
        "model_card": dsl.Markdown,
    }
    assert set(made) == set(wanted)
    for name, kind in wanted.items():
        found = made[name]["artifactType"]
        assert (found["schemaTitle"], found["schemaVersion"]) == (
            kind.schema_title,
            kind.schema_version,
        )


def test_nodes_that_are_not_there_are_left_out():
    found = compiled("ImageExampleGen", "StatisticsGen", "Student")
    add_view(found, CONFIG, FACTS, "vertex")
    task = found["root"]["dag"]["tasks"]["RunView"]
    assert set(task["inputs"]["artifacts"]) == {"examples", "statistics", "student"}
    assert task["dependentTasks"] == ["ImageExampleGen", "StatisticsGen", "Student"]


def test_a_run_is_shown_before_it_is_stopped(spec):
    tasks = spec["root"]["dag"]["tasks"]
    for stop in ("StopOnRefusal", "StopOnInsufficientEvidence"):
        assert tasks[stop]["dependentTasks"] == ["RunView"]
    assert tasks["StopOnBadData"]["dependentTasks"] == ["DataView"]
    assert set(tasks["DataView"]["inputs"]["artifacts"]) == set(OF_DATA)
    made = spec["components"]["DataView"]["outputDefinitions"]["artifacts"]
    assert set(made) == set(PAGES_OF_DATA)
    assert not set(tasks["DataView"]["dependentTasks"]) & {"Teacher", "Student", "ModelGate"}


def test_the_container_is_the_table_s(spec):
    container = spec["deploymentSpec"]["executors"]["RunView_executor"]["container"]
    assert container["image"] == CONFIG.cluster.image
    assert container["command"][:4] == ["timeout", "--signal=TERM", "--kill-after=60", "420"]
    assert container["command"][4:] == ["python", "-m", "components.run_view"]
    assert container["args"] == ["--executor_input", "{{$}}"]
    assert container["resources"]["resourceCpuLimit"] == "3"
    assert container["resources"]["resourceMemoryLimit"] == "5Gi"
    assert spec["root"]["dag"]["tasks"]["RunView"]["cachingOptions"] == {}


def test_the_container_understands_what_the_node_is_given(spec, tmp_path):
    """The ExecutorInput that a driver makes of the task is one that RunView reads."""
    given = spec["root"]["dag"]["tasks"]["RunView"]["inputs"]
    started_with = {"dataset": str(tmp_path / "none"), "student_epochs": 5}
    parameters = {
        name: started_with[name]
        if "componentInputParameter" in value
        else value["runtimeValue"]["constant"]
        for name, value in given["parameters"].items()
    }
    assert parameters["run_id"] == RUN_ID  # alone: else Kubeflow's driver does not fill it in
    assert set(parameters) == set(spec["components"]["RunView"]["inputDefinitions"]["parameters"])
    text = json.dumps(
        {
            "inputs": {"parameterValues": parameters},
            "outputs": {"outputFile": str(tmp_path / "out.json")},
        }
    )
    evidence = gather(read_request(text))
    assert evidence.dataset.classes == FACTS.classes
    assert evidence.config["student"]["epochs"] == 5
    assert evidence.run.pipeline == "seen"
    assert evidence.run.versions["container image"] == CONFIG.cluster.image


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_the_sdk_reads_it(target):
    from kfp import components

    spec = compiled(*EVERY)
    add_data_view(spec, CONFIG, FACTS, target)
    add_view(spec, CONFIG, FACTS, target)
    describe(spec)
    text = heading(spec) + yaml.safe_dump(spec)
    loaded = components.load_component_from_text(text)
    assert loaded.pipeline_spec.components["RunView"].output_definitions.artifacts["report"]
    told = loaded.pipeline_spec.components["Student"].output_definitions.artifacts["model"]
    assert told.description.startswith("Student. Distils")


def test_every_node_has_a_name_and_a_sentence():
    assert set(TABLE) - {"default"} <= set(NODES)
    names = [name for name, _ in NODES.values()]
    assert len(set(names)) == len(names)
    for name, does in NODES.values():
        assert name[0].isupper()
        assert does.endswith(".")
        assert len(does) <= 90


def test_descriptions_change_no_name_and_nothing_that_is_there(spec):
    spec["pipelineInfo"]["description"] = "mine"
    before = copy.deepcopy(spec)
    describe(spec)
    assert spec["pipelineInfo"]["description"] == "mine"
    tasks = spec["root"]["dag"]["tasks"]
    assert {task["taskInfo"]["name"] for task in tasks.values()} == set(tasks)
    assert tasks == before["root"]["dag"]["tasks"]
    made = spec["components"]["RunView"]["outputDefinitions"]
    assert made == before["components"]["RunView"]["outputDefinitions"]
    of_root = spec["root"]["inputDefinitions"]["parameters"]
    assert of_root["student_epochs"]["description"] == "Student: epochs."
    assert of_root["dataset"]["description"].startswith("Folder or address")


def test_the_head_of_the_file_tells_of_each_node(spec):
    lines = heading(spec).splitlines()
    assert all(line.startswith("#") for line in lines)
    assert {line.split(":")[0].strip("# ") for line in lines[1:]} == set(
        spec["root"]["dag"]["tasks"]
    )
