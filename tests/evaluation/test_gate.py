"""Each check of the gate has a case that passes and one that does not."""

import dataclasses

import numpy as np
import pytest

from evaluation.baselines import total_csf
from evaluation.config import GateSettings
from evaluation.gate import FINAL, decide, three_way
from evaluation.intervals import Interval
from evaluation.outcome import Check, Decision, Outcome, concluded, from_json, to_json
from evaluation.predictions import SplitTable
from tests.evaluation.simulated import CLASSES, table

PASSED, REFUSED, INSUFFICIENT = Outcome.PASSED, Outcome.REFUSED, Outcome.INSUFFICIENT
MATCH = GateSettings(total_csf="match", resamples=1000)
REPORT = GateSettings(total_csf="report", resamples=1000)


def study(seed=0, people=(21, 21, 21, 21), preset="standard", **options) -> dict[str, SplitTable]:
    return {
        "train": table(1000 + seed, (30,) * 4, preset, prefix="a"),
        "val": table(2000 + seed, (9,) * 4, preset, prefix="v", **options),
        "test": table(seed, people, preset, **options),
    }


def answering(tables, **models) -> dict[str, SplitTable]:
    """The same study with other answers to the test split; None takes a model away."""
    test = tables["test"]
    changed = {**test.probabilities, **models}
    kept = {name: answers for name, answers in changed.items() if answers is not None}
    return {**tables, "test": dataclasses.replace(test, probabilities=kept)}


def only(test: SplitTable, rows: np.ndarray) -> SplitTable:
    columns = {
        name: value[rows] if isinstance(value, np.ndarray) else value
        for name, value in vars(test).items()
    }
    columns["probabilities"] = {name: it[rows] for name, it in test.probabilities.items()}
    return SplitTable(**columns)


def judge(tables, settings=MATCH, **options) -> Decision:
    return decide(tables, CLASSES, settings, severity=CLASSES, **options)


def check(decision: Decision, name: str) -> Check:
    return next(check for check in decision.checks if check.name == name)


@pytest.mark.parametrize("seed", range(3))
def test_sound_model_on_standard_passes(seed):
    decision = judge(study(seed))
    assert decision.outcome is PASSED, decision.reasons
    assert decision.reasons == ()


@pytest.mark.parametrize("seed", range(3))
def test_easy_passes_above_95(seed):
    decision = judge(study(seed, preset="easy"), GateSettings(total_csf="beat", resamples=1000))
    assert decision.outcome is PASSED, decision.reasons
    assert decision.metrics["student"]["subject"]["macro_auc"] > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_null_is_refused_with_its_number(seed):
    decision = judge(study(seed, preset="null"))
    assert decision.outcome is REFUSED
    value = decision.metrics["student"]["subject"]["macro_auc"]
    assert f"{value:.3f}" in decision.reasons[0]
    assert "below the floor 0.700" in decision.reasons[0]


def test_two_people_of_a_class_are_not_evaluable():
    decision = judge(study(people=(30, 25, 20, 2)))
    assert decision.outcome is PASSED, decision.reasons
    assert decision.details["not_evaluable"] == {"ModerateDemented": 2}
    assert decision.details["evaluable"] == list(CLASSES[:3])
    assert "auc/ModerateDemented" not in decision.details["intervals"]["student"]
    assert any("not evaluable" in note for note in decision.details["notes"])
    found = decision.metrics["student"]["subject"]
    assert found["macro_auc"] == pytest.approx(np.mean(found["auc"][:3]))
    assert check(decision, "macro AUC floor").value == pytest.approx(found["macro_auc"])


def test_a_missing_class_is_not_evaluable():
    decision = judge(study(people=(30, 25, 20, 0)))
    assert decision.outcome is PASSED, decision.reasons
    assert decision.details["people"]["ModerateDemented"] == 0


@pytest.mark.parametrize("people", [(3, 3, 3, 3), (6, 6, 0, 0)])
def test_12_people_are_insufficient_evidence(people):
    decision = judge(study(people=people, preset="easy"))
    assert decision.outcome is INSUFFICIENT
    assert "people" in decision.reasons[0]


def test_one_class_alone_is_no_evidence():
    tables = study()
    tables["test"] = only(tables["test"], tables["test"].labels == 2)
    decision = judge(tables)
    assert decision.outcome is not PASSED
    assert "fewer than two classes" in decision.reasons[-1]


def test_a_good_model_on_too_few_people_is_told_how_many_are_needed():
    """.853 [.804, .899] on 84 people, floor .82: too wide by half as much again."""
    settings = GateSettings(macro_auc_floor=0.82, total_csf="report", resamples=1000)
    decision = judge(study(), settings)
    assert decision.outcome is INSUFFICIENT
    asked = check(decision, "macro AUC floor")
    wanted = np.ceil(84 * ((asked.value - asked.low) / (asked.value - 0.82)) ** 2)
    assert f"about {wanted:.0f} test people would settle it" in decision.reasons[0]


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1.5, -0.5])
def test_what_is_no_probability_is_refused_for_good(broken):
    tables = study()
    answers = tables["test"].probabilities["student"].copy()
    answers[0, 0] = broken
    decision = judge(answering(tables, student=answers))
    assert decision.outcome is REFUSED
    assert "NaN" in decision.reasons[0]
    assert check(decision, "finite probabilities").name in decision.details["final"]


def test_one_class_for_everyone_is_refused_even_with_a_perfect_ranking():
    tables = study(preset="easy")
    ranked = tables["test"].probabilities["student"] * 0.1
    ranked[:, 2] += 0.9
    decision = judge(answering(tables, student=ranked, teacher=None))
    assert decision.metrics["student"]["subject"]["macro_auc"] > 0.95
    assert decision.outcome is REFUSED
    assert decision.reasons == ("the model gives everyone the same class",)


def test_slices_without_people_are_never_passed():
    tables = study()
    tables["test"] = dataclasses.replace(tables["test"], subjects=None)
    decision = judge(tables)
    assert decision.outcome is REFUSED
    assert "no subject ids" in decision.reasons[0]
    assert decision.details["level"] == "slice"
    assert decision.details["intervals"] == {}
    assert decision.metrics["student"]["slice"]["macro_auc"] > 0.7


def test_a_leaked_split_is_never_passed():
    decision = judge(study(), leaked=True)
    assert decision.outcome is REFUSED
    assert check(decision, "split without known leaks").name in FINAL


@pytest.mark.parametrize("other", ["train", "val"])
def test_a_person_of_the_test_split_in_another_is_a_leak(other):
    tables = study()
    tables[other] = table(5, (5,) * 4, prefix="t")
    decision = judge(tables)
    assert decision.outcome is REFUSED
    assert "20 test people" in decision.reasons[0]


def test_worse_than_live_is_refused_and_the_same_ties():
    better = study(preset="easy")
    worse = study(skill=1.0)["test"].probabilities["student"]
    sound = answering(better, live=better["test"].probabilities["student"])
    tied = judge(sound)
    assert tied.outcome is PASSED, tied.reasons
    assert tied.details["differences"]["student - live"] == [0, 0, 0]
    name = "not worse than the live version"
    assert check(tied, name).passed
    lost = judge(
        answering(better, student=worse, teacher=worse, live=sound["test"].probabilities["live"])
    )
    assert lost.outcome is REFUSED
    assert check(lost, name).outcome is REFUSED
    assert "below the margin -0.050" in check(lost, name).detail


def test_without_a_live_version_nothing_is_compared():
    assert "not worse than the live version" not in {it.name for it in judge(study()).checks}


@pytest.mark.parametrize("other", ["live", "teacher"])
def test_another_model_that_cannot_be_compared_is_no_evidence(other):
    tables = study()
    rows = len(tables["test"].labels)
    for answers in (np.full((rows, 4), np.nan), np.full((rows, 2), 0.5)):
        decision = judge(answering(tables, **{other: answers}))
        assert decision.outcome is INSUFFICIENT
        assert "none compares" in decision.reasons[0]


def test_a_student_far_below_its_teacher_is_refused():
    tables = study(preset="easy")
    blurred = study()["test"].probabilities["student"]
    decision = judge(answering(tables, student=blurred), REPORT)
    assert decision.outcome is REFUSED
    assert decision.reasons[0] == check(decision, "keeps up with its teacher").detail


def test_total_csf_three_ways():
    tables = study()
    test = tables["test"]
    beat, match, report = (
        GateSettings(total_csf=mode, resamples=1000) for mode in ("beat", "match", "report")
    )
    assert check(judge(tables, beat), "beats total CSF").passed
    same = total_csf(tables["train"], test, 4)
    twin = answering(tables, student=same, teacher=None)
    assert check(judge(twin, beat), "beats total CSF").outcome is REFUSED
    assert check(judge(twin, match), "matches total CSF").value == 0
    assert check(judge(twin, match), "matches total CSF").passed
    ignorant = np.random.default_rng(0).dirichlet(np.ones(4), len(test.labels))
    lost = judge(answering(tables, student=ignorant, teacher=None), match)
    assert "shown to be worse" in check(lost, "matches total CSF").detail
    assert not [it for it in judge(tables, report).checks if "CSF" in it.name]


def test_total_csf_that_was_not_measured_is_no_evidence():
    tables = study()
    blank = np.full(len(tables["test"].labels), np.nan)
    tables["test"] = dataclasses.replace(tables["test"], csf_fraction=blank)
    decision = judge(tables)
    assert decision.outcome is INSUFFICIENT
    assert "gate.total_csf=report" in decision.reasons[0]
    assert judge(tables, REPORT).outcome is PASSED


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("control", "label-shuffle control"),
        ("leakage", "leak check"),
        ("serving", "serving check"),
    ],
)
def test_an_earlier_gate_counts_where_it_ran(option, name, outcome):
    reason = "" if outcome is PASSED else "it found something"
    earlier = concluded([Check("its question", outcome, detail=reason)])
    decision = judge(study(), **{option: earlier})
    assert decision.outcome is outcome
    assert check(decision, name).outcome is outcome
    assert reason in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ((0.8, 0.7, 0.9), PASSED),
        ((0.8, 0.69, 0.9), INSUFFICIENT),
        ((0.65, 0.6, 0.7), INSUFFICIENT),
        ((0.65, 0.6, 0.69), REFUSED),
        ((0.65, np.nan, np.nan), INSUFFICIENT),
        ((np.nan,) * 3, INSUFFICIENT),
    ],
)
def test_three_ways(interval, outcome):
    assert three_way("n", Interval(*interval), 0.7, 84, "AUC", "low").outcome is outcome


def test_to_touch_a_strict_bound_shows_nothing():
    options = ("n", Interval(0.1, 0.0, 0.2), 0.0, 84, "gap", "not above 0")
    assert three_way(*options).outcome is PASSED
    assert three_way(*options, strict=True).outcome is INSUFFICIENT


def test_how_many_people_would_settle_it():
    """Twice the gap in width: four times the people (1 / √n)."""
    asked = three_way("n", Interval(0.75, 0.65, 0.85), 0.7, 84, "AUC", "below the floor 0.700")
    assert "about 336 test people" in asked.detail
    at_the_bound = three_way("n", Interval(0.7, 0.6, 0.8), 0.7, 84, "AUC", "low")
    assert "no number of people" in at_the_bound.detail


def test_details_tell_what_was_measured_and_survive_the_file():
    tables = study(slices=9)
    sites = np.where(np.arange(len(tables["test"].labels)) // 9 % 3 == 0, "north", "south")
    tables["test"] = dataclasses.replace(tables["test"], sites=sites)
    decision = judge(tables, touches=3)
    details = from_json(to_json(decision)).details
    assert set(details["intervals"]) == {"student", "teacher", "constant prior", "total CSF"}
    assert set(details["intervals"]["student"]) == {
        "macro_auc", "balanced_accuracy", "brier", *(f"auc/{name}" for name in CLASSES),
    }  # fmt: skip
    for metric in ("macro_auc", "balanced_accuracy", "brier"):
        value, low, high = details["intervals"]["student"][metric]
        assert value == pytest.approx(decision.metrics["student"]["subject"][metric])
        assert low < value < high
    assert set(details["differences"]) == {
        "student - teacher", "student - constant prior", "student - total CSF",
    }  # fmt: skip
    row, cluster = (details["slice_intervals"][kind] for kind in ("row", "cluster"))
    assert row[2] - row[1] < 0.7 * (cluster[2] - cluster[1])
    groups = details["subgroups"]
    assert set(groups["slice band"]) == {"lower third", "middle third", "upper third"}
    assert groups["slice band"]["lower third"]["images"] == 3 * 84
    assert {name: it["people"] for name, it in groups["site"].items()} == {"north": 28, "south": 56}
    assert len(groups["site"]["north"]["macro_auc"]) == 3
    assert details["touches"] == 3
    assert "3 candidates" in " ".join(details["notes"])
    assert details["calibration"]["brier"] == details["intervals"]["student"]["brier"][0]


def test_operating_point_is_set_on_validation_and_read_on_test():
    tables = study()
    point = judge(tables).details["operating_point"]
    assert point["positive"] == list(CLASSES[1:])
    val, test = tables["val"], tables["test"]
    ill = [
        1 - split.probabilities["student"].reshape(-1, 8, 4).mean(axis=1)[:, 0]
        for split in (val, test)
    ]
    truth = [split.labels[::8] > 0 for split in (val, test)]
    assert point["threshold"] in ill[0][truth[0]]
    assert (ill[0][truth[0]] >= point["threshold"]).mean() >= 0.9
    called = ill[1] >= point["threshold"]
    assert point["sensitivity"][0] == pytest.approx(called[truth[1]].mean())
    assert point["specificity"][0] == pytest.approx((~called[~truth[1]]).mean())


@pytest.mark.parametrize(
    ("without", "why"),
    [("val", "validation"), ("order", "severity"), ("people", "promise")],
)
def test_no_operating_point_says_why(without, why):
    tables = study()
    if without == "val":
        del tables["val"]
    if without == "people":  # 8 ill people promise no sensitivity of .90
        tables["val"] = table(3, (5, 3, 3, 2), prefix="v")
    severity = None if without == "order" else CLASSES
    decision = decide(tables, CLASSES, MATCH, severity=severity)
    assert decision.details["operating_point"] is None
    assert why in " ".join(decision.details["notes"])


def test_same_seed_same_decision():
    assert to_json(judge(study())) == to_json(judge(study()))
