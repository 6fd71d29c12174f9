"""Steps of workflows and of Cloud Build, carried out as their runners do, on this machine.

The environment is faked at its edge only: programs that reach other machines, the files of the
runner, and the values of expressions, which a table gives.
"""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("docker", "gcloud", "gh", "curl")
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_SUBSTITUTION = re.compile(r"(?<!\$)\$\{?([A-Z_][A-Z0-9_]*)\}?")


@dataclasses.dataclass(frozen=True)
class Step:
    """A step that runs a script. `key` names it: file, job, step."""

    key: str
    script: str
    environment: Mapping[str, str]
    shell: tuple[str, ...]


def documents() -> dict[str, dict]:
    """All workflows and actions, by name of file."""
    github = ROOT / ".github"
    files = [*sorted(github.glob("workflows/*.yml")), *sorted(github.glob("actions/*/action.yml"))]
    return {str(file.relative_to(github)): yaml.safe_load(file.read_text()) for file in files}


def github_steps() -> Iterator[Step]:
    """Every step with `run:` of every workflow and action."""
    for file, document in documents().items():
        jobs = document.get("jobs") or {"runs": document["runs"]}
        default = document.get("defaults", {}).get("run", {}).get("shell")
        for job, told in jobs.items():
            for number, step in enumerate(told.get("steps", ())):
                if "run" not in step:
                    continue
                key = f"{file}: {job}: {step.get('name', number)}"
                shell = step.get("shell", default)
                # https://docs.github.com: what the runner makes of `shell: bash`
                assert shell == "bash", f"{key} has the shell {shell}, without pipefail"
                yield Step(
                    key=key,
                    script=step["run"],
                    environment=told.get("env", {}) | step.get("env", {}),
                    shell=("bash", "--noprofile", "--norc", "-eo", "pipefail"),
                )


def cloud_build_steps() -> Iterator[Step]:
    """Every step of Cloud Build, its substitutions not replaced yet."""
    document = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
    for step in document["steps"]:
        assert step["entrypoint"] == "bash"
        *options, script = step["args"]
        yield Step(
            key=f"cloudbuild.yaml: {step['id']}",
            script=script,
            environment=dict(one.split("=", 1) for one in step.get("env", [])),
            shell=("bash", *options),
        )


def substituted(text: str, values: Mapping[str, str]) -> str:
    """What Cloud Build makes of a text: substitutions replaced, `$$` a dollar."""
    return _SUBSTITUTION.sub(lambda found: values[found[1]], text).replace("$$", "$")


def evaluated(text: str, values: Mapping[str, str]) -> str:
    """A text with its expressions replaced; one that the table lacks is an error."""
    return _EXPRESSION.sub(lambda found: values[found[1]], str(text))


class Runner:
    """A place where steps run: a checkout in miniature, a PATH with fakes, the runner's files."""

    def __init__(self, folder: Path):
        self.work = folder / "work"
        self.fakes = folder / "fakes"
        self.temporary = folder / "temporary"
        for made in (self.work / "build", self.work / ".venv/bin", self.fakes, self.temporary):
            made.mkdir(parents=True)
        for name in TOOLS:
            self._script(self.fakes / name, "tests.ci.fake_tool", name)
        self._script(self.work / ".venv/bin/cortexflow", "tests.ci.fake_tool", "cortexflow")
        python = self.work / ".venv/bin/python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        for name in (".ci", "Makefile", "pyproject.toml", "uv.lock", "setup.py"):
            (self.work / name).symlink_to(ROOT / name)
        (self.work / "kubeflow/golden").mkdir(parents=True)
        shutil.copy(ROOT / "kubeflow/Dockerfile", self.work / "kubeflow")
        for file in ("output", "summary", "environment"):
            (folder / file).touch()
        self._folder = folder

    def _script(self, path: Path, module: str, name: str) -> None:
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} {name} "$@"\n')
        path.chmod(0o755)

    def run(
        self, step: Step, values: Mapping[str, str], **more: str
    ) -> "subprocess.CompletedProcess[str]":
        """Carries out a step of a workflow."""
        assert "${{" not in step.script, f"{step.key}: an expression in a script is an injection"
        environment = {name: evaluated(text, values) for name, text in step.environment.items()}
        return self._run(step.shell, step.script, environment | more)

    def run_on_cloud_build(
        self, step: Step, values: Mapping[str, str], **more: str
    ) -> "subprocess.CompletedProcess[str]":
        """Carries out a step of Cloud Build."""
        environment = {name: substituted(text, values) for name, text in step.environment.items()}
        return self._run(step.shell, substituted(step.script, values), environment | more)

    def _run(self, shell, script, environment) -> "subprocess.CompletedProcess[str]":
        file = self._folder / "script.sh"
        file.write_text(script)
        last = [str(file)] if shell[-1] != "-c" else [script]
        given = {
            "PATH": f"{self.fakes}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.temporary),
            "LANG": "C.UTF-8",
            "FAKES": str(self.fakes),
            "PYTHONPATH": str(ROOT),
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": "workflow_dispatch",
            "GITHUB_OUTPUT": str(self._folder / "output"),
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_RUN_ID": "1234",
            "GITHUB_SHA": "f" * 40,
            "GITHUB_STEP_SUMMARY": str(self._folder / "summary"),
            "MAKEFLAGS": "n",  # what make would do: the checks themselves take minutes
            "RUNNER_TEMP": str(self.temporary),
        }
        return subprocess.run(
            [*shell, *last],
            cwd=self.work,
            env=given | {name: str(value) for name, value in environment.items()},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @property
    def calls(self) -> list[list[str]]:
        """What the fakes were called with, in order."""
        file = self.fakes / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def outputs(self) -> dict[str, str]:
        """What steps handed on."""
        lines = (self._folder / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def summary(self) -> str:
        """The job's summary."""
        return (self._folder / "summary").read_text()


def present(program: str) -> bool:
    """Whether a program is on the PATH of the steps."""
    return shutil.which(program, path="/usr/local/bin:/usr/bin:/bin") is not None
