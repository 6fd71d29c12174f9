"""The image's steps, carried out in a folder as far as they go without an engine.

The base image is a fresh virtual environment of this Python 3.11; each COPY takes what
.dockerignore lets through, and each RUN of the build stage has a shell and an environment of its
own.
"""

import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.kubeflow.dockerfile import FILE, ROOT, lets_through, read

pytestmark = pytest.mark.slow

# How this machine reaches the package index, which is no part of the image.
NETWORK = ("PIP_", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_SYSTEM_CERTS", "SSL_CERT", "REQUESTS_CA")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
LIMIT = 4_000_000_000  # bytes of the environment; docs/kubernetes.md has the size


def reachable() -> bool:
    try:
        urllib.request.urlopen("https://pypi.org/simple/uv/", timeout=10).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def copy(text: str, folder: Path) -> None:
    """COPY from the context, past .dockerignore."""
    ignore = (ROOT / ".dockerignore").read_text()
    *sources, target = text.split()
    for source in sources:
        found = [ROOT / source] if (ROOT / source).is_file() else (ROOT / source).rglob("*")
        for path in found:
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and lets_through(name, ignore):
                place = folder / (name if target == "./" else target + name.removeprefix(source))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The root folder after the build stage's last step."""
    if not reachable():
        pytest.skip("the package index cannot be reached, from which the image is built")
    root = tmp_path_factory.mktemp("image")
    base = root / "usr/local"
    subprocess.run([sys.executable, "-m", "venv", base], check=True)
    (root / "root").mkdir()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(NETWORK) or name in PROXIES
    } | {"HOME": str(root / "root"), "PATH": f"{base}/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    folder = root
    _, stages = read(FILE.read_text())
    for kind, text in stages["build"].steps:
        if kind == "ARG":
            name, _, value = text.partition("=")
            environment[name] = value
        elif kind == "ENV":
            environment |= dict(word.split("=", 1) for word in shlex.split(text))
        elif kind == "WORKDIR":
            folder = root / text.lstrip("/")
            folder.mkdir(parents=True)
        elif kind == "COPY":
            copy(text, folder)
        elif kind == "RUN":
            answer = subprocess.run(
                ["/bin/sh", "-c", text],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert answer.returncode == 0, f"{text}\n{answer.stderr[-3000:]}"
        else:
            raise AssertionError(f"{kind} {text}: how is it carried out?")
    # What the later stages take is the environment; the sources stay behind.
    for room in folder.iterdir():
        if room.name != ".venv":
            shutil.rmtree(room) if room.is_dir() else room.unlink()
    return root


def run(image: Path, *command: str) -> subprocess.CompletedProcess:
    home = image / "home/cortexflow"
    home.mkdir(parents=True, exist_ok=True)
    path = f"{image}/opt/cortexflow/.venv/bin:/usr/bin:/bin"
    return subprocess.run(
        command,
        cwd=home,
        env={"PATH": path, "HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "2", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_answers(image):
    answer = run(image, "cortexflow", "--help")
    assert answer.returncode == 0, answer.stderr
    assert "Research use only" in answer.stdout


def test_tfx_own_entrypoint_answers_below_timeout(image):
    """As a compiled node starts it."""
    answer = run(
        image, "timeout", "--signal=TERM", "--kill-after=60", "300", "python", "-m",
        "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor", "--help",
    )  # fmt: skip
    assert "--executor_class_path" in answer.stdout + answer.stderr


def test_workers_trigger_and_data_files_are_installed(image):
    for module in ("components.distributed_training", "pipeline.trigger"):
        assert "usage:" in run(image, "python", "-m", module, "--help").stdout
    program = (
        "import importlib.resources as r, cli, schema; "
        "print(r.files('schema').joinpath('schema.pbtxt').is_file(), cli.__file__)"
    )
    told = run(image, "python", "-c", program).stdout.split()
    assert told[0] == "True"
    assert "site-packages" in told[1]


def test_nothing_of_developers_is_in_it_and_it_is_not_too_large(image):
    packages = image / "opt/cortexflow/.venv/lib/python3.11/site-packages"
    for name in ("pytest", "mypy", "ruff", "hypothesis", "nvidia", "tests/test_house.py"):
        assert not (packages / name).exists()
    size = sum(path.lstat().st_size for path in packages.parents[2].rglob("*") if not path.is_dir())
    print(f"{size / 1e9:.2f} GB")
    assert size < LIMIT
