"""Decisions survive their file and speak in words."""

from components.anomaly_gate import decide
from components.decisions import read_decision, write_decision
from evaluation.outcome import Check, Decision, Outcome, concluded


def test_round_trip(tmp_path):
    checks = (Check("floor", Outcome.REFUSED, 0.6, 0.7, detail="too low"),)
    decision = Decision(Outcome.REFUSED, ("too low",), checks, {"student": {}}, {"seed": 0})
    write_decision(decision, str(tmp_path))
    assert read_decision(str(tmp_path)) == decision


def test_what_is_no_number_is_null_in_the_file(tmp_path):
    metrics = {"student": {"subject": {"macro_auc": float("nan")}}}
    write_decision(Decision(Outcome.PASSED, metrics=metrics), str(tmp_path))
    assert "NaN" not in (tmp_path / "decision.json").read_text()
    assert read_decision(str(tmp_path)).metrics["student"]["subject"]["macro_auc"] is None


def test_one_refusal_refuses_and_one_doubt_is_a_doubt():
    passed, doubt, refusal = (
        Check("a", Outcome.PASSED),
        Check("b", Outcome.INSUFFICIENT, detail="too few"),
        Check("c", Outcome.REFUSED, detail="too low"),
    )
    assert concluded([passed]).outcome is Outcome.PASSED
    assert concluded([passed, doubt]).outcome is Outcome.INSUFFICIENT
    both = concluded([doubt, refusal, passed])
    assert (both.outcome, both.reasons) == (Outcome.REFUSED, ("too low", "too few"))


def test_anomalies_refuse_and_none_pass():
    assert decide({"train": {}, "test": {}}).outcome is Outcome.PASSED
    verdict = decide({"train": {"label": "Unexpected value 7."}, "test": {}})
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.reasons == ("train: label: Unexpected value 7.",)
