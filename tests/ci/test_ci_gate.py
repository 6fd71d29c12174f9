"""A command's exit code, told where people look."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def command(script: str) -> list[str]:
    gate = [sys.executable, "-m", "pipeline.ci_gate", "--title", "quickstart on vertex", "--"]
    return [*gate, sys.executable, "-c", script]


def gate(script: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    return subprocess.run(
        command(script),
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("code", "word"),
    [(0, "passed"), (2, "refused"), (3, "insufficient evidence"), (1, "failed"), (130, "stopped")],
)
def test_the_job_ends_as_the_run_did_and_says_why(tmp_path, code, word):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    script = f"""
import sys
print("\\x1b[32mRun\\x1b[0m https://runs.example.org/42.")
for n in range(50): print("waiting", n)
print("macro AUC 0.61 is below 0.70", file=sys.stderr)
sys.exit({code})
"""
    answer = gate(script, GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true")
    assert answer.returncode == code
    text = summary.read_text()
    assert text.startswith("before\n")
    assert f"quickstart on vertex: {word} (exit code {code})" in text
    assert "> macro AUC 0.61 is below 0.70" in text
    assert "Run: <https://runs.example.org/42>" in text
    assert "waiting 49" in text
    assert "waiting 3\n" not in text
    assert "\x1b" not in text
    annotation = f"::error title=quickstart on vertex%3A {word}::macro AUC 0.61 is below 0.70"
    assert (annotation in answer.stdout) == (code != 0)


def test_a_log_gives_no_orders_to_the_runner(tmp_path):
    answer = gate("print('::add-mask::x')", GITHUB_ACTIONS="true")
    before, order, after = answer.stdout.splitlines()
    assert order == "::add-mask::x"
    assert before.startswith("::stop-commands::")
    assert after == f"::{before.removeprefix('::stop-commands::')}::"


def test_a_run_that_was_only_submitted_did_not_pass(tmp_path):
    summary = tmp_path / "s.md"
    gate_of = [sys.executable, "-m", "pipeline.ci_gate", "--title", "t", "--success", "submitted"]
    environment = os.environ | {"GITHUB_STEP_SUMMARY": str(summary)}
    answer = subprocess.run([*gate_of, "--", "true"], cwd=ROOT, env=environment, check=False)
    assert answer.returncode == 0
    assert "t: submitted (exit code 0)" in summary.read_text()
    assert "passed" not in summary.read_text()


def test_elsewhere_only_the_output_is_shown():
    answer = gate("import sys; print('why'); sys.exit(2)")
    assert (answer.returncode, answer.stdout) == (2, "why\n")


def test_markdown_in_a_reason_stays_text(tmp_path):
    summary = tmp_path / "s.md"
    gate("print('<b>*x*</b> @all `')", GITHUB_STEP_SUMMARY=str(summary))
    assert r"> \<b\>\*x\*\</b\> \@all \`" in summary.read_text()


def test_a_command_that_is_absent_is_named(tmp_path):
    gate_of = [sys.executable, "-m", "pipeline.ci_gate", "--title", "t", "--", "./absent-command"]
    answer = subprocess.run(gate_of, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 127
    assert "absent-command cannot be started" in answer.stderr


def test_a_job_that_is_cancelled_tells_the_command():
    script = """
import signal, sys, time
def stop(*_):
    print("stopped the run", flush=True); sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("waiting", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(command(script), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.stdout.read() == "stopped the run\n"
    assert process.wait(30) == 130
    assert time.monotonic() - began < 50  # the sleep was not waited for
