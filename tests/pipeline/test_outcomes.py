"""What the command says of a dataset as a whole: one run for each answer that it can give.

Each is as small as its statement allows. The width of an interval is what people buy: the lower
bound of .95 confidence lies about .10 below a macro AUC of .85 with 42 people, .07 with 84.
"""

import math
from pathlib import Path

import pytest

from components.report import storage
from evaluation.outcome import Outcome
from tests.pipeline.conftest import TINY, assignments


def run(cortexflow, workspace: Path, *settings: str):
    """Runs the command and reads what it left; it may refuse, but not break."""
    result = cortexflow("run", "quickstart", *assignments(*settings), workspace=workspace)
    told = result.stdout[-3000:] + result.stderr[-3000:]
    assert result.returncode in {outcome.exit_code for outcome in Outcome}, told
    [folder] = [path.parent for path in workspace.glob("runs/*/run.json")]
    evidence = storage.load(folder / "evidence")
    assert evidence.decision.outcome.exit_code == result.returncode, told
    assert result.stdout.strip().splitlines()[-1].startswith(evidence.decision.outcome.value)
    return evidence, told, folder


def pushed(workspace: Path) -> bool:
    return (workspace / "registry" / "models.config").exists()


@pytest.mark.slow  # test_resume.py says the same of a run that it makes anyway
def test_twelve_test_people_are_insufficient_evidence(tmp_path, cortexflow):
    """A class needs five people to be counted, and all of them twenty; here each has three."""
    evidence, told, _ = run(
        cortexflow, tmp_path, *TINY,
        "data.phantom.subjects=[10,10,10,10]", "data.test_fraction=0.3",
        "pretrain.epochs=1", "teacher.epochs=10", "student.epochs=20",
    )  # fmt: skip
    assert evidence.decision.outcome is Outcome.INSUFFICIENT, told
    assert sum(evidence.decision.details["people"].values()) == 12
    assert not pushed(tmp_path)


@pytest.mark.slow
def test_a_class_of_two_people_is_not_evaluable(tmp_path, cortexflow):
    """One of them trains, one is tested; the gate counts the other classes and says so."""
    evidence, told, folder = run(cortexflow, tmp_path, *TINY, "data.phantom.subjects=[30,30,30,2]")
    decision = evidence.decision
    assert decision.details["people"]["ModerateDemented"] == 1
    assert decision.details["not_evaluable"] == {"ModerateDemented": 1}, told
    assert len(decision.details["evaluable"]) == 3
    assert any("not evaluable" in note for note in decision.details["notes"])
    assert "not evaluable" in (folder / "report.html").read_text()
    headline = decision.metrics["student"]["subject"]
    moderate = evidence.dataset.classes.index("ModerateDemented")
    others = [area for label, area in enumerate(headline["auc"]) if label != moderate]
    assert headline["macro_auc"] == pytest.approx(sum(others) / 3)
    floors = [check.name for check in decision.checks if check.name.startswith("AUC floor")]
    assert len(floors) == 3
    assert not any("Moderate" in name for name in floors)


@pytest.mark.slow
def test_nothing_to_learn_is_refused(tmp_path, cortexflow):
    """The null phantom: classes differ in nothing. 48 people suffice to say "below .70" of a .5."""
    evidence, told, _ = run(
        cortexflow, tmp_path, *TINY,
        'data.phantom.preset="null"', "data.test_fraction=0.4", "gate.total_csf=report",
    )  # fmt: skip
    assert evidence.decision.outcome is Outcome.REFUSED, told
    [floor] = [check for check in evidence.decision.checks if check.name == "macro AUC floor"]
    assert floor.outcome is Outcome.REFUSED, told
    assert floor.low < 0.5 < floor.high < 0.7
    assert not pushed(tmp_path)


@pytest.mark.slow
def test_a_sound_model_of_the_standard_phantom_passes(tmp_path, cortexflow):
    """80 test people. Of twelve random choices of the test people of one sound model (AUC .85), 60
    pass twelve times, 44 eleven times, 32 four times and 20 once (measured 2026-11-21)."""
    evidence, told, _ = run(
        cortexflow, tmp_path,
        "data.phantom.subjects=[50,50,50,50]", "data.test_fraction=0.4", "gate.total_csf=match",
    )  # fmt: skip
    assert evidence.decision.outcome is Outcome.PASSED, told
    assert all(check.passed for check in evidence.decision.checks)
    assert pushed(tmp_path)
    assert evidence.pushed.live
    ours = evidence.decision.metrics["student"]["slice"]
    for name in ("macro_auc", "macro_average_precision", "balanced_accuracy", "log_loss", "brier"):
        assert evidence.tfma[name] == pytest.approx(ours[name], abs=1e-3), name
    point = evidence.decision.details["operating_point"]
    assert point["target_sensitivity"] == 0.9
    assert all(math.isfinite(number) for number in point["sensitivity"] + point["specificity"])
