"""What is told of data that may not be trained on; whether a run may go on all the same."""

import pytest

from components.decisions import write_decision
from components.stop_on_bad_data import HEADINGS, SHOWN, StopOnBadData, complaint
from evaluation.outcome import Check, Decision, Outcome, Refused, concluded

GATES = tuple(HEADINGS)


def decision(outcome: Outcome, *reasons: str) -> Decision:
    return concluded([Check(reason, outcome, detail=reason) for reason in reasons])


GOOD = decision(Outcome.PASSED, "all is well")
DOUBTFUL = decision(Outcome.INSUFFICIENT, "too few people")
BAD = decision(Outcome.REFUSED, "this is wrong")


@pytest.mark.parametrize("leaked", [False, True])
@pytest.mark.parametrize("answer", [GOOD, DOUBTFUL], ids=["passed", "insufficient"])
def test_what_was_not_refused_stops_nothing(answer, leaked):
    assert complaint(dict.fromkeys(GATES, answer), leaked=leaked) == ""
    assert complaint({}, leaked=leaked) == ""


@pytest.mark.parametrize("gate", GATES)
def test_one_refusal_stops_and_says_whose_it_is(gate):
    told = complaint({**dict.fromkeys(GATES, GOOD), gate: BAD}, leaked=False)
    assert "this is wrong" in told
    assert told == complaint({gate: BAD}, leaked=False)
    assert told not in {complaint({other: BAD}, leaked=False) for other in GATES if other != gate}


def test_refusals_are_told_together_in_the_order_of_the_gates():
    reasons = {gate: decision(Outcome.REFUSED, f"reason of {gate}") for gate in GATES}
    told = complaint(reasons, leaked=False)
    places = [told.index(f"reason of {gate}") for gate in GATES]
    assert places == sorted(places)


def test_many_reasons_are_counted():
    reasons = [f"reason {number}" for number in range(SHOWN + 4)]
    told = complaint({"anomalies": decision(Outcome.REFUSED, *reasons)}, leaked=False)
    assert f"in {SHOWN + 4} place(s)" in told
    assert all(reason in told for reason in reasons[:SHOWN])
    assert reasons[SHOWN] not in told
    assert "; and 4 more" in told
    assert "more" not in complaint(
        {"leakage": decision(Outcome.REFUSED, *reasons[:SHOWN])}, leaked=False
    )


def test_a_leak_that_is_known_and_asked_for_goes_on_and_nothing_else_does():
    assert complaint({"leakage": BAD}, leaked=True) == ""
    assert complaint({"leakage": BAD, "anomalies": GOOD}, leaked=True) == ""
    for gate in ("anomalies", "drift"):
        told = complaint({"leakage": BAD, gate: BAD}, leaked=True)
        assert told == complaint({gate: BAD}, leaked=False)


def test_the_node_reads_the_gates_and_fails_by_their_reasons(tmp_path):
    from components.artifacts import DataDecision

    gates = {}
    for gate in GATES:
        gates[gate] = DataDecision()
        gates[gate].uri = str(tmp_path / gate)
        (tmp_path / gate).mkdir()
        write_decision(GOOD, gates[gate].uri)
    run = StopOnBadData.test_call
    run(**gates, leaked=0)
    run(anomalies=gates["anomalies"], leaked=0)
    write_decision(BAD, gates["leakage"].uri)
    run(**gates, leaked=1)
    with pytest.raises(Refused, match="leak check refused the data: this is wrong") as caught:
        run(**gates, leaked=0)
    assert caught.value.exit_code == 2
