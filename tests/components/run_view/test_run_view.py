"""RunView writes what Kubeflow's UI shows, of whatever there is."""

import json
import math
import re

import numpy as np
import pytest

from components import run_view
from components.run_view import BadInput, main, read_request
from components.run_view_metrics import MAX_POINTS, roc
from components.run_view_outputs import OF_DATA, PAGES_OF_DATA, outputs, roc_names
from evaluation import predictions as tables
from pipeline.facts import Facts
from tests.components.run_report.conftest import build
from tests.components.run_view.run_artifacts import (
    executor_input,
    table,
    write_dataset,
    write_run,
)
from trainer import metrics

PAGES = ("report", "statistics_view", "data_checks", "model_card")


def strict(text: str):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def run(artifacts, folder, **parameters) -> dict:
    """Runs the container's entry point; output name → metadata."""
    main(["--executor_input", executor_input(artifacts, folder, **parameters)])
    told = strict((folder / "outputs" / "executor_output.json").read_text())
    return {name: listed["artifacts"][0] for name, listed in told["artifacts"].items()}


@pytest.fixture(scope="module")
def written(artifacts, tmp_path_factory):
    """A whole run's view, drawn once: folder, and artifacts of the ExecutorOutput."""
    folder = tmp_path_factory.mktemp("view")
    return folder, run(artifacts, folder)


def by_person(evidence):
    of = evidence.predictions
    _, means, labels = metrics.aggregate_by_subject(of.student, of.labels, of.subjects)
    return means, labels


def test_the_confusion_matrix_is_what_the_sdk_would_log(written, passed_run):
    from kfp import dsl

    means, labels = by_person(passed_run)
    order = list(passed_run.dataset.order)
    matrix = np.array(metrics.confusion_matrix(means, labels))[np.ix_(order, order)]
    wanted = dsl.ClassificationMetrics()
    wanted.log_confusion_matrix(list(passed_run.dataset.severity), matrix.tolist())
    assert written[1]["confusion_matrix"]["metadata"] == wanted.metadata
    assert matrix.sum() == len(np.unique(passed_run.predictions.subjects))  # people, not slices


def test_roc_curves_are_what_the_sdk_would_log(written, passed_run):
    from kfp import dsl

    means, labels = by_person(passed_run)
    for label, name in enumerate(passed_run.dataset.classes):
        told = written[1][f"roc_{name}"]["metadata"]["confidenceMetrics"]
        rows = [
            [float(row[key]) for row in told]
            for key in ("falsePositiveRate", "recall", "confidenceThreshold")
        ]
        wanted = dsl.ClassificationMetrics()
        wanted.log_roc_curve(*rows)
        assert written[1][f"roc_{name}"]["metadata"] == wanted.metadata
        rates, recalls, thresholds = map(np.array, rows)
        assert np.isfinite(thresholds).all()
        assert (np.diff(thresholds) < 0).all()
        assert (rates[0], recalls[0], rates[-1], recalls[-1]) == (0, 0, 1, 1)
        for rate, recall, threshold in zip(rates, recalls, thresholds, strict=True):
            above = means[:, label] >= threshold
            assert recall == pytest.approx(above[labels == label].mean())
            assert rate == pytest.approx(above[labels != label].mean())
        area = float(np.trapz(recalls, rates))
        assert area == pytest.approx(metrics.one_vs_rest_auc(means, labels)[label])


def test_metrics_are_flat_numbers_that_the_sdk_would_log(written, passed_run):
    from kfp import dsl

    told = written[1]["metrics"]["metadata"]
    wanted = dsl.Metrics()
    for name, value in told.items():
        wanted.log_metric(name, value)
    assert told == wanted.metadata
    means, labels = by_person(passed_run)
    intervals = passed_run.decision.details["intervals"]
    assert told["student_macro_auc"] == pytest.approx(metrics.macro_auc(means, labels, 5), abs=1e-6)
    for model in ("student", "teacher"):
        _, low, high = intervals[model]["macro_auc"]
        assert told[f"{model}_macro_auc_low"] == pytest.approx(low, abs=1e-6)
        assert told[f"{model}_macro_auc_high"] == pytest.approx(high, abs=1e-6)
    assert told["total_csf_macro_auc"] > told["constant_prior_macro_auc"]
    assert (told["outcome"], told["gate_passed"]) == ("passed", 1)
    assert (told["test_people"], told["test_images"]) == (84, 672)


def test_the_output_is_an_executor_output_of_the_launcher(written):
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    text = (written[0] / "outputs" / "executor_output.json").read_text()
    found = json_format.Parse(text, pipeline_spec_pb2.ExecutorOutput())
    assert set(found.artifacts) == set(outputs(Facts().classes))
    assert found.artifacts["report"].artifacts[0].uri == f"{written[0]}/report"


@pytest.mark.parametrize("page", PAGES[:3])
def test_pages_need_nothing_from_outside(written, page):
    text = (written[0] / page).read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert text.rstrip().endswith("</html>")
    assert "default-src 'none'" in text
    assert not re.search(r"<script|<link|<iframe|\bon\w+=\"", text)
    assert not re.search(r"(?:src|action|data)=\"(?!data:)", text)
    links = set(re.findall(r"<a [^>]*href=\"([^\"]*)", text))
    assert not links  # in a frame of another page, "#data" would lead to that page
    assert not re.search(r"url\((?!#)|@import", text)


def test_pages_show_what_they_are_for(written):
    folder, _ = written
    report, statistics, checks, card = ((folder / page).read_text() for page in PAGES)
    assert "Passed" in report
    assert "Told before the push" in report
    assert "Nothing was pushed" not in report  # which it cannot know
    assert "test over train" in statistics
    assert "val over train" in statistics
    assert statistics.count("<svg viewBox") > 4
    assert "entropy" in statistics
    assert "No anomalies" in checks
    assert "no drift found" in checks
    assert card.startswith("# Model card: phantom")
    assert "before the push" in card


def test_sample_images_are_found_in_the_examples(written):
    assert (written[0] / "report").read_text().count("data:image/png;base64") > 4


def test_a_refused_run_is_shown_with_its_reasons(refused_artifacts, tmp_path, undrawn):
    told = run(refused_artifacts, tmp_path)
    assert told["metrics"]["metadata"]["outcome"] == "refused"
    assert told["metrics"]["metadata"]["gate_passed"] == 0
    assert "✕ Refused" in (tmp_path / "report").read_text()
    checks = (tmp_path / "data_checks").read_text()
    assert "Nothing is trained on these data" in checks
    assert "Unexpectedly high values" in checks
    assert "drifted" in checks
    assert "data:image/png;base64" in checks  # of the pairs that leak


def test_data_alone_give_their_pages(refused_artifacts, tmp_path, undrawn):
    given = {name: refused_artifacts[name] for name in OF_DATA}
    told = run(given, tmp_path, asked=PAGES_OF_DATA)
    assert set(told) == set(PAGES_OF_DATA)
    assert "✕ Refused" in (tmp_path / "data_checks").read_text()
    assert "test over train" in (tmp_path / "statistics_view").read_text()


def test_nothing_at_all_is_said_in_words(tmp_path):
    told = run({}, tmp_path)
    assert "The split is by person" not in (tmp_path / "statistics_view").read_text()
    assert told["confusion_matrix"]["metadata"] == {} == told["roc_NonDemented"]["metadata"]
    assert told["metrics"]["metadata"] == {}
    assert "No decision" in (tmp_path / "report").read_text()
    assert "No statistics were computed" in (tmp_path / "statistics_view").read_text()
    assert "Not checked" in (tmp_path / "data_checks").read_text()
    assert "No model was judged" in (tmp_path / "model_card").read_text()


def test_answers_that_are_no_numbers_never_reach_json(artifacts, passed_run, tmp_path, undrawn):
    broken = table(passed_run.predictions)
    broken.probabilities["student"][:] = np.nan
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / tables.FILE).write_bytes(tables.to_bytes({"test": broken}))
    told = run(artifacts | {"predictions": tmp_path / "predictions"}, tmp_path / "view")
    assert told["roc_NonDemented"]["metadata"] == {} == told["confusion_matrix"]["metadata"]
    assert all(
        isinstance(value, str) or math.isfinite(value)
        for value in told["metrics"]["metadata"].values()
    )


def test_slices_count_where_nobody_is_known(tmp_path, undrawn):
    evidence = build(level="slice", subjects=(9, 9, 9, 9), slices=2)
    told = run(write_run(tmp_path / "run", evidence), tmp_path)
    assert told["metrics"]["metadata"]["test_slices"] == 72
    rows = told["confusion_matrix"]["metadata"]["confusionMatrix"]["rows"]
    assert sum(sum(row["row"]) for row in rows) == 72
    assert "SLICE-LEVEL" in (tmp_path / "report").read_text()


def test_many_thresholds_are_thinned_out_with_both_ends_kept():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5000)
    student = rng.random((5000, 2))

    class Level:
        probabilities = {"student": student}  # noqa: RUF012

    Level.labels = labels
    points = roc(Level, 1)["confidenceMetrics"]
    assert len(points) == MAX_POINTS
    assert points[-1]["recall"] == points[-1]["falsePositiveRate"] == 1
    Level.labels = np.zeros(5000, int)
    assert roc(Level, 1) == {}  # nobody is of this class


def test_settings_are_those_the_run_was_started_with(artifacts, tmp_path):
    text = executor_input(
        artifacts, tmp_path, model_name="other", student_epochs=3.0, teacher_epochs=4
    )
    found = run_view.gather(read_request(text)).config
    assert found["model_name"] == "other"
    assert (found["student"]["epochs"], found["teacher"]["epochs"]) == (3, 4)
    assert found["pretrain"]["epochs"] == 14


def test_a_placeholder_that_nobody_filled_in_is_no_run(artifacts, tmp_path):
    text = executor_input({}, tmp_path, run_id="{{$.pipeline_job_uuid}}")
    assert run_view.gather(read_request(text)).run.id == ""


def test_what_the_launcher_copied_is_read_and_written_there(
    artifacts, tmp_path, monkeypatch, undrawn
):
    mount = tmp_path / "gcs"
    (mount / "bucket" / "root").mkdir(parents=True)
    for name in ("leakage", "drift"):
        (mount / "bucket" / "root" / name).symlink_to(artifacts[name])
    monkeypatch.setattr(run_view, "MOUNTS", {"gs://": f"{mount}/"})
    given = {name: f"gs://bucket/root/{name}" for name in ("leakage", "drift")}
    text = executor_input(given, "gs://bucket/view", asked=("data_checks",))
    request = read_request(text)
    told = run_view.show(request)
    page = (mount / "bucket" / "view" / "data_checks").read_text()
    assert "Passed" in page
    assert told["artifacts"]["data_checks"]["artifacts"][0]["uri"] == "gs://bucket/view/data_checks"


def test_artifacts_behind_an_address_are_read_and_written_through_tensorflow(
    artifacts, tmp_path, undrawn
):
    import tensorflow as tf

    from schema import places

    for name, folder in artifacts.items():
        places.copy(str(folder), f"ram://run/{name}")
    given = {name: f"ram://run/{name}" for name in artifacts}
    main_input = json.loads(executor_input(given, "ram://view"))
    main_input["outputs"]["outputFile"] = str(tmp_path / "output.json")
    main(["--executor_input", json.dumps(main_input)])
    near = run(artifacts, tmp_path / "near")
    far = strict((tmp_path / "output.json").read_text())["artifacts"]
    for name, artifact in near.items():
        assert far[name]["artifacts"][0]["metadata"] == artifact["metadata"]
    for page in PAGES:
        with tf.io.gfile.GFile(f"ram://view/{page}") as file:
            assert file.read() == (tmp_path / "near" / page).read_text()


@pytest.mark.parametrize("root", ["ram://dataset", "folder"])
def test_a_dataset_in_reach_tells_of_itself(root, artifacts, tmp_path, undrawn):
    """Its documents alone are copied from an address: it may hold millions of images."""
    from schema import places

    folder = tmp_path / "phantoms"
    write_dataset(folder)
    if root.startswith("ram"):
        places.copy(str(folder), root)
        folder = root
    text = executor_input(artifacts, tmp_path, dataset=str(folder))
    found = run_view.gather(read_request(text))
    assert (found.dataset.name, found.dataset.importer) == ("phantoms", "folders")
    assert found.dataset.counts["train"]["NonDemented"].subjects == 4
    assert found.dataset.quarantine_reasons == {"truncated": 1}
    assert found.lineage["images of span-1 (fingerprint)"] == "ab12"
    assert "split by person (SHA-256)" in found.lineage


def test_a_dataset_out_of_reach_is_counted_from_the_answers(artifacts, tmp_path, passed_run):
    text = executor_input(artifacts, tmp_path, dataset=str(tmp_path / "gone"))
    found = run_view.gather(read_request(text)).dataset
    assert (found.name, found.level) == ("gone", "subject")
    assert found.quarantined is None  # not known, which is not none
    for label, name in enumerate(passed_run.dataset.classes):
        of = passed_run.predictions
        people = np.unique(of.subjects[of.labels == label])
        assert found.counts["test"][name].subjects == len(people)


def test_names_of_curves_hold_no_odd_letters():
    found = roc_names(["Non Demented", "Non-Demented", "AD", "très"])
    assert len(set(found.values())) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in found.values())


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"inputs": {}, "outputs": {}}'])
def test_what_is_no_executor_input_is_said_so(text):
    with pytest.raises(BadInput, match=r"--executor_input is no ExecutorInput"):
        read_request(text)


def test_an_output_that_nobody_knows_is_refused(tmp_path):
    text = executor_input({}, tmp_path, asked=("report", "roc_Other"))
    with pytest.raises(BadInput, match="no output roc_Other"):
        run_view.show(read_request(text))
