"""Runs a command as a step of CI: `python -m pipeline.ci_gate --title TITLE -- COMMAND …`.

Its exit code is the command's: 0 passed, 2 refused, 3 insufficient evidence, anything else a
failure. What the code means, the reason (the last line of the output) and the run's address are
told where people look: in the job's summary and as an annotation, where GitHub's runner has them.
"""

import argparse
import collections
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pipeline.backends.interface import EXIT_CODES

TAIL = 30  # lines of output that are kept
MAX_LINE = 400
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ADDRESS = re.compile(r"https?://[^\s<>()\"'\]]+")
_SIGNS = {"refused": "⛔", "insufficient evidence": "❔"}


def outcome(code: int, success: str = "passed") -> str:
    """What an exit code says, in a word; `success` is what 0 says."""
    if code == 0:
        return success
    told = {number: name for name, number in EXIT_CODES.items()}
    if code in (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGINT):
        return "stopped"
    return told.get(code, "failed")


def summary(
    title: str, code: int, lines: Sequence[str], address: str = "", success: str = "passed"
) -> str:
    """Markdown about a command that ended.

    Args:
        title: what was done.
        code: its exit code.
        lines: the end of its output, plain text.
        address: where people look at the run, "" where there is nothing to look at.
        success: what exit code 0 says.
    """
    word = outcome(code, success)
    said = [line for line in lines if line.strip()]
    reason = said[-1].strip() if said else "It said nothing."
    parts = [
        f"### {_SIGNS.get(word, '❌' if code else '✅')} {title}: {word} (exit code {code})",
        "",
    ]
    parts += [f"> {_escaped(reason)}", ""]
    if address:
        parts += [f"Run: <{address}>", ""]
    parts += ["<details><summary>Last lines of output</summary>", "", "```text"]
    parts += [line.replace("```", "ʼʼʼ") for line in lines]
    return "\n".join([*parts, "```", "", "</details>", ""])


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#@|])", r"\\\1", text)


def run(command: Sequence[str]) -> tuple[int, list[str], str]:
    """Runs a command, shows its output as it comes, and passes on signals.

    Returns:
        Exit code (128 + signal where one ended it), the last lines of output without colours, and
        the first web address in it, "" if there was none.

    Raises:
        OSError: it cannot be started.
    """
    # A line of a run's log must not be taken for an order to the runner ("::set-output …").
    token = secrets.token_hex(16) if os.environ.get("GITHUB_ACTIONS") == "true" else ""
    tail: collections.deque[str] = collections.deque(maxlen=TAIL)
    address = ""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Else what it printed before an error comes after it, and the last line is not the reason.
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:

        def passed_on(number: int, _: FrameType | None) -> None:
            process.send_signal(number)

        before = {n: signal.signal(n, passed_on) for n in (signal.SIGTERM, signal.SIGINT)}
        if token:
            print(f"::stop-commands::{token}", flush=True)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                plain = _ANSI.sub("", line).rstrip()
                tail.append(plain[:MAX_LINE])
                if not address and (found := _ADDRESS.search(plain)):
                    address = found[0].rstrip(".,;")
            code = process.wait()
        finally:
            if token:
                print(f"::{token}::", flush=True)
            for number, handler in before.items():
                signal.signal(number, handler)
    return (128 - code if code < 0 else code), list(tail), address


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and tells of it. Returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.ci_gate",
        description="Run a command, tell its outcome in the job's summary, exit as it does.",
    )
    parser.add_argument("--title", required=True, help="what is done, for the summary")
    parser.add_argument("--success", default="passed", help="what exit code 0 says (passed)")
    parser.add_argument("command", nargs="+", help="after --")
    given = parser.parse_args(arguments)
    try:
        code, lines, address = run(given.command)
    except OSError as error:
        code, address = 127, ""
        lines = [f"{given.command[0]} cannot be started: {error.strerror}"]
        print(lines[0], file=sys.stderr)
    if place := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(summary(given.title, code, lines, address, given.success))
    if code and os.environ.get("GITHUB_ACTIONS") == "true":
        reason = next((line for line in reversed(lines) if line.strip()), "no output")
        print(f"::error title={_property(f'{given.title}: {outcome(code)}')}::{_data(reason)}")
    return code


def _data(text: str) -> str:
    """Text in a workflow command, escaped as the runner's toolkit does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


if __name__ == "__main__":
    sys.exit(main())
