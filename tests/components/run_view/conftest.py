"""Runs that passed and that were refused, as artifacts."""

import dataclasses

import pytest
from markupsafe import Markup, escape

from components.report import style
from evaluation.outcome import Outcome
from tests.components.run_report import gates
from tests.components.run_report.conftest import build
from tests.components.run_view.run_artifacts import write_run


@pytest.fixture(scope="session")
def passed_run():
    """Evidence of a run whose gate passed."""
    return build()


@pytest.fixture(scope="session")
def artifacts(passed_run, tmp_path_factory):
    """Its artifacts."""
    return write_run(tmp_path_factory.mktemp("passed"), passed_run)


@pytest.fixture(scope="session")
def refused_artifacts(tmp_path_factory):
    """Of a run whose model was refused, and whose data leak and drift."""
    evidence = build(outcome=Outcome.REFUSED)
    evidence = dataclasses.replace(
        evidence, leakage=gates.leakage(found=3), drift=gates.drift("mean")
    )
    anomaly = "Unexpectedly high values: 9.1 > 6"
    return write_run(tmp_path_factory.mktemp("refused"), evidence, anomaly=anomaly)


@pytest.fixture
def undrawn(monkeypatch):
    """Panels say what they would show: matplotlib takes seconds."""

    def panel(name, description, draw, size=None):
        return Markup(f'<svg role="img" aria-label="{escape(description)}"></svg>')

    monkeypatch.setattr(style, "panel", panel)
