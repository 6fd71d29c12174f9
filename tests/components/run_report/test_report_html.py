"""The page: whole, safe, alone in its file, the same for the same evidence."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest

from components.report import html as report
from components.report import storage
from components.report.evidence import (
    Anomaly,
    Evidence,
    Node,
    Override,
    Pushed,
    Run,
    Sample,
)
from components.report.tables import counts
from evaluation.outcome import Check, Decision, Outcome, concluded
from tests.components.run_report import gates
from trainer import metrics

VOID = {"meta", "img", "br", "wbr", "link", "hr", "input", "rect", "line", "path"}


class Reader(html.parser.HTMLParser):
    """Checks nesting, and gathers what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.headings, self.tags, self.text = [], [], [], [], []
        self.unnamed = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


@pytest.fixture(scope="module")
def light(evidence):
    """Evidence whose page is drawn fast: no curves."""
    return dataclasses.replace(
        evidence, statistics={}, histories={}, predictions=None, samples=(), baselines={}
    )


@pytest.fixture(scope="module")
def read(page):
    return Reader(page)


def test_html_is_well_formed_and_ids_are_unique(read):
    assert len(read.ids) == len(set(read.ids))
    anchors = [attrs["href"][1:] for tag, attrs in read.tags if tag == "a"]
    assert anchors
    assert set(anchors) <= set(read.ids)


def test_headings_come_in_order(read):
    assert read.headings[0] == 1
    assert read.headings.count(1) == 1
    assert all(
        after <= before + 1 for before, after in zip(read.headings, read.headings[1:], strict=False)
    )


def test_figures_and_images_are_described_and_tables_have_scopes(read):
    for tag, attributes in read.tags:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")


def test_the_file_stands_alone(page, read):
    assert "http" not in page.replace("http-equiv", "")
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not {tag for tag, _ in read.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) == {"#"}
    assert len(page.encode()) < 3_000_000


def test_no_placeholder_colour_is_left(page):
    assert not re.findall("#fab00|#ca550", page)
    assert "currentColor" in page


def test_research_use_stands_on_top_and_bottom(read):
    assert read.words.count("Research use only, not for diagnosis") == 2
    assert read.words.strip().split("Run 2026")[0].strip().endswith("diagnosis.")


def test_equal_evidence_gives_equal_bytes(evidence, page, tmp_path):
    storage.save(evidence, tmp_path)
    assert report.render(storage.load(tmp_path)) == page


def test_headline_numbers_are_the_metrics(evidence, page):
    predictions = evidence.predictions
    _, means, labels = metrics.aggregate_by_subject(
        predictions.student, predictions.labels, predictions.subjects
    )
    summary = metrics.summary(means, labels, evidence.dataset.order)
    row = re.search(r'<tr class="student">.*?</tr>', page, re.DOTALL)[0]
    shown = re.findall(r"<td[^>]*>([^<]+)<", row)
    assert shown == [f"{summary[key]:.3f}" for key in ("macro_auc", "balanced_accuracy", "brier")]
    assert re.search(r'class="lead">0\.\d{3}<small class="ends">\[0\.\d{3},', row)
    for name in ("Student", "Teacher", "Constant prior", "Total CSF"):
        assert f'<th scope="row">{name}</th>' in page


def test_decision_and_version_are_told(page, read):
    assert "✓ Passed" in read.words
    assert "version 4" in read.words
    assert "which is live now" in read.words
    assert "LEAKED" not in read.words
    assert "SLICE-LEVEL" not in read.words


@pytest.mark.parametrize(
    ("outcome", "words"),
    [(Outcome.REFUSED, "✕ Refused"), (Outcome.INSUFFICIENT, "? Insufficient evidence")],
)
@pytest.mark.usefixtures("undrawn")
def test_refusals_give_their_reasons(evidence, outcome, words):
    decision = Decision(outcome, tuple(f"reason {number}" for number in range(11)))
    changed = dataclasses.replace(
        evidence, decision=decision, pushed=None, statistics={}, histories={}
    )
    read = Reader(report.render(changed))
    assert words in read.words
    assert "reason 7" in read.words
    assert "reason 8" not in read.words
    assert "and 3 more" in read.words
    assert "Nothing was pushed" in read.words


@pytest.mark.usefixtures("undrawn")
def test_stamps(make_evidence):
    leaked = make_evidence(leaked=True, level="slice", subjects=(3, 3, 3, 3), slices=2)
    read = Reader(report.render(leaked))
    assert "LEAKED" in read.words
    assert "SLICE-LEVEL" in read.words
    assert "nobody stands on two sides" not in read.words
    assert "Macro AUC per slice" in read.words


@pytest.mark.usefixtures("undrawn")
def test_a_run_stopped_at_its_data_says_where_and_why(stopped_at_data):
    read = Reader(report.render(stopped_at_data))
    assert "■ Stopped" in read.words
    assert "The run stopped at AnomalyGate." in read.words
    assert "Unexpectedly high values: 9.1 > 6" in read.words
    assert "Nothing was trained." in read.words
    assert "No model was judged." in read.words


LATER = ("samples", "predictions", "histories", "statistics", "dataset")


@pytest.mark.parametrize("missing", range(1, len(LATER) + 1))
@pytest.mark.usefixtures("undrawn")
def test_a_run_stopped_anywhere_renders(evidence, missing):
    nothing = {"samples": (), "predictions": None, "histories": {}, "statistics": {}}
    gone = {name: nothing.get(name) for name in LATER[:missing]}
    partial = dataclasses.replace(
        evidence,
        **gone,
        decision=None,
        pushed=None,
        nodes=(Node("Student", "failed", 3.0),),
        run=dataclasses.replace(evidence.run, message="the loss is not finite"),
    )
    read = Reader(report.render(partial))
    assert "The run stopped at Student." in read.words
    assert "the loss is not finite" in read.words


def test_a_run_that_knows_nothing_renders():
    read = Reader(report.render(Evidence(Run("r"))))
    assert "No decision" in read.words
    assert "No dataset was imported." in read.words


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"student": np.full((672, 4), np.nan)}, "Probabilities must be finite."),
        ({"subjects": np.full(672, "one for all")}, "A subject has one label"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_answers_that_cannot_be_measured_are_named(evidence, broken, words):
    predictions = dataclasses.replace(evidence.predictions, **broken)
    decision = Decision(Outcome.REFUSED, ("finite probabilities",))
    changed = dataclasses.replace(
        evidence, predictions=predictions, decision=decision, pushed=None, statistics={}
    )
    read = Reader(report.render(changed))
    assert f"The student’s answers cannot be measured. {words}" in read.words
    assert "✕ Refused" in read.words


def test_a_class_without_people_is_not_evaluable(make_evidence):
    made = make_evidence(subjects=(5, 0, 5, 5), slices=2)
    read = Reader(report.render(dataclasses.replace(made, statistics={}, histories={})))
    assert "not evaluable" in read.words
    assert "needs people of this class and others" in read.words


HOSTILE = '<script>alert("x")</script>'


def test_hostile_names_are_text(make_evidence):
    classes = (HOSTILE, "$\\frac{a}{b}$", "a&b", "--><img src=x onerror=y>")
    evidence = make_evidence(classes=classes, severity=None, subjects=(2, 2, 2, 2), slices=2)
    names = np.full(len(evidence.predictions.labels), "")
    names = np.char.add(HOSTILE, np.char.add(names, evidence.predictions.subjects))
    hostile = dataclasses.replace(
        evidence,
        run=Run(
            id=HOSTILE, preset=HOSTILE, command=f"</pre>{HOSTILE}", versions={HOSTILE: HOSTILE}
        ),
        dataset=dataclasses.replace(
            evidence.dataset, name=HOSTILE, quarantine_reasons={HOSTILE: 3}
        ),
        predictions=dataclasses.replace(evidence.predictions, subjects=names),
        statistics={HOSTILE: {HOSTILE: evidence.statistics["train"]["descriptor/entropy"]}},
        anomalies=(Anomaly(HOSTILE, "</style>" + HOSTILE),),
        config={HOSTILE: HOSTILE},
        tfma={HOSTILE: HOSTILE},
        decision=Decision(Outcome.REFUSED, (HOSTILE,)),
        nodes=(Node(HOSTILE, "failed"),),
        histories={HOSTILE: ({"epoch": 1, "loss": 1.0},)},
        samples=(Sample(0, HOSTILE.encode()),),
    )
    page = report.render(hostile)
    read = Reader(page)
    assert "<script" not in page
    assert "onerror=y>" not in page
    assert not [attrs for _, attrs in read.tags if "onerror" in attrs]
    assert 'alert("x")' in read.words
    assert "$\\frac{a}{b}$" in read.words


@pytest.mark.parametrize(
    ("classes", "subjects"),
    [(("no", "yes"), (6, 5)), (tuple(f"organ {n}" for n in range(10)), (3,) * 10)],
)
@pytest.mark.usefixtures("undrawn")
def test_other_datasets_render(make_evidence, classes, subjects):
    evidence = make_evidence(classes=classes, severity=None, subjects=subjects, slices=2)
    read = Reader(report.render(evidence))
    assert "Quadratic kappa" not in read.words
    assert "in order of severity" not in read.words
    assert len(counts(evidence.dataset).names) == len(classes)
    for name in classes:
        assert name in read.words


@pytest.mark.usefixtures("undrawn")
def test_write_renames_into_place(stopped_at_data, tmp_path):
    path = tmp_path / "runs" / "r" / report.FILE
    report.write(stopped_at_data, path)
    assert [found.name for found in path.parent.iterdir()] == [report.FILE]
    assert path.read_text(encoding="utf-8") == report.render(stopped_at_data)


@pytest.mark.usefixtures("undrawn")
def test_all_three_answers_of_a_check_are_told(light):
    checks = [Check(name.value, name, 0.7, 0.6, 0.65, 0.75, "because") for name in Outcome]
    read = Reader(report.render(dataclasses.replace(light, decision=concluded(checks))))
    for mark in ("✓ passed", "✕ refused", "? insufficient evidence"):
        assert mark in read.words
    assert "[0.650, 0.750]" in read.words


def test_intervals_differences_subgroups_and_operating_point_are_told(read):
    assert "0.011 [-0.034, 0.052]" in read.words
    assert read.words.lower().count("3 candidates") == 2
    assert "specificity 0.470 [0.320, 0.620]" in read.words
    assert "By slice band" in read.words
    assert "Slices drawn (wrong)" in read.words
    assert "> 0" in read.words  # the least number above 0, not 4.9e-324


@pytest.mark.usefixtures("undrawn")
def test_a_class_of_two_people_is_named_with_their_number(make_evidence):
    read = Reader(report.render(make_evidence(subjects=(21, 2, 21, 21), slices=2)))
    assert "not evaluable: 2 people" in read.words


def test_safeguards_are_shown_with_their_evidence(light):
    found = dataclasses.replace(
        light,
        leakage=gates.leakage(24),
        drift=gates.drift("entropy"),
        control=gates.control(0.93),
    )
    page = report.render(found)
    read = Reader(page)
    assert "24 people stand on both sides" in read.words
    assert "The pairs: the first 20 of 24" in read.words
    assert "Of 645,120 pairs of images at 64 pixels the most alike" in read.words
    assert "Compared: train (120 people, 960 images), test (84 people" in read.words
    assert "▲ 1 of 4 drifted" in read.words
    for name, of in (("Student", 0.93), ("Teacher", 0.497), ("Nearest training image", 0.53)):
        assert f"{name}macro AUC {of:.3f}; chance gives 0.390 to 0.610" in read.words
    assert "A leak could show: training people are known again" in read.words
    assert "Comparators of the schema, test against train: 21 kept" in read.words
    assert 'alt="Offending pairs of images side by side"' in page


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_safeguards_says_so(light):
    read = Reader(report.render(dataclasses.replace(light, leakage=None, drift=None, control=None)))
    for said in ("leak check did not run", "Drift was not measured", "control did not run"):
        assert said in read.words


@pytest.mark.usefixtures("undrawn")
def test_data_that_leak_stop_the_run_with_the_reason(stopped_at_data):
    found = dataclasses.replace(stopped_at_data, anomalies=(), leakage=gates.leakage(3))
    verdict = Reader(report.render(found)).words.split("Intervals")[0]
    assert "■ Stopped" in verdict
    assert "3 people stand on both sides" in verdict


@pytest.mark.usefixtures("undrawn")
def test_an_override_is_stamped_with_who_and_why(make_evidence, light):
    decision = make_evidence(outcome=Outcome.REFUSED, subjects=(5, 5, 5, 5), slices=1).decision
    refused = dataclasses.replace(light, decision=decision, pushed=None)
    override = Override("A. Lovelace", "the demonstration", "2026-02-19T08:00:00+00:00")
    page = report.render(dataclasses.replace(refused, override=override, pushed=Pushed(5)))
    read = Reader(page)
    assert '<div class="stamp overridden"><b>OVERRIDDEN</b>' in page
    assert "A. Lovelace did on 19 February 2026, 08:00 UTC: “the demonstration”" in read.words
    assert "✕ Refused" in read.words
    assert "Pushed as version 5" in read.words
    assert "OVERRIDDEN" not in report.render(refused)


@pytest.mark.usefixtures("undrawn")
def test_what_is_not_shown_is_said_beside_the_verdict(evidence):
    details = evidence.decision.details | {
        "differences": {"student - total CSF": [0.013, -0.018, 0.043]},
        "notes": ["ModerateDemented is not evaluable: 2 people, 5 needed"],
    }
    decision = dataclasses.replace(evidence.decision, details=details)
    told = Reader(report.render(dataclasses.replace(evidence, decision=decision))).words
    verdict = told.split("Intervals")[0]
    assert "Not shown to be better than total CSF" in verdict
    assert "0.013 [-0.018, 0.043]" in verdict
    assert "ModerateDemented is not evaluable: 2 people, 5 needed." in verdict
    assert "Not shown to be better" not in Reader(report.render(evidence)).words
