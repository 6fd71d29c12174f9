"""The image, as far as it can be read: linted, complete, nobody's root, small in its context."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib

import pytest

from tests.kubeflow.dockerfile import FILE, ROOT, lets_through, read

ARGUMENTS, STAGES = read(FILE.read_text())
IGNORE = (ROOT / ".dockerignore").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = PROJECT["tool"]["importlinter"]["root_packages"]


def tracked() -> list[str]:
    answer = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        pytest.skip("no git checkout: tracked files are not known")
    return answer.stdout.splitlines()


def test_the_linter_finds_nothing():
    linter = shutil.which("hadolint", path=str(ROOT / ".venv/bin")) or shutil.which("hadolint")
    assert linter is not None, "make setup installs hadolint"
    answer = subprocess.run([linter, FILE], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_the_linter_is_not_blind(tmp_path):
    linter = shutil.which("hadolint", path=str(ROOT / ".venv/bin")) or shutil.which("hadolint")
    assert linter is not None, "make setup installs hadolint"
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp && apt-get install x\n")
    answer = subprocess.run(
        [linter, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "DL3007" in answer.stdout


def test_stages_and_targets():
    assert list(STAGES) == ["build", "build-gpu", "runtime", "gpu", "cpu"]
    assert STAGES["gpu"].base == STAGES["cpu"].base == "runtime"
    for name in ("build", "runtime"):  # by digest where one is given
        assert STAGES[name].base == "${BASE_IMAGE}${BASE_DIGEST:+@${BASE_DIGEST}}"
    assert ARGUMENTS.keys() == {"BASE_IMAGE", "BASE_DIGEST"}
    assert "latest" not in ARGUMENTS["BASE_IMAGE"]


def test_what_is_copied_are_the_packages_and_what_builds_them():
    copied = [text.split() for text in STAGES["build"].all("COPY")]
    sources = {source for *sources, _ in copied for source in sources}
    assert sources == {*ROOMS, "pyproject.toml", "uv.lock", "setup.py", "README.md", "LICENSE"}
    packaged = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packaged} == {*ROOMS}


def test_everything_is_installed_from_the_lock_without_what_developers_need():
    for name, groups in (("build", set()), ("build-gpu", {"gpu"})):
        for step in STAGES[name].all("RUN"):
            if "uv sync" not in step:
                continue
            assert {"--locked", "--no-dev"} <= {*step.split()}
            assert {*re.findall(r"--group (\S+)", step)} == groups
    assert "--no-editable" in STAGES["build"].all("RUN")[-1]


def test_the_gpu_group_is_the_same_tensorflow():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    [gpu] = PROJECT["dependency-groups"]["gpu"]
    [own] = [it for it in PROJECT["project"]["dependencies"] if it.startswith("tensorflow>")]
    assert gpu.replace("[and-cuda]", "") == own
    [tensorflow] = [it for it in lock if it["name"] == "tensorflow"]
    needed = {it["name"] for it in tensorflow["optional-dependencies"]["and-cuda"]}
    folders = {
        name.removeprefix("nvidia-").removesuffix("-cu12").replace("-", "_") for name in needed
    }
    [environment] = STAGES["gpu"].all("ENV")
    assert set(re.findall(r"\{CUDA\}/(\w+)/lib", environment)) == folders - {"cuda_nvcc"}
    assert "{CUDA}/cuda_nvcc" in environment


def test_it_runs_as_nobody_and_tells_what_it_is():
    runtime = STAGES["runtime"]
    assert runtime.all("USER") == ["10001:10001"]
    assert not STAGES["gpu"].all("USER")
    assert not STAGES["cpu"].all("USER")
    [labels] = runtime.all("LABEL")
    keys = {"title", "description", "licenses", "version", "revision", "created", "source"}
    found = {*re.findall(r"org\.opencontainers\.image\.([\w.]+)=", labels)}
    assert keys | {"base.name", "base.digest"} == found
    assert "not for diagnosis" in labels
    assert not [
        kind for stage in STAGES.values() for kind, _ in stage.steps if kind == "ENTRYPOINT"
    ]
    # As the compiled pipeline and the distributed jobs expect it.
    from pipeline.distributed import USER

    assert runtime.all("USER")[0].startswith(f"{USER}:")
    assert any("timeout --version" in step for step in runtime.all("RUN"))


def test_nothing_secret_and_nothing_of_this_machine_is_in_it():
    text = FILE.read_text() + IGNORE
    assert not re.search(r"(?i)token|password|secret|index-url|/home/(?!cortexflow)", text)


def test_only_what_is_copied_reaches_the_builder():
    copied = {
        source
        for stage in STAGES.values()
        for text in stage.all("COPY")
        if not text.startswith("--from")
        for source in text.split()[:-1]
    }
    for path in tracked():
        wanted = any(path == each or path.startswith(f"{each}/") for each in copied)
        assert lets_through(path, IGNORE) == wanted, path
    for path in ("cli/__pycache__/main.pyc", "trainer/x.pyc", "workspace/data/a", ".git/config"):
        assert not lets_through(path, IGNORE), path
    for each in copied:
        assert (ROOT / each).exists()


@pytest.mark.parametrize(
    ("words", "healthy"),
    [
        (["/x/python", "/x/cortexflow", "serve", "--rest-port={port}"], True),
        (["/x/python", "/x/cortexflow", "serve", "--rest-port", "{port}"], True),
        (["cortexflow", "serve", "--rest-port={closed}"], False),
        (["python", "-m", "pipeline.trigger", "--port={port}"], True),
        (["python", "-m", "pipeline.trigger", "--port={closed}"], False),
        (["timeout", "60", "python", "-m", "tfx.orchestration.kubeflow"], True),
        (["cortexflow", "drift", "/srv/data"], True),
    ],
)
def test_a_server_is_asked_and_a_job_is_left_alone(tmp_path, words, healthy):
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Healthy)
    closed = http.server.HTTPServer(("127.0.0.1", 0), Healthy)
    closed.server_close()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        told = [word.format(port=server.server_port, closed=closed.server_port) for word in words]
        (tmp_path / "cmdline").write_text("\0".join([*told, ""]))
        (tmp_path / "python").symlink_to(sys.executable)
        answer = subprocess.run(
            ["sh", ROOT / "kubeflow/healthcheck.sh", tmp_path / "cmdline"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert (answer.returncode == 0) == healthy
    [check] = STAGES["runtime"].all("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    [copy] = [each for each in STAGES["runtime"].all("COPY") if "healthcheck" in each]
    assert command == ["sh", copy.split()[1]]
