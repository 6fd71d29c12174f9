"""What the manifests start: commands, options and settings that there are."""

import re
import shlex

import pytest
import typer

from cli.main import app
from pipeline import presets, trigger
from pipeline.backends import packages
from pipeline.backends.opening import target_of
from pipeline.config import with_overrides
from tests.kubeflow.kustomized import OVERLAYS, ROOT, everything, named, pods


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("kustomizations"))


def settings_of(builds, name: str) -> dict[str, str]:
    return next(
        it["data"] for key, it in named(builds[name], "ConfigMap").items() if "settings" in key
    )


def commands(builds, name: str) -> list[list[str]]:
    """What our image is started with, settings filled in."""
    known = settings_of(builds, name) | {"POD_NAME": "a-pod"}
    found = []
    for _, _, spec in pods(builds[name]):
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            if "tensorflow/serving" in container["image"]:
                continue
            arguments = [
                re.sub(r"\$\((\w+)\)", lambda match: known[match[1]], argument)
                for argument in container["args"]
            ]
            found.append(arguments)
    return found


def check(arguments: list[str]) -> None:
    """Holds arguments against the command: its name, its options, what it requires."""
    program, *rest = arguments
    if program == "python":
        assert rest[:2] == ["-m", "pipeline.trigger"]
        trigger.parser({}).parse_args(rest[2:])
        return
    assert program == "cortexflow"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *rest = rest
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    given = {word.split("=")[0] for word in rest if word.startswith("-")}
    options = [each for each in command.params if each.param_type_name == "option"]
    there = {name for each in options for name in (*each.opts, *each.secondary_opts)}
    assert given <= there, f"no options {given - there}"
    for each in options:
        assert not each.required or given & {*each.opts}, each.name
    flags = {name for each in options if each.is_flag for name in each.opts}
    for word in rest:
        assert not word.startswith("--") or ("=" in word) != (word in flags), word
    positional = [each for each in command.params if each.param_type_name == "argument"]
    assert len([word for word in rest if not word.startswith("-")]) == len(positional)


@pytest.mark.parametrize("name", ["base", *OVERLAYS, "base with kserve"])
def test_every_command_is_one_that_there_is(builds, name):
    found = commands(builds, name)
    kinds = {shlex.join(each[:2]) for each in found}
    assert {"cortexflow compile", "cortexflow drift", "cortexflow audit", "python -m"} <= kinds
    assert "cortexflow submit" in kinds
    for arguments in found:
        assert not re.search(r"\$\(", shlex.join(arguments)), "a setting is missing"
        check(arguments)


@pytest.mark.parametrize(
    "arguments", ["drift data --permutation-count=3", "audit prove", "drift", "submit mri --wait"]
)
def test_a_command_that_there_is_not_is_noticed(arguments):
    with pytest.raises(AssertionError):
        check(["cortexflow", *arguments.split()])


@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_settings_are_settings_of_the_config(builds, name):
    preset = settings_of(builds, name)["PRESET"]
    tried = 0
    for arguments in commands(builds, name):
        assignments = [
            each.removeprefix("--set=") for each in arguments if each.startswith("--set=")
        ]
        if assignments:
            tried += 1
            changed = with_overrides(presets.load(preset), assignments)
            assert changed.cluster.service_account == "cortexflow-pipeline"
    assert tried == 2


@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_the_trigger_starts_with_its_settings(builds, name, package):
    """Options and environment together are settings that it accepts."""
    [arguments] = [each for each in commands(builds, name) if each[0] == "python"]
    known = settings_of(builds, name)
    if name == "base":  # who may send is the overlays' to say
        known = known | {"CORTEXFLOW_TRIGGER_NO_TOKEN": "true"}
    given = trigger.parser(known).parse_args(arguments[3:])
    settings = trigger.settings_of(given, package)
    assert settings.on == known["CORTEXFLOW_BACKEND"]
    assert settings.pipeline_root == known["PIPELINE_ROOT"]
    assert settings.parameters["registry"] == known["CORTEXFLOW_REGISTRY"]
    assert (trigger.token_check(given) is None) == (not name.startswith("prod"))


@pytest.fixture(scope="module")
def package() -> str:
    """The pipeline as it is compiled for Kubeflow."""
    return (ROOT / "kubeflow/golden/quickstart-kubeflow.yaml").read_text()


@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_parameters_are_the_pipelines(builds, name, package):
    """Both who submit give all that a pipeline needs, and nothing that it does not know."""
    assert target_of(settings_of(builds, name)["CORTEXFLOW_BACKEND"]) == "kubeflow"
    known = packages.read(package)
    tried = 0
    for arguments in commands(builds, name):
        given = [each.removeprefix("--param=") for each in arguments if each.startswith("--param=")]
        if given:
            tried += 1
            values = packages.given_parameters(known, given)
            assert set(packages.missing(known, values)) <= {"dataset"}
    assert tried == 2
