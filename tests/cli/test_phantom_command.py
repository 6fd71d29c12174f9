import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli.phantom
from cli.phantom import app
from ingest.phantom import LAYOUTS, PRESETS, PhantomSpec, SpecError, load_spec

SMALL = ["--subjects", "2,1,1,1", "--slices", "3", "--workers", "1"]


def run(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_generate_prints_the_folder_and_nothing_else(tmp_path):
    options = ["--preset", "easy", "--site", "0,2", "--seed", "5", "--size", "80"]
    result = run("generate", *SMALL, *options, "--out", tmp_path)
    assert result.exit_code == 0
    folder = Path(result.stdout.strip())
    assert folder.parent == tmp_path
    assert load_spec(folder) == PhantomSpec("easy", (2, 1, 1, 1), 3, 80, (0, 2), 5)


def test_the_workspace_is_the_cache_by_default(tmp_path):
    result = run("generate", *SMALL, "--workspace", tmp_path)
    assert Path(result.stdout.strip()).parent == tmp_path / "phantoms"


def test_export_writes_layout_and_truth(tmp_path):
    folder = run("generate", *SMALL, "--cache", tmp_path / "cache").stdout.strip()
    truth = tmp_path / "truth.json"
    result = run("export", folder, "tourist55", "--out", tmp_path / "out", "--truth", truth)
    assert result.exit_code == 0
    sources = json.loads(truth.read_text())
    assert f"{len(sources)} images" in result.stdout
    assert all((tmp_path / "out" / path).is_file() for path in sources)


@pytest.mark.parametrize(("option", "value"), [("--subjects", "many"), ("--site", "0;1")])
def test_what_is_not_a_number_is_refused(option, value, tmp_path):
    result = run("generate", option, value, "--out", tmp_path)
    assert result.exit_code == 2
    assert option in result.output


def test_what_is_out_of_range_is_an_error_of_use(tmp_path):
    result = run("generate", "--size", "32", "--out", tmp_path)
    assert isinstance(result.exception, SpecError)


def test_help_names_every_preset_layout_and_an_example():
    generate, export = (run(command, "--help").output for command in ("generate", "export"))
    assert all(name in generate for name in PRESETS)
    assert all(name in export for name in LAYOUTS)
    assert "cortexflow phantom generate" in generate
    assert "cortexflow phantom export" in export


def test_help_imports_nothing_heavy():
    script = (
        "import sys, cli.phantom; "
        "print(sorted({'numpy', 'scipy', 'tensorflow', 'PIL'} & set(sys.modules)))"
    )
    root = Path(cli.phantom.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
