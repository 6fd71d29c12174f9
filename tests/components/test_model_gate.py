"""The node around the gate: what it reads, and what it leaves behind."""

import pytest
from tfx.types.standard_artifacts import ModelBlessing, ModelEvaluation

from components.artifacts import ControlDecision, ModelDecision, Predictions, ServingDecision
from components.decisions import read_decision, write_decision
from components.model_gate import ModelGate
from components.predictor import TOUCHES
from evaluation import predictions
from evaluation.config import GateSettings
from evaluation.outcome import Check, Outcome, concluded
from tests.evaluation.simulated import CLASSES, table

SETTINGS = GateSettings(total_csf="match", resamples=1000)


def artifact(kind, folder):
    made = kind()
    made.uri = str(folder)
    folder.mkdir()
    return made


@pytest.fixture
def inputs(tmp_path):
    tables = {
        "train": table(1, (30,) * 4, prefix="a"),
        "val": table(2, (9,) * 4, prefix="v"),
        "test": table(0),
    }
    table_of = artifact(Predictions, tmp_path / "predictions")
    packed = predictions.to_bytes(tables)
    (tmp_path / "predictions" / predictions.FILE).write_bytes(packed)
    return {
        "predictions_table": table_of,
        "evaluation": artifact(ModelEvaluation, tmp_path / "evaluation"),
        "blessing": artifact(ModelBlessing, tmp_path / "blessing"),
        "decision": artifact(ModelDecision, tmp_path / "decision"),
        "classes": ",".join(CLASSES),
        "severity": ",".join(CLASSES),
        "settings": SETTINGS.model_dump_json(),
        "leaked": 0,
        "code": "",
    }


def run(inputs):
    ModelGate.EXECUTOR_SPEC.executor_class._FUNCTION(**inputs)
    decision = read_decision(inputs["decision"].uri)
    assert read_decision(inputs["blessing"].uri) == decision
    return decision


def test_blesses_what_passed_and_tells_the_touches(inputs, tmp_path):
    inputs["predictions_table"].set_int_custom_property(TOUCHES, 4)
    decision = run(inputs)
    assert decision.outcome is Outcome.PASSED, decision.reasons
    assert inputs["blessing"].get_int_custom_property("blessed") == 1
    assert (tmp_path / "blessing" / "BLESSED").is_file()
    assert decision.details["touches"] == 4
    assert decision.details["operating_point"] is not None


@pytest.mark.parametrize("how", ["leaked", "floor", "control", "serving"])
def test_publishes_what_it_refuses(inputs, tmp_path, how):
    if how == "leaked":
        inputs["leaked"] = 1
    if how == "floor":
        inputs["settings"] = SETTINGS.model_copy(update={"macro_auc_floor": 0.99}).model_dump_json()
    if how == "control":
        inputs["control"] = artifact(ControlDecision, tmp_path / "control")
        refused = concluded([Check("null band", Outcome.REFUSED, detail="something leaks")])
        write_decision(refused, inputs["control"].uri)
    if how == "serving":
        inputs["serving"] = artifact(ServingDecision, tmp_path / "serving")
        unfit = concluded([Check("operations", Outcome.REFUSED, detail="it reads files")])
        write_decision(unfit, inputs["serving"].uri)
    decision = run(inputs)
    assert decision.outcome is Outcome.REFUSED
    assert inputs["blessing"].get_int_custom_property("blessed") == 0
    assert (tmp_path / "blessing" / "NOT_BLESSED").is_file()
    assert decision.details["touches"] is None
    failed = {check.name for check in decision.checks if not check.passed}
    lasting = how in {"leaked", "serving"}
    assert bool(failed & set(decision.details["final"])) == lasting
