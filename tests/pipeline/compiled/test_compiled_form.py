"""What is compiled: only what both clusters run, with what the table says, as reviewed."""

import subprocess
import sys

import pytest
import yaml

from pipeline import ci_diff, presets
from pipeline.cluster import ACCELERATORS, NODES, cpu_cores, memory_bytes
from pipeline.compiling import ENTRYPOINT, compile_pipeline
from pipeline.config import with_overrides
from tests.pipeline.compiled.conftest import PRESET, ROOT, TARGETS, cut_off

VIEWS = ("DataView", "RunView")
CONFIG = presets.load(PRESET)


def test_the_network_was_cut_off(folder):
    """The command that compiled had none; this shows that such a command has none."""
    if not cut_off():
        pytest.skip("this system gives no network namespaces to users: compiled with a network")
    program = "import socket; print(len(socket.if_nameindex()), open('/proc/net/route').read())"
    command = [*cut_off(), sys.executable, "-c", program]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert told[0].startswith("1 "), "loopback alone"
    assert [line for line in told[1:] if line.strip()] == [], "and no route"


def test_nothing_but_the_files_is_written(folder, target):
    assert sorted(path.name for path in folder.iterdir()) == [
        "home", "quickstart-kubeflow.yaml", "quickstart-vertex.yaml",
    ]  # fmt: skip
    # What Keras and Matplotlib keep for themselves when they are imported.
    theirs = {".cache/matplotlib", ".config/matplotlib", ".keras"}
    files = [path for path in (folder / "home").rglob("*") if path.is_file()]
    assert not [f for f in files if not any(it in str(f) for it in theirs)]


def test_equals_what_was_reviewed(text, target):
    """`make golden` writes the files anew; the difference below is what a reviewer should see."""
    golden = ROOT / "kubeflow" / "golden" / f"{PRESET}-{target}.yaml"
    if text != golden.read_text():
        old, new = (next(yaml.safe_load_all(it)) for it in (golden.read_text(), text))
        changes = ci_diff.explain(old, new)
        pytest.fail("\n" + ci_diff.render({golden.name: changes}), pytrace=False)


def test_the_kfp_sdk_loads_it(text, spec):
    from kfp import components

    loaded = components.load_component_from_text(text)
    assert loaded.pipeline_spec.pipeline_info.name == PRESET
    assert set(loaded.component_spec.inputs) == set(spec["root"]["inputDefinitions"]["parameters"])


def test_only_what_both_backends_run(spec):
    """Open-source Kubeflow refuses resolvers and knows no pre-cache hook; Vertex has no claims."""
    assert spec["schemaVersion"] == "2.1.0"
    assert set(spec["root"]["dag"]) == {"tasks"}
    for node, task in spec["root"]["dag"]["tasks"].items():
        assert set(task) <= {
            "cachingOptions", "componentRef", "dependentTasks", "inputs", "retryPolicy", "taskInfo",
        }, node  # fmt: skip
        for source in task.get("inputs", {}).get("artifacts", {}).values():
            assert set(source) == {"taskOutputArtifact"}, node
        for source in task.get("inputs", {}).get("parameters", {}).values():
            assert set(source) <= {"componentInputParameter", "runtimeValue"}, node
        executor = executor_of(spec, node)
        assert set(executor) == {"container"}, node
        assert set(executor["container"]) == {"args", "command", "image", "resources"}, node


def executor_of(spec, node):
    return spec["deploymentSpec"]["executors"][spec["components"][node]["executorLabel"]]


def test_every_container_is_what_the_table_says(spec, target):
    tasks = spec["root"]["dag"]["tasks"]
    assert set(tasks) <= set(NODES)
    for node, task in tasks.items():
        row, container = CONFIG.cluster.resources(node), executor_of(spec, node)["container"]
        assert container["image"] == CONFIG.cluster.image
        limit, *module = container["command"][3:]
        assert container["command"][:3] == ["timeout", "--signal=TERM", "--kill-after=60"]
        assert int(limit) == 60 * row.timeout_minutes
        expected = ["python", "-m", "components.run_view"] if node in VIEWS else [*ENTRYPOINT]
        assert module == expected
        resources = container["resources"]
        assert resources["cpuLimit"] == resources["cpuRequest"] == cpu_cores(row.cpu)
        assert resources["memoryLimit"] == pytest.approx(memory_bytes(row.memory) / 1e9)
        assert ("resourceMemoryLimit" in resources) == (target == "kubeflow")
        assert task["cachingOptions"] == ({"enableCache": True} if row.cache else {})
        assert task.get("retryPolicy", {}).get("maxRetryCount", 0) == row.retries


def test_executors_are_importable(spec):
    from tfx.utils import import_utils

    for node in spec["root"]["dag"]["tasks"]:
        if node not in VIEWS:
            args = executor_of(spec, node)["container"]["args"]
            import_utils.import_class_by_path(args[args.index("--executor_class_path") + 1])


def test_nothing_is_pushed_before_both_stops(spec):
    tasks = spec["root"]["dag"]["tasks"]
    assert "StopOnInsufficientEvidence" in tasks["RegistryPusher"]["dependentTasks"]
    assert "StopOnRefusal" in tasks["StopOnInsufficientEvidence"]["dependentTasks"]
    assert "StopOnBadData" in tasks["Pretrainer"]["dependentTasks"]
    never = [node for node in tasks if node.startswith("Stop") or node == "RegistryPusher"]
    assert not any(tasks[node]["cachingOptions"] for node in never)


def test_what_people_sweep_is_a_parameter(spec):
    found = spec["root"]["inputDefinitions"]["parameters"]
    places = {"dataset", "registry", "model_name", "baseline_version", "checkpoint_root", "touches"}
    knobs = {"epochs", "batch_size", "learning_rate", "weight_decay", "seed"}
    stages = ("pretrain", "teacher", "student")
    assert places | {f"{stage}_{knob}" for stage in stages for knob in knobs} <= set(found)
    assert found["teacher_epochs"] == {
        "defaultValue": CONFIG.teacher.epochs,
        "description": "Teacher: epochs.",
        "parameterType": "NUMBER_INTEGER",
    }
    assert {name for name, it in found.items() if "defaultValue" not in it} == {
        "dataset", "registry",
    }  # fmt: skip
    control = spec["root"]["dag"]["tasks"]["ShuffleControl"]["inputs"]["parameters"]
    assert control["teacher_epochs"] == {"componentInputParameter": "teacher_epochs"}


def test_devices_pools_and_volumes(tmp_path):
    config = with_overrides(
        CONFIG,
        [
            "cluster.nodes.Teacher.accelerator=nvidia-t4",
            "cluster.nodes.Teacher.accelerators=2",
            "cluster.nodes.Teacher.pool=gpus",
            "cluster.nodes.Student.accelerator=tpu-v5e",
            "cluster.nodes.Student.topology=2x2",
            "cluster.gpu_image=ours@sha256:1",
            "cluster.volume=data:/srv/data",
        ],
    )
    compiled = compile_pipeline(config, "kubeflow")
    teacher = executor_of(compiled.spec, "Teacher")["container"]
    assert teacher["image"] == "ours@sha256:1"
    assert teacher["resources"]["accelerator"] == {
        "type": "nvidia.com/gpu", "count": "2",
        "resourceType": "nvidia.com/gpu", "resourceCount": "2",
    }  # fmt: skip
    executors = compiled.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["Teacher_executor"]["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-nodepool": "gpus",
        "cloud.google.com/gke-accelerator": "nvidia-tesla-t4",
    }
    assert executors["Student_executor"]["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x2",
    }
    mount = [{"constant": "data", "mountPath": "/srv/data"}]
    assert all(found["pvcMount"] == mount for found in executors.values())
    assert len(list(yaml.safe_load_all(compiled.yaml))) == 2

    vertex = compile_pipeline(with_overrides(config, ["cluster.volume=null"]), "vertex")
    found = executor_of(vertex.spec, "Teacher")["container"]["resources"]["accelerator"]
    assert found == {"type": ACCELERATORS["nvidia-t4"][2], "count": "2"}
    assert vertex.platform is None


def test_several_workers_become_a_job_of_their_node():
    from tfx.utils import json_utils

    workers = [f"cluster.nodes.{node}.workers=3" for node in ("Pretrainer", "Teacher", "Student")]
    config = with_overrides(CONFIG, [*workers, "execution.strategy=multi_worker"])
    jobs = {}
    for target in TARGETS:
        task = compile_pipeline(config, target).spec["root"]["dag"]["tasks"]["Teacher"]
        text = task["inputs"]["parameters"]["custom_config"]["runtimeValue"]["constant"]
        jobs[target] = json_utils.loads(text)["distributed"]["job"]
    replicas = jobs["kubeflow"]["spec"]["tfReplicaSpecs"]
    assert sum(each["replicas"] for each in replicas.values()) == 3
    pools = jobs["vertex"]
    assert sum(int(each["replica_count"]) for each in pools) == 3
