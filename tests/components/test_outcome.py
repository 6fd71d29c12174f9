"""Decisions survive their file and speak in words."""

from components.anomaly_gate import decide
from components.outcome import Check, Decision, Outcome, read_decision, write_decision


def test_round_trip(tmp_path):
    decision = Decision(
        Outcome.REFUSED, ("too low",), (Check("floor", False, 0.6, 0.7, "too low"),), {"a": {}}
    )
    write_decision(decision, str(tmp_path))
    assert read_decision(str(tmp_path)) == decision


def test_anomalies_refuse_and_none_pass():
    assert decide({"train": {}, "test": {}}).outcome is Outcome.PASSED
    verdict = decide({"train": {"label": "Unexpected value 7."}, "test": {}})
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.reasons == ("train: label: Unexpected value 7.",)
