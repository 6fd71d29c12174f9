"""What the manifests start: commands, options and settings that there are."""

import re
import shlex

import click
import pytest
import typer

from cli.main import app
from pipeline import presets, trigger
from pipeline.backends.opening import target_of
from pipeline.config import with_overrides
from tests.kubeflow.kustomized import OVERLAYS, everything, named, pods


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


def parsed(arguments: list[str]):
    """Reads arguments as the command does; exits where it has no such option."""
    program, *rest = arguments
    if program == "python":
        assert rest[:2] == ["-m", "pipeline.trigger"]
        return trigger.parser({}).parse_args(rest[2:])
    assert program == "cortexflow"
    group = typer.main.get_command(app)
    context = click.Context(group)
    while hasattr(group, "get_command"):
        name, *rest = rest
        group = group.get_command(context, name)
        assert group is not None, f"there is no command {name}"
    for parameter in group.params:  # folders of the container are not on this machine
        if isinstance(parameter.type, click.Path):
            parameter.type = click.Path()
    return group.make_context(group.name, list(rest), parent=context)


@pytest.mark.parametrize("name", ["base", *OVERLAYS, "base with kserve"])
def test_every_command_is_one_that_there_is(builds, name):
    found = commands(builds, name)
    kinds = {shlex.join(each[:2]) for each in found}
    assert {"cortexflow compile", "cortexflow drift", "cortexflow audit", "python -m"} <= kinds
    assert "cortexflow submit" in kinds
    for arguments in found:
        assert not re.search(r"\$\(", shlex.join(arguments)), "a setting is missing"
        parsed(arguments)


def test_an_option_that_there_is_not_is_noticed():
    with pytest.raises(click.NoSuchOption):
        parsed(["cortexflow", "drift", "folder", "--permutation-count=3"])


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
def test_the_trigger_starts_with_its_settings(builds, name):
    """Options and environment together are settings that it accepts."""
    [arguments] = [each for each in commands(builds, name) if each[0] == "python"]
    known = settings_of(builds, name)
    if name == "base":  # who may send is the overlays' to say
        known = known | {"CORTEXFLOW_TRIGGER_NO_TOKEN": "true"}
    given = trigger.parser(known).parse_args(arguments[3:])
    settings = trigger.settings_of(given)
    assert settings.on == known["CORTEXFLOW_BACKEND"]
    assert settings.parameters["registry"] == known["CORTEXFLOW_REGISTRY"]
    check = trigger.token_check(given)
    assert (check is None) == (not name.startswith("prod"))


def test_parameters_of_the_trigger_are_the_pipelines(builds):
    assert target_of(settings_of(builds, "base")["CORTEXFLOW_BACKEND"]) == "kubeflow"
    [arguments] = [each for each in commands(builds, "base") if each[0] == "python"]
    names = {each.split("=")[1] for each in arguments if each.startswith("--param=")}
    assert names == {"registry", "checkpoint_root", "touches"}
