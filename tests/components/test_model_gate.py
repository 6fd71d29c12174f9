"""Each check of the gate has a case that passes and one that is refused."""

import numpy as np
import pytest

from components.model_gate import decide
from evaluation.outcome import Outcome
from evaluation.predictions import SplitTable

CLASSES = ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented")
SEVERITY = ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented")


def table(skill: float, *, per_class: int = 10, slices: int = 3, seed: int = 0) -> SplitTable:
    """A split whose student knows the label as well as `skill` says (0: nothing)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), per_class * slices)
    subjects = np.array([f"s{i:03d}" for i in range(4 * per_class)]).repeat(slices)
    person = rng.normal(size=(4 * per_class, 4)).repeat(slices, axis=0)
    logits = person + skill * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    severity = np.array([2, 3, 0, 1])[labels]
    return SplitTable(
        labels=labels,
        subjects=subjects,
        slice_index=np.tile(np.arange(slices), 4 * per_class),
        sites=np.full(len(labels), ""),
        sha256=np.array([f"{i:064x}" for i in range(len(labels))]),
        csf_fraction=0.2 + 0.03 * severity + 0.02 * person[:, 0],
        probabilities={"student": probabilities, "teacher": probabilities},
    )


def judge(test: SplitTable, floor: float = 0.7, **options):
    return decide(table(0, seed=1), test, CLASSES, macro_auc_floor=floor, **options)


def replaced(test: SplitTable, probabilities) -> SplitTable:
    return SplitTable(**{**vars(test), "probabilities": {"student": probabilities}})


def test_sound_model_passes_with_baselines_beside_it():
    decision = judge(table(3.0), severity=SEVERITY)
    assert decision.outcome is Outcome.PASSED
    assert decision.reasons == ()
    assert {"student", "teacher", "constant prior", "total CSF"} <= set(decision.metrics)
    assert decision.metrics["constant prior"]["subject"]["macro_auc"] == pytest.approx(0.5)
    assert 0.6 < decision.metrics["total CSF"]["subject"]["macro_auc"] < 1.0


def test_ignorant_model_is_refused_with_its_number():
    decision = judge(table(0.0))
    assert decision.outcome is Outcome.REFUSED
    value = decision.metrics["student"]["subject"]["macro_auc"]
    assert f"{value:.3f}" in decision.reasons[0]
    assert "0.700" in decision.reasons[0]


def test_constant_class_is_refused_even_with_a_perfect_ranking():
    """Probabilities may rank well and yet name one class for everyone."""
    test = table(3.0)
    ranked = test.probabilities["student"] * 0.1
    ranked[:, 2] += 0.9
    ranked /= ranked.sum(axis=1, keepdims=True)
    decision = judge(replaced(test, ranked))
    assert decision.metrics["student"]["subject"]["macro_auc"] > 0.7
    assert decision.outcome is Outcome.REFUSED
    assert "same class" in decision.reasons[0]


def test_nan_is_refused():
    test = table(3.0)
    broken = test.probabilities["student"].copy()
    broken[0, 0] = np.nan
    decision = judge(replaced(test, broken))
    assert decision.outcome is Outcome.REFUSED
    assert "NaN" in decision.reasons[0]


def test_slice_level_data_is_never_passed():
    decision = judge(SplitTable(**{**vars(table(3.0)), "subjects": None}))
    assert decision.outcome is Outcome.REFUSED
    assert "no subject ids" in decision.reasons[0]


def test_leaked_split_is_never_passed():
    assert judge(table(3.0)).outcome is Outcome.PASSED
    assert judge(table(3.0), leaked=True).outcome is Outcome.REFUSED


def test_one_class_in_the_test_split_is_no_evidence():
    full = table(3.0)
    only = full.labels == 2
    test = SplitTable(
        **{
            name: {"student": value["student"][only]} if name == "probabilities" else value[only]
            for name, value in vars(full).items()
        }
    )
    decision = judge(test)
    assert decision.outcome in (Outcome.INSUFFICIENT, Outcome.REFUSED)
    assert "fewer than two classes" in decision.reasons[-1]


def test_exit_codes_tell_the_outcomes_apart():
    assert [outcome.exit_code for outcome in Outcome] == [0, 2, 3]
