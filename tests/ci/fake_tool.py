"""Stands on the PATH where a step of CI would reach another machine: docker, gcloud, gh, curl.

Also in the place of `.venv/bin/cortexflow`: there the command line is held against the real
one, `submit` is really carried out as far as --dry-run goes, and `compile` writes a small pipeline.
What is called is kept in FAKES/calls.jsonl; FAKES/comments.json is what GitHub knows, FAKES/submit
the exit code and the last line of a run.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

FAKES = Path(os.environ.get("FAKES", "."))
DIGESTS = {"cpu": "sha256:" + "c" * 64, "gpu": "sha256:" + "9" * 64}
PACKAGE = """\
pipelineInfo: {name: NAME}
root:
  dag: {tasks: {Student: {componentRef: {name: Student}}}}
  inputDefinitions:
    parameters:
      dataset: {parameterType: STRING}
      registry: {parameterType: STRING}
      teacher_epochs: {parameterType: NUMBER_INTEGER, defaultValue: 20}
components: {Student: {executorLabel: Student}}
deploymentSpec: {executors: {Student: {container: {image: IMAGE}}}}
"""


def docker(words: list[str]) -> str:
    """`buildx create` and `buildx build`, with the options that are used and no others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("plugin", choices=["buildx"])
    commands = parser.add_subparsers(required=True)
    create = commands.add_parser("create")
    create.add_argument("--name", required=True)
    create.add_argument("--driver", choices=["docker-container"], required=True)
    create.add_argument("--use", action="store_true", required=True)
    build = commands.add_parser("build")
    build.add_argument("--file", required=True)
    build.add_argument("--target", choices=["cpu", "gpu"], required=True)
    build.add_argument("--build-arg", action="append", required=True)
    build.add_argument("--provenance", choices=["mode=max"], required=True)
    build.add_argument("--sbom", choices=["true"], required=True)
    for option in ("--cache-from", "--cache-to"):
        build.add_argument(option, required=True)
    build.add_argument("--tag", action="append", required=True)
    build.add_argument("--push", action="store_true", required=True)
    build.add_argument("--metadata-file", required=True)
    build.add_argument("context", choices=["."])
    given = parser.parse_args(words)
    if "file" in given:
        assert Path(given.file).is_file(), given.file
        told = {"containerimage.digest": DIGESTS[given.target]}
        Path(given.metadata_file).write_text(json.dumps(told))
    return ""


def gcloud(words: list[str]) -> str:
    """Three commands."""
    if words[:2] == ["auth", "configure-docker"]:
        assert words[2:] == ["europe-docker.pkg.dev", "--quiet"], words
        return ""
    if words == ["auth", "print-access-token"]:
        return "access-token\n"
    *command, image, option, form = words
    assert command == ["artifacts", "docker", "images", "describe"], words
    assert (option, form) == ("--format", "value(image_summary.digest)"), words
    return "" if (FAKES / "no-image").exists() else DIGESTS[image.rpartition("-")[2]] + "\n"


def gh(words: list[str]) -> str:
    """`gh api`: reads comments through a jq filter, or writes one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["api"])
    parser.add_argument("address")
    parser.add_argument("--method", choices=["POST", "PATCH"])
    parser.add_argument("--paginate", action="store_true")
    parser.add_argument("--jq")
    parser.add_argument("--field")
    parser.add_argument("--silent", action="store_true")
    given = parser.parse_args(words)
    assert os.environ["GH_TOKEN"] == "job-token"
    if given.method:
        name, _, file = given.field.partition("=@")
        assert name == "body"
        assert Path(file).read_text().startswith("<!-- cortexflow: compiled pipelines -->")
        return ""
    assert given.address == "repos/o/r/issues/7/comments?per_page=100"
    known = (FAKES / "comments.json").read_text()
    command = ["jq", "--raw-output", given.jq]
    return subprocess.run(command, input=known, capture_output=True, text=True, check=True).stdout


def curl(words: list[str]) -> str:
    """An upload with headers from standard input."""
    assert words[:5] == ["--fail-with-body", "--silent", "--show-error", "--header", "@-"], words
    assert sys.stdin.read() == "Authorization: Bearer access-token"
    (tags, content), address = words[6:9:2], words[9]
    assert words[5] == words[7] == "--form"
    assert tags.startswith("tags=")
    assert Path(content.removeprefix("content=@")).is_file(), content
    assert address.startswith("https://europe-kfp.pkg.dev/")
    return "{}\n"


def cortexflow(words: list[str]) -> str:
    """The command line as it is; what takes long or needs a cluster is left out."""
    import typer

    from cli.main import app

    name, *rest = words
    group = typer.main.get_command(app)
    with group.make_context("cortexflow", [name]) as context:
        command = group.get_command(context, name)
        assert command is not None, f"there is no cortexflow {name}"
        given = command.make_context(name, list(rest), parent=context).params
    if name == "compile":
        assert given["target"] in ("kubeflow", "vertex")
        images = [one for one in given["settings"] or [] if one.startswith("cluster.image=")]
        text = PACKAGE.replace("IMAGE", images[0].partition("=")[2] if images else "latest")
        given["out"].parent.mkdir(parents=True, exist_ok=True)
        given["out"].write_text(text.replace("NAME", given["preset"]))
        return "compiled\n"
    assert name == "submit", name
    real = Path(sys.executable).with_name("cortexflow")
    tried = subprocess.run([real, *words, "--dry-run"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr + tried.stdout
    code, _, line = (FAKES / "submit").read_text().partition(" ")
    print(f"run 42\nhttps://runs.example.org/42\n{line}", flush=True)
    raise SystemExit(int(code))


if __name__ == "__main__":
    tool, *arguments = sys.argv[1:]
    with (FAKES / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps([tool, *arguments]) + "\n")
    sys.stdout.write(globals()[tool](arguments))
