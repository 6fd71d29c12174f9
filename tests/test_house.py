"""The house rules that no single room can hold: imports, packaging, files, documents."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = PROJECT["tool"]["importlinter"]["root_packages"]
CODE = sorted(file for room in [*ROOMS, "tests", "benchmarks"] for file in (ROOT / room).rglob("*"))
PYTHON = [file for file in CODE if file.suffix == ".py"]
PAGES = sorted(
    page
    for pattern in ["*.md", "docs/**/*.md", *[f"{room}/**/*.md" for room in [*ROOMS, "kubeflow"]]]
    for page in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def contracts_of(house: Path) -> subprocess.CompletedProcess:
    """Holds a house against the import contracts of its pyproject.toml."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
        ],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_point_one_way():
    answer = contracts_of(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_broken_contract_is_noticed(tmp_path):
    """The contracts, held against a house in which the trainer imports TFX."""
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    (tmp_path / "trainer" / "run.py").write_text("import tfx\n")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    answer = contracts_of(tmp_path)
    assert answer.returncode == 1, answer.stderr
    assert "TFX stays at the edge BROKEN" in answer.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_entering_a_room_is_light(room):
    program = (
        f"import sys, {room}; "
        "print(*{'tensorflow', 'apache_beam', 'tfx', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert answer.stdout.split() == []


def test_the_wheel_holds_the_rooms_and_their_data(tmp_path):
    """Beam workers and the image install the wheel: what it lacks, they lack."""
    source, out = tmp_path / "source", tmp_path / "out"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "kubeflow", source / "kubeflow")
    out.mkdir()
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})",
        ],
        cwd=source,
        capture_output=True,
        check=True,
    )
    [wheel] = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        relative(file)
        for file in CODE
        if file.is_file()
        and relative(file).split("/")[0] in ROOMS
        and "__pycache__" not in file.parts
        and file.suffix != ".md"
    }
    assert packed == expected


def test_the_command_is_installed():
    [entry] = importlib.metadata.entry_points(group="console_scripts", name="cortexflow")
    assert entry.value == "cli.main:main"
    assert callable(entry.load())


def test_kubeflow_holds_no_python():
    assert not list((ROOT / "kubeflow").rglob("*.py"))


def test_one_version_of_uv():
    versions = {
        name: re.search(r"UV_VERSION ?:?= ?([\d.]+)", (ROOT / name).read_text()).group(1)
        for name in ("Makefile", "kubeflow/Dockerfile")
    }
    assert len(set(versions.values())) == 1, versions


def test_the_image_copies_every_room():
    text = (ROOT / "kubeflow/Dockerfile").read_text()
    assert sorted(re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE)) == sorted(ROOMS)
    reaches = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{room}" for room in ROOMS} <= set(reaches)


def test_make_help_lists_every_task():
    text = (ROOT / "Makefile").read_text()
    tasks = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split()
    answer = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[1] for line in answer.stdout.splitlines()] == tasks


def test_a_file_fits_a_head():
    """Beyond 400 lines a file is two things: split it."""
    lengths = {relative(file): len(file.read_text().splitlines()) for file in PYTHON}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_files_are_named_for_what_they_hold(name):
    assert [relative(file) for file in CODE if file.stem == name] == []


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text()):
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{relative(page)} links to {target}"
        assert not anchor or anchor in anchors(place), f"{relative(page)}: no heading #{anchor}"


def test_decisions_cited_in_code_exist():
    cited = {
        number for file in PYTHON for number in re.findall(r"docs/adr/(\d{4})", file.read_text())
    }
    written = {page.name[:4] for page in (ROOT / "docs/adr").glob("*.md")}
    assert cited <= written
    index = (ROOT / "docs/README.md").read_text()
    assert all(f"[{number}](adr/{number}-" in index for number in written)


def test_each_file_of_tests_has_a_name_of_its_own():
    """Without packages pytest knows files by name alone, and says so only when it collects both."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
