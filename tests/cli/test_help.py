"""What `cortexflow` shows, how fast it may be to show it, and what becomes of an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.main import CortexflowGroup, app
from schema.errors import CortexflowError

ROOT = Path(__file__).resolve().parents[2]
PANELS = {
    "Data": ["ingest", "phantom", "schema", "leakage", "drift"],
    "Pipeline": [
        "run",
        "runs",
        "show",
        "report",
        "compile",
        "submit",
        "logs",
        "stop",
        "schedule",
        "card",
        "study",
        "control",
    ],
    "Models": [
        "predict",
        "versions",
        "push",
        "promote",
        "rollback",
        "set-traffic",
        "history",
        "diff",
        "verify",
        "gc",
        "sign",
        "audit",
        "override",
        "serve",
        "checkpoint",
    ],
}
HEAVY = ("apache_beam", "matplotlib", "numpy", "pandas", "pydantic", "scipy", "tensorflow", "tfx")


@pytest.fixture
def wide():
    """Runs the command in this process on a terminal too wide to wrap lines."""
    runner = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    return lambda *arguments: runner.invoke(app, arguments, prog_name="cortexflow")


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs the command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def leaves(command, path=()):
    """Every command of the tree, with the words that lead to it."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))


ALL = list(leaves(typer.main.get_command(app)))


def test_help_lists_every_command_under_its_heading(wide):
    lines = wide("--help").stdout.splitlines()
    shown, panel = {}, None
    for line in lines:
        if line.startswith("╭─ "):
            panel = line.split()[1]
        elif panel in PANELS and line.startswith("│ ") and not line.startswith("│  "):
            shown.setdefault(panel, []).append(line.split()[1])
    assert shown == PANELS


def test_help_says_what_the_product_is_not_for(wide):
    assert wide("--help").stdout.strip().endswith("Research use only, not for diagnosis.")


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(wide, path):
    answer = wide(*path, "--help")
    assert answer.exit_code == 0
    assert f"Usage: {' '.join(['cortexflow', *path])}" in answer.stdout


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_nothing_heavy_is_imported_to_answer(option):
    program = (
        "import sys; from cli.main import main\n"
        f"sys.argv[1:] = [{option!r}]\n"
        "try: main()\n"
        f"finally: print('HEAVY:', *sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert answer.stdout.splitlines()[-1] == "HEAVY:"


def test_version_is_the_distribution_s(wide):
    from importlib.metadata import version

    assert wide("--version").stdout == f"cortexflow {version('cortexflow')}\n"


def test_a_misspelt_command_gets_a_suggestion():
    answer = started("rolback")
    assert answer.returncode == 2
    assert "Did you mean 'rollback'?" in answer.stderr


def test_no_command_shows_the_help(wide):
    answer = wide()
    assert answer.exit_code == 2
    assert "Usage: cortexflow" in answer.stdout


def test_an_error_of_use_is_the_last_line(tmp_path):
    answer = started("show", "nosuch", "--workspace", str(tmp_path))
    assert answer.returncode == 1
    assert answer.stdout == ""
    [line] = answer.stderr.splitlines()
    assert line.startswith("Error: No run 'nosuch'")


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["--debug"], {}), ([], {"CORTEXFLOW_DEBUG": "1"})]
)
def test_debug_shows_where_an_error_came_from(tmp_path, arguments, environment):
    answer = started(*arguments, "show", "nosuch", "--workspace", str(tmp_path), **environment)
    assert answer.returncode == 1
    assert "Traceback (most recent call last)" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("pipeline.runs.UnknownRun: No run 'nosuch'")


def raising(error: BaseException):
    """Invokes a command of the same kind of app that raises `error`."""
    failing = typer.Typer(cls=CortexflowGroup)

    @failing.callback()
    def options(debug: bool = False):
        """Has the option that the group reads."""

    @failing.command()
    def fail():
        raise error

    return CliRunner().invoke(failing, ["fail"])


def test_an_error_of_several_lines_becomes_one():
    answer = raising(CortexflowError("Two classes are empty:\n  a\n  b\nAdd images."))
    assert answer.exit_code == 1
    assert answer.stderr == "Error: Two classes are empty: a b Add images.\n"


def test_a_defect_keeps_its_exception():
    defect = KeyError("row")
    answer = raising(defect)
    assert answer.exception is defect
    assert answer.stderr == ""


def test_an_interrupt_exits_as_shells_expect():
    assert raising(KeyboardInterrupt()).exit_code == 130


def test_the_shell_completes_commands():
    answer = started(
        _CORTEXFLOW_COMPLETE="complete_bash", COMP_WORDS="cortexflow ro", COMP_CWORD="1"
    )
    assert answer.stdout.split() == ["rollback"]
