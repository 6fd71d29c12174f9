"""What changed in a compiled pipeline, told by node and field."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.ci_diff import MAX_CHARACTERS, PIPELINE, Change, explain, render

ROOT = Path(__file__).resolve().parents[2]


def spec() -> dict:
    """Two nodes, as TFX compiles them."""

    def executor(flags):
        return {
            "container": {
                "image": "cortexflow:latest",
                "command": ["timeout", "7200", "python"],
                "args": ["--executor_class_path", "a.B", *flags],
                "resources": {"cpuLimit": 2.0},
            }
        }

    def component(label):
        return {
            "executorLabel": f"{label}_executor",
            "outputDefinitions": {"artifacts": {"model": {"artifactType": {"schemaTitle": "M"}}}},
        }

    config = {"metrics": [{"name": "auc"}, {"name": "count"}]}
    return {
        "pipelineInfo": {"name": "quickstart"},
        "schemaVersion": "2.1.0",
        "root": {
            "inputDefinitions": {"parameters": {"epochs": {"defaultValue": 5}}},
            "dag": {
                "tasks": {
                    "Student": {
                        "componentRef": {"name": "Student"},
                        "taskInfo": {"name": "Student"},
                        "cachingOptions": {"enableCache": True},
                        "inputs": {"parameters": {"epochs": {"componentInputParameter": "epochs"}}},
                    },
                    "Evaluator": {
                        "componentRef": {"name": "Evaluator"},
                        "dependentTasks": ["Gen", "Student"],
                        "inputs": {
                            "artifacts": {
                                "model": {
                                    "taskOutputArtifact": {
                                        "producerTask": "Student",
                                        "outputArtifactKey": "model",
                                    }
                                }
                            },
                            "parameters": {
                                "config": {"runtimeValue": {"constant": json.dumps(config)}}
                            },
                        },
                    },
                }
            },
        },
        "components": {"Student": component("Student"), "Evaluator": component("Evaluator")},
        "deploymentSpec": {
            "executors": {
                "Student_executor": executor(["--runner=DirectRunner"]),
                "Evaluator_executor": executor([]),
            }
        },
    }


def changed(change) -> list[Change]:
    after = spec()
    change(after)
    return explain(spec(), after)


def test_equal_pipelines_do_not_differ():
    assert explain(spec(), spec()) == []


def task(document, node):
    return document["root"]["dag"]["tasks"][node]


def container(document, node):
    return document["deploymentSpec"]["executors"][f"{node}_executor"]["container"]


def inside(document, text):
    task(document, "Evaluator")["inputs"]["parameters"]["config"]["runtimeValue"]["constant"] = text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda s: container(s, "Student")["resources"].update(cpuLimit=8.0),
            Change("Student", "resources.cpuLimit", "2.0", "8.0"),
        ),
        (
            lambda s: container(s, "Student").update(image="r/c@sha256:ab"),
            Change("Student", "image", "cortexflow:latest", "r/c@sha256:ab"),
        ),
        (
            lambda s: container(s, "Student")["args"].insert(0, "--verbose"),
            Change("Student", "args.--verbose", None, "true"),
        ),
        (
            lambda s: container(s, "Student")["args"].pop(),
            Change("Student", "args.--runner", "DirectRunner", None),
        ),
        (
            lambda s: task(s, "Student")["cachingOptions"].update(enableCache=False),
            Change("Student", "cache", "true", "false"),
        ),
        (
            lambda s: task(s, "Evaluator")["dependentTasks"].reverse(),
            None,
        ),
        (
            lambda s: task(s, "Evaluator")["dependentTasks"].append("Teacher"),
            Change("Evaluator", "after Teacher", None, "true"),
        ),
        (
            lambda s: task(s, "Evaluator")["inputs"]["artifacts"]["model"][
                "taskOutputArtifact"
            ].update(producerTask="Teacher"),
            Change("Evaluator", "input model", "Student.model", "Teacher.model"),
        ),
        (
            lambda s: inside(s, '{"metrics": [{"name": "auc"}, {"name": "loss"}]}'),
            Change("Evaluator", "config.metrics[1].name", "count", "loss"),
        ),
        (
            lambda s: inside(s, '{ "metrics":[{"name":"auc"},{"name":"count"}]}'),
            None,  # another spelling of the same JSON
        ),
        (
            lambda s: s["root"]["inputDefinitions"]["parameters"]["epochs"].update(defaultValue=7),
            Change(PIPELINE, "takes parameters.epochs.defaultValue", "5", "7"),
        ),
        (
            lambda s: task(s, "Student")["inputs"]["parameters"].update(
                epochs={"runtimeValue": {"constant": 5}}
            ),
            Change("Student", "epochs", "runtime parameter epochs", "5"),
        ),
        (
            lambda s: s.update(
                platforms={
                    "kubernetes": {
                        "deploymentSpec": {"executors": {"Student_executor": {"pool": "gpu"}}}
                    }
                }
            ),
            Change("Student", "kubernetes.pool", None, "gpu"),
        ),
        (
            lambda s: s.update(schemaVersion="2.2.0"),
            Change(PIPELINE, "schemaVersion", "2.1.0", "2.2.0"),
        ),
        (
            lambda s: container(s, "Student")["resources"].update(cpuLimit="2.0"),
            Change("Student", "resources.cpuLimit", "2.0", '"2.0"'),  # a text is no number
        ),
    ],
)
def test_one_change_is_told_in_one_line(change, expected):
    assert changed(change) == ([] if expected is None else [expected])


def test_a_node_that_came_or_went_is_one_change():
    after = spec()
    for place in (
        after["root"]["dag"]["tasks"],
        after["components"],
        after["deploymentSpec"]["executors"],
    ):
        for name in [name for name in place if name.startswith("Evaluator")]:
            del place[name]
    gist = "cortexflow:latest, after Gen, Student"
    assert explain(spec(), after) == [Change("Evaluator", "", gist, None)]
    assert explain(after, spec()) == [Change("Evaluator", "", None, gist)]


def test_nothing_that_differs_is_missed():
    """Every leaf, changed by itself, is told of."""

    def leaves(value, path=()):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                yield from leaves(inner, (*path, number))
        else:
            yield path

    # The name of a component says nothing by itself; to rename one end of a reference breaks it.
    told = [path for path in leaves(spec()) if not {"componentRef", "taskInfo"} & set(path)]
    assert len(told) > 20
    for path in told:
        after = copy.deepcopy(spec())
        place = after
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "changed"
        assert explain(spec(), after), path


def test_the_comment_groups_nodes_and_files():
    change = [Change(node, "image", "a:1", "a:2") for node in "ABCDEF"]
    text = render({"x-vertex.yaml": change, "x-kubeflow.yaml": change, "y.yaml": []})
    assert "`x-kubeflow.yaml`, `x-vertex.yaml`: 6 changes in 6 places." in text
    assert text.count("| A, B, C, D and 2 more | `image` | `a:1` | `a:2` |") == 1
    assert "`y.yaml`: no change." in text
    assert "as they are" in render({"y.yaml": []})


def test_a_value_cannot_break_out_of_its_cell():
    nasty = "a | b\n<img src=x> @someone `code` ```"
    text = render({"f": [Change("N", "field", nasty, "x" * 500)]})
    (row,) = [line for line in text.splitlines() if line.startswith("| N")]
    assert "````a \\| b <img src=x> @someone `code` ``` ````" not in row  # padded at backticks
    assert "```` a \\| b <img src=x> @someone `code` ``` ````" in row
    assert "…`" in row
    assert len(row) < 300


def test_a_comment_is_not_longer_than_github_takes():
    changes = [Change(f"Node{n}", "field", str(n), "y" * 300) for n in range(2_000)]
    text = render({"f": changes})
    assert len(text) < MAX_CHARACTERS + 500
    assert "more." in text.splitlines()[-1]
    assert "<details>" in text


def test_the_program_compares_folders(tmp_path):
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    after = spec()
    container(after, "Student")["resources"]["cpuLimit"] = 8.0
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}
    (tmp_path / "old/q-vertex.yaml").write_text(yaml.safe_dump(spec()))
    (tmp_path / "new/q-vertex.yaml").write_text(yaml.safe_dump_all([after, platform]))
    (tmp_path / "old/gone.yaml").write_text(yaml.safe_dump(spec()))
    (tmp_path / "new/added.yaml").write_text(yaml.safe_dump(spec()))

    def program():
        command = [sys.executable, "-m", "pipeline.ci_diff", tmp_path / "old", tmp_path / "new"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    answer = program()
    assert answer.returncode == 0, answer.stderr
    assert "| Student | `resources.cpuLimit` | `2.0` | `8.0` |" in answer.stdout
    assert "`added.yaml` is new." in answer.stdout
    assert "`gone.yaml` is gone." in answer.stdout
    for content, reason in (("a: [", "cannot be read"), ("[1]", "no compiled"), ("a: 1", "no pip")):
        (tmp_path / "new/q-vertex.yaml").write_text(content)
        answer = program()
        assert answer.returncode == 1
        assert reason in answer.stderr
        assert "Traceback" not in answer.stderr
