"""What a terminal of 80 columns shows of a run: intervals, checks, and no name cut."""

import datetime
import io

import pytest
from rich.console import Console

from cli import tables
from components.report.judgement import judgement
from evaluation.outcome import Check, Outcome, concluded
from pipeline.runs import Override, RunRecord

METRICS = {
    "total CSF": {"subject": {"macro_auc": 0.8498, "balanced_accuracy": 0.5952}},
    "constant prior": {"subject": {"macro_auc": 0.5, "balanced_accuracy": 0.25}},
    "student": {"subject": {"macro_auc": 0.8628, "balanced_accuracy": None, "micro_auc": 0.866}},
}
DETAILS = {
    "level": "subject",
    "confidence": 0.95,
    "people": {"mild": 20, "none": 21},
    "intervals": {"student": {"macro_auc": [0.8628, 0.8188, 0.9016]}},
    "notes": ["moderate is not evaluable: 2 people, 5 needed"],
}
CHECKS = (
    Check("finite probabilities", Outcome.PASSED),
    Check("macro AUC floor", Outcome.REFUSED, 0.8628, 0.95, 0.8188, 0.9016, "below the floor"),
    Check("AUC floor: mild", Outcome.PASSED, 0.8, 0.55, 0.7, 0.9),
    Check("AUC floor: none", Outcome.PASSED, 0.9, 0.55, 0.8, 0.95),
    Check("beats total CSF", Outcome.INSUFFICIENT, detail="total CSF was not measured"),
)


@pytest.fixture
def terminal(monkeypatch):
    """Runs a function of `tables` on a terminal so wide; what it printed."""

    def shown(function, *arguments, width=80):
        console = Console(file=io.StringIO(), width=width)
        monkeypatch.setattr(tables, "Console", lambda: console)
        function(console, *arguments) if function.__name__[0] == "_" else function(*arguments)
        return console.file.getvalue()

    return shown


def table(console, width):
    console.print(tables._metrics_table(METRICS, judgement(concluded([], details=DETAILS)), width))


@pytest.mark.parametrize("width", [80, 120])
def test_models_stand_whole_with_their_intervals(width):
    console = Console(file=io.StringIO(), width=width)
    table(console, width)
    title, head, *rows = console.file.getvalue().splitlines()
    assert title.strip() == "Test split, per subject (41 people), with 95\u00a0% intervals"
    assert "…" not in "".join(rows)
    assert [row.split("  ")[1] for row in rows] == ["student", "constant prior", "total CSF"]
    assert "0.863 [0.82, 0.90]" in rows[0]
    assert "–" in rows[0]
    assert ("micro AUC" in head) == (width == 120)


def test_checks_say_what_failed_with_its_number_and_name_the_rest(terminal):
    told = terminal(tables._show_checks, concluded(CHECKS))
    lines = [line.strip() for line in told.splitlines()]
    assert lines[0] == "checks        3 of 5 passed"
    assert lines[1].split("  ")[0] == "✕ macro AUC floor"
    assert lines[1].endswith("0.863 [0.82, 0.90], asked: 0.95")
    assert lines[2].startswith("? beats total CSF")
    assert "✓ finite probabilities, AUC floors of 2 classes" in told


def record(number: int, **changes) -> RunRecord:
    return RunRecord(
        id=f"quickstart-20260101-12000{number}", preset="quickstart", pipeline="quickstart",
        status="insufficient evidence", reason="there are 12 people " * 9, pid=1,
        started=datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC), **changes,
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_runs_cut_nothing_but_the_reason(terminal, width):
    made = Override(who="R. Roe", reason="a study", time=datetime.datetime.now(datetime.UTC))
    told = terminal(
        tables.show_runs, [record(1), record(2, pushed_version=3, override=made)], width=width
    )
    for name in ("quickstart-20260101-120001", "quickstart-20260101-120002", "3 (overridden)"):
        assert name in told
    assert told.count("insufficient evidence") == 2
    assert ("2026-01-01 12:00" in told) == (width == 120)
    assert len(told.splitlines()) == 3
